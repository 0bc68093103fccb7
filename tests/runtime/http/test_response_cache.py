"""Responses are kept by HTTP's own rules (RFC 9111), for the plugin alone, within bounds."""

from __future__ import annotations

import email.utils

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from hookline_runtime.host import http_cache
from hookline_runtime.host.http_cache import Moment, ResponseCache, Wish, directives
from hookline_runtime.host.http_message import Response
from http_guests import body

NOW = 1_800_000_000.0
URL = "https://a.test/"


def date(seconds):
    """As HTTP writes it."""
    return email.utils.formatdate(NOW + seconds, usegmt=True)


def moment(at=0.0, took=0.0):
    """When a response came, after so many seconds."""
    return Moment(sent=at - took, came=at, wall=NOW + at)


def wish(**headers):
    """Of a GET."""
    return Wish.of("GET", {name.replace("_", "-"): value for name, value in headers.items()}, has_body=False)


def kept(headers, *, status=200, took=0.0, sent=None):
    """What is kept of a response with such headers."""
    cache = ResponseCache()
    cache.keep(URL, sent or {}, Response(status=status, headers=headers, body=b"x"), moment(took=took))
    return cache.find(URL, sent or {})


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"cache-control": "max-age=60"}, 60),
        ({"cache-control": 'public, MAX-AGE="60", x="a,b=c"'}, 60),
        ({"cache-control": "private, max-age=60"}, 60),
        ({"cache-control": "max-age=60, max-age=5"}, 60),
        ({"cache-control": "s-maxage=5, max-age=60"}, 60),
        ({"cache-control": "max-age=60", "expires": date(-10)}, 60),
        ({"cache-control": "max-age=60", "age": "20"}, 40),
        ({"cache-control": "max-age=60", "date": date(-20)}, 40),
        ({"cache-control": "max-age=60", "date": date(-20), "age": "30"}, 30),
        ({"cache-control": "max-age=60", "date": date(+20)}, 60),
        ({"expires": date(60)}, 60),
        ({"expires": date(40), "date": date(-20)}, 40),
        ({"cache-control": "max-age=99999999999999999"}, 2**31),
        ({"cache-control": "max-age=60, no-cache", "etag": '"1"'}, 0),
        ({"cache-control": 'no-cache="x-y", max-age=60'}, 0),
        ({"cache-control": "max-age=x", "etag": '"1"'}, 0),
        ({"cache-control": "max-age=-1", "etag": '"1"'}, 0),
        ({"expires": "0", "etag": '"1"'}, 0),
        ({"last-modified": date(-100_000)}, 0),
    ],
)
def test_a_response_is_fresh_for_as_long_as_it_says(headers, seconds):
    """Sections 4.2.1 and 4.2.3; who states nothing is not guessed at."""
    found = kept(headers)
    assert found is not None
    assert not seconds or found.is_fresh(wish(), seconds - 1.5)
    assert not found.is_fresh(wish(), seconds + 0.5)


def test_the_time_on_the_way_counts():
    """Section 4.2.3: the origin's age began when it was asked."""
    assert not kept({"cache-control": "max-age=60", "age": "0"}, took=30).is_fresh(wish(), 31)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200), ({"etag": '"1"', "cache-control": "no-store"}, 200), ({"etag": '"1"', "vary": "*"}, 200),
        ({"etag": '"1"', "vary": "x, *"}, 200), ({"cache-control": "max-age=60"}, 206),
        ({"cache-control": "max-age=60"}, 302), ({"cache-control": "max-age=60"}, 304),
        ({"cache-control": "max-age=0"}, 200), ({"expires": date(-1)}, 200),
    ],
)  # fmt: skip
def test_what_may_not_be_kept_or_never_be_used_is_not_kept(headers, status):
    """Section 3."""
    assert kept(headers, status=status) is None


@pytest.mark.parametrize(
    ("headers", "fresh"),
    [
        ({}, True), ({"cache_control": "no-cache"}, False), ({"pragma": "no-cache"}, False),
        ({"pragma": "no-cache", "cache_control": "max-age=100"}, True), ({"cache_control": "max-age=0"}, False),
        ({"cache_control": "max-age=5"}, False), ({"cache_control": "max-age=15"}, True),
        ({"cache_control": "max-age=x"}, False), ({"cache_control": "min-fresh=55"}, False),
        ({"cache_control": "min-fresh=40"}, True), ({"cache_control": "max-stale=1000"}, True),
    ],
)  # fmt: skip
def test_a_request_may_want_it_fresher(headers, fresh):
    """Section 5.2.1, of what is ten seconds old and lives for sixty."""
    assert kept({"cache-control": "max-age=60"}).is_fresh(wish(**headers), 10) is fresh


@pytest.mark.parametrize("name", ["range", "if-none-match", "if-modified-since", "if-match", "if-range"])
def test_who_asks_with_a_condition_of_its_own_gets_its_own_answer(name):
    """Nothing kept is given, and nothing is kept."""
    assert not Wish.of("GET", {name: "x"}, has_body=False).kept
    assert not Wish.of("GET", {"cache-control": "no-store"}, has_body=False).kept
    assert not Wish.of("HEAD", {}, has_body=False).kept


def test_what_varies_is_kept_for_each():
    """Section 4.1, and no more than some of them."""
    cache = ResponseCache()
    for number in range(20):
        headers = {"accept-language": str(number)}
        response = Response(
            status=200, headers={"cache-control": "max-age=60", "vary": "Accept-Language"}, body=b"%d" % number
        )
        cache.keep(URL, headers, response, moment())
    found = [cache.find(URL, {"accept-language": str(number)}) for number in range(20)]
    assert [each.response.body for each in found if each] == [b"%d" % number for number in range(12, 20)]
    assert cache.find(URL, {}) is None


def test_it_has_an_end():
    """The least recently used go first, and what is too large is not kept at all."""
    cache = ResponseCache()
    page = Response(status=200, headers={"cache-control": "max-age=60"}, body=bytes(100_000))
    for number in range(100):
        cache.keep(f"{URL}{number}", {}, page, moment())
        cache.find(URL + "0", {})
        assert cache.size <= http_cache.MAX_BYTES
    assert cache.find(URL + "0", {})
    assert cache.find(URL + "99", {})
    assert not cache.find(URL + "1", {})
    cache.keep(URL, {}, Response(status=200, headers=page.headers, body=bytes(http_cache.MAX_ENTRY)), moment())
    assert not cache.find(URL, {})
    for number in range(100):
        cache.forget(f"{URL}{number}")
    assert cache.size == cache._count == 0
    empty = Response(status=200, headers=page.headers, body=b"")
    for number in range(2000):
        cache.keep(f"{URL}{number}", {}, empty, moment())
    assert cache._count <= http_cache.MAX_ENTRIES


@given(st.text(alphabet='max-age=60," \\;\t', max_size=60))
def test_directives_are_read_whatever_they_are(text):
    """And their names are names."""
    assert all(name and " " not in name for name in directives(text))


async def test_a_fresh_response_is_not_asked_again(site, guest):
    """It says how old it is, and that it was kept; another plugin does not get it."""
    site.page("/", "one", Cache_Control="max-age=60", ETag='"1"')
    asks = guest(site.rule())
    first, second = await asks.fetch(site.url()), await asks.fetch(site.url())
    assert (first["fromCache"], second["fromCache"]) == (False, True)
    assert body(second) == b"one"
    assert int(second["headers"]["age"]) <= 60
    assert len(site.requests) == 1
    await asks.fetch(site.url(), headers={"Cache-Control": "no-store"})
    await guest(site.rule(), name="another").fetch(site.url())
    assert len(site.requests) == 3


@pytest.mark.parametrize("name", ["Authorization", "Cookie", "X-Api-Key", "X-Tenant"])
async def test_what_one_person_may_see_is_not_given_to_another(site, guest, name):
    """A guest asks with the token of each, and a server need not say that its answer varies by that."""

    async def page(request):
        return web.Response(text=request.headers.get(name, "nobody"), headers={"Cache-Control": "private, max-age=60"})

    site.pages["/"] = page
    asks = guest(site.rule())
    people = [{name: "ann"}, {name: "bob"}, {}, {name: "ann", "User-Agent": "x"}]
    answers = [await asks.fetch(site.url(), headers=headers) for headers in people]
    assert [body(answer) for answer in answers] == [b"ann", b"bob", b"nobody", b"ann"]
    assert [answer["fromCache"] for answer in answers] == [False, False, False, True]


async def test_a_stale_response_is_confirmed(site, guest):
    """A 304 is enough, and its headers are the newer ones."""
    count = []

    async def page(request):
        count.append(request.headers.get("If-None-Match"))
        headers = {"ETag": '"1"', "X-Count": str(len(count)), "Cache-Control": "no-cache"}
        if count[-1] == '"1"':
            return web.Response(status=304, headers=headers)
        return web.Response(text="one", headers=headers | {"X-Old": "yes"})

    site.pages["/"] = page
    asks = guest(site.rule())
    answers = [await asks.fetch(site.url()) for _ in range(3)]
    assert count == [None, '"1"', '"1"']
    assert [answer["headers"]["x-count"] for answer in answers] == ["1", "2", "3"]
    assert [answer["fromCache"] for answer in answers] == [False, True, True]
    assert {(body(answer), answer["status"], answer["headers"]["x-old"]) for answer in answers} == {
        (b"one", 200, "yes")
    }


async def test_a_changed_response_takes_the_place_of_the_old_one(site, guest):
    """And a server's error takes nobody's."""
    site.page("/", "one", Cache_Control="no-cache", ETag='"1"')
    asks = guest(site.rule())
    await asks.fetch(site.url())
    site.page("/", "broken", status=500)
    assert (await asks.fetch(site.url()))["status"] == 500
    site.page("/", "two", Cache_Control="max-age=60", ETag='"2"')
    assert body(await asks.fetch(site.url())) == b"two"
    assert site.requests[2][2]["if-none-match"] == '"1"'
    site.page("/", "three", Cache_Control="no-store")
    assert body(await asks.fetch(site.url())) == b"two"
    assert body(await asks.fetch(site.url(), headers={"Cache-Control": "no-cache"})) == b"three"
    assert body(await asks.fetch(site.url())) == b"three"
    assert len(site.requests) == 5


async def test_what_is_written_is_forgotten(site, guest):
    """What was kept of it, and of where the answer says that it is now; not after an error."""
    for path in ("/", "/made"):
        site.page(path, "x", Cache_Control="max-age=60", Content_Location="/made")
    asks = guest(site.rule(methods=["GET", "POST"]))
    for path in ("/", "/made"):
        await asks.fetch(site.url(path))
    await asks.fetch(site.url("/"), method="POST")
    assert [(await asks.fetch(site.url(path)))["fromCache"] for path in ("/", "/made")] == [False, False]
    site.page("/", "no", status=409)
    await asks.fetch(site.url("/"), method="POST")
    assert (await asks.fetch(site.url("/")))["fromCache"] is True


async def test_only_what_is_kept_may_be_asked_for(site, guest):
    """`only-if-cached` is 504 where there is nothing: section 5.2.1.7."""
    asks = guest(site.rule())
    assert (await asks.fetch(site.url(), headers={"Cache-Control": "only-if-cached"}))["status"] == 504
    assert site.requests == []


async def test_a_redirect_that_is_kept_is_judged_again(site, guest):
    """It is followed from memory, by the rules."""
    site.page("/a", status=301, Location="/b", Cache_Control="max-age=60")
    site.page("/b", "there")
    asks = guest(site.rule())
    for _ in range(2):
        assert body(await asks.fetch(site.url("/a"))) == b"there"
    assert [target for _, target, *_ in site.requests] == ["/a", "/b", "/b"]
