"""Each hop of a redirect is judged as if the guest had asked for it."""

from __future__ import annotations

import pytest

from http_guests import LOOPBACK, body, cause

CREDENTIAL = {
    "credential": {"header": "Authorization", "prefix": "Bearer ", "valueFrom": {"name": "a", "key": "token"}}
}
SECRETS = {"credentials": {"a/token": "s3cr3t-value"}}


def told(answer):
    """The sentence, of what was denied."""
    assert cause(answer) == "denied"
    return answer["error"]["message"]


@pytest.mark.parametrize(
    ("status", "method", "then", "kept"),
    [
        (301, "GET", "GET", False), (302, "GET", "GET", False), (303, "GET", "GET", False), (307, "GET", "GET", False),
        (301, "POST", "GET", False), (302, "POST", "GET", False), (303, "POST", "GET", False),
        (307, "POST", "POST", True), (308, "POST", "POST", True), (302, "PUT", "PUT", True), (303, "PUT", "GET", False),
        (303, "HEAD", "HEAD", False),
    ],
)  # fmt: skip
async def test_methods_and_bodies_follow_the_standard(plain, guest, status, method, then, kept):
    """RFC 9110, 15.4: 307 and 308 keep them."""
    plain.page("/a", status=status, Location="b?c")
    plain.page("/b", "here")
    asks = guest(plain.rule(methods=["GET", "HEAD", "POST", "PUT"]))
    sent = {"body": "data", "headers": {"Content-Type": "text/x"}} if method in {"POST", "PUT"} else {}
    assert (await asks.fetch(plain.url("/a"), method=method, **sent))["status"] == 200
    (_, second) = plain.requests
    assert second[0] == then
    assert second[1] == "/b?c"
    assert second[3] == (b"data" if kept else b"")
    assert ("content-type" in second[2]) is kept


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://169.254.169.254/latest/meta-data/", "names http://169.254.169.254"),
        ("http://metadata.test/", "names http://metadata.test"),
        ("http://[::ffff:169.254.169.254]/", "names http://[::ffff:a9fe:a9fe]"),
        ("http://2852039166/", "unusual form"),
        ("http://user@127.0.0.1/", "a user or a password"),
        ("/admin", "this path of"),
        ("/v1/..%2fadmin", "segment"),
        ("//evil.test/v1", "names http://evil.test"),
        ("file:///etc/passwd", "https:// or http://"),
        ("http://127.0.0.1:1/", "names http://127.0.0.1:1"),
    ],
)
async def test_a_redirect_that_no_rule_allows_is_not_followed(plain, guest, location, why):
    """To metadata, to another path, or to what cannot be read."""
    plain.page("/v1/a", status=302, Location=location)
    sentence = told(await guest(plain.rule(paths=["/v1"])).fetch(plain.url("/v1/a")))
    assert why in sentence
    assert "redirects, and that is not followed" in sentence
    assert len(plain.requests) == 1


async def test_a_redirect_to_a_name_with_a_metadata_address_is_not_followed(plain, guest, names):
    """Though a rule names it, and names every address too."""
    names["metadata.test"] = [["169.254.169.254"]]
    plain.page("/", status=302, Location="http://metadata.test/latest")
    asks = guest(plain.rule(), {"scheme": "http", "host": "metadata.test", "addresses": ["0.0.0.0/0"]})
    assert "never asked" in told(await asks.fetch(plain.url()))


async def test_https_is_not_left_for_http(site, plain, guest):
    """Though there is a rule for either."""
    site.page("/", status=302, Location=plain.url())
    assert "is not left for http" in told(await guest(site.rule(), plain.rule()).fetch(site.url()))
    assert plain.requests == []


async def test_redirects_have_an_end(plain, guest):
    """Five are followed, and the sixth is not."""
    for n in range(7):
        plain.page(f"/{n}", status=302, Location=f"/{n + 1}")
    plain.page("/6", "there")
    asks = guest(plain.rule())
    assert body(await asks.fetch(plain.url("/1"))) == b"there"
    assert cause(await asks.fetch(plain.url("/0"))) == "limit"


async def test_a_redirect_without_a_place_is_an_answer(plain, guest):
    """And so is a 304, or a 300."""
    plain.page("/", status=302)
    plain.page("/300", status=300, Location="/")
    asks = guest(plain.rule())
    assert (await asks.fetch(plain.url()))["status"] == 302
    assert (await asks.fetch(plain.url("/300")))["status"] == 300


async def test_what_a_guest_sent_to_one_origin_is_not_sent_to_another(site, guest, names):
    """But for what says nothing of anybody; to the same origin all goes on."""
    names["api.test"] = names["other.test"] = [["127.0.0.1"]]
    site.page("/a", status=307, Location="/b")
    site.page("/b", status=307, Location=site.url("/c", host="other.test"))
    site.page("/c", "there")
    asks = guest(site.rule(host="api.test"), site.rule(host="other.test"))
    sent = {"Authorization": "mine", "Cookie": "a=b", "X-Api-Key": "k", "Accept": "text/plain"}
    assert body(await asks.fetch(site.url("/a", host="api.test"), headers=sent)) == b"there"
    (_, same, other) = (headers for _, _, headers, _ in site.requests)
    assert {"authorization": "mine", "cookie": "a=b", "x-api-key": "k", "accept": "text/plain"}.items() <= same.items()
    assert other["accept"] == "text/plain"
    assert not {"authorization", "cookie", "x-api-key"} & other.keys()


async def test_a_credential_goes_where_its_own_rule_says(site, guest, names):
    """Not with a redirect to a host whose rule has none; and back again it is added anew."""
    names["api.test"] = names["other.test"] = [["127.0.0.1"]]
    site.page("/a", status=302, Location=site.url("/b", host="other.test"))
    site.page("/b", status=302, Location=site.url("/c", host="api.test"))
    site.page("/c", "there")
    asks = guest(site.rule(host="api.test", **CREDENTIAL), site.rule(host="other.test"), **SECRETS)
    assert body(await asks.fetch(site.url("/a", host="api.test"))) == b"there"
    assert [headers.get("authorization") for _, _, headers, _ in site.requests] == [
        "Bearer s3cr3t-value", None, "Bearer s3cr3t-value",
    ]  # fmt: skip


async def test_a_guests_own_header_gives_way_to_a_credential_on_the_way(site, guest):
    """Where the guest sends one to a path without a rule's credential, and is redirected to one with it."""
    site.page("/open", status=302, Location="/closed")
    site.page("/closed", "there")
    asks = guest(site.rule(paths=["/open"]), site.rule(paths=["/closed"], **CREDENTIAL), **SECRETS)
    assert body(await asks.fetch(site.url("/open"), headers={"authorization": "mine"})) == b"there"
    assert [headers["authorization"] for _, _, headers, _ in site.requests] == ["mine", "Bearer s3cr3t-value"]


async def test_connections_of_one_rule_are_not_anothers(site, guest, names):
    """A connection to a private address that one rule names is not there for a rule that names none."""
    names["api.test"] = [["127.0.0.1"]]
    site.page("/a", "a")
    site.page("/b", "b")
    asks = guest(site.rule(host="api.test", paths=["/a"]), site.rule(host="api.test", paths=["/b"], addresses=[]))
    assert body(await asks.fetch(site.url("/a", host="api.test"))) == b"a"
    assert "private" in told(await asks.fetch(site.url("/b", host="api.test")))
    assert site.rule()["addresses"] == LOOPBACK
