"""What somebody else wrote as a URL is asked byte for byte, and escaped only where it cannot be sent."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qs, unquote_to_bytes

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookline_api.resources import HTTPSource, OCISource
from hookline_artifacts.errors import FetchError
from hookline_artifacts.net.urls import foreign, shown, with_query

FUZZ = max(100, int(os.environ.get("HOOKLINE_FUZZ", "0")) // 10)
UNTOUCHED = [
    "/it%27s%2Fone.wasm", "/a'b(c)*!.wasm", "/a+b;c=d,e:f@g&h", "/%2e%2e/%2E/x", "/a/../b/./c", "/a//double//slash/",
    "/a%25%2525", "/%e2%82%AC", "/a?X-Signature=a%2Fb%2Bc%3D&x='&y=%27", "/a?b+c=d%20e;f", "/a?", "/a?b?c/d:e@f",
    "/a?x=&&y", "/~a-b_c.d$", "/%41%62c", "/a?sig=aGk%3d%3D", "/", "/a;p=1/b?a=1&a=2",
]  # fmt: skip
ESCAPED = [
    ("/a b", "/a%20b"), ("/é", "/%C3%A9"), ("/a[0]?b[]=c", "/a%5B0%5D?b%5B%5D=c"), ("/100%", "/100%25"),
    ("/%zz%4", "/%25zz%254"), ('/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"), ("/a#frag?x", "/a"),
    ("/a?b#c", "/a?b"), ("/€?€", "/%E2%82%AC?%E2%82%AC"),
]  # fmt: skip
WRITTEN = [(target, target) for target in UNTOUCHED] + ESCAPED


@pytest.fixture
def asked(server, oci):
    """The targets of all requests that the server answered with a module, as they came."""
    module, targets = oci.module("anything"), []

    async def answer(request):
        targets.append(request.raw_path)
        return web.Response(body=module)

    server.otherwise(answer)
    return targets


def source(server, oci, written):
    """A file on the server."""
    return HTTPSource(url=f"http://{server.host}{written}", sha256=oci.sha256(oci.module("anything"))[7:])


@pytest.mark.parametrize(("written", "sent"), [*WRITTEN, ("", "/"), ("?a=b", "/?a=b"), ("/a\tb\x7f", "/a%09b%7F")])
async def test_a_source_is_asked_byte_for_byte(server, fetcher, oci, asked, written, sent):
    """``http.url`` may be signed over every byte of it."""
    await fetcher.fetch_http(source(server, oci, written))
    assert asked == [sent]


@pytest.mark.parametrize(("written", "sent"), WRITTEN)
@pytest.mark.parametrize("absolute", [True, False])
async def test_a_redirect_is_followed_byte_for_byte(server, fetcher, oci, asked, written, sent, absolute):
    """Also where only the path is given."""

    async def away(_request):
        return web.Response(status=302, headers={"Location": f"http://{server.host}{written}" if absolute else written})

    server.on("/from", away)
    await fetcher.fetch_http(source(server, oci, "/from"))
    assert asked == [sent]


@pytest.mark.parametrize(("written", "sent"), WRITTEN)
async def test_a_token_server_is_asked_byte_for_byte(server, fetcher, oci, written, sent):
    """What the realm holds stays, and service and scope are ours alone."""
    module, targets = oci.module("plugin"), []
    digest = server.put("plugin:v1", oci.manifest(module), module)
    realm = re.sub(r'(["\\])', r"\\\1", f"http://{server.host}{written}")

    async def guarded(request):
        if "Authorization" in request.headers:
            return web.Response(headers={"Docker-Content-Digest": digest})
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="a b&c"'})

    async def token(request):
        targets.append(request.raw_path)
        return web.json_response({"token": "t"})

    server.on("/v2/plugin/manifests/v1", guarded)
    server.otherwise(token)
    assert await fetcher.resolve(server.source("plugin:v1")) == digest
    (target,) = targets
    joint = "&" if "?" in sent and not sent.endswith("?") else "" if sent.endswith("?") else "?"
    assert target == f"{sent}{joint}service=a%20b%26c&scope=repository:plugin:pull"


def test_a_realm_does_not_choose_its_own_scope():
    """Another one in its query gives way."""
    url = with_query(foreign("https://t/x?scope=everything&a=%27&%73cope=more"), {"scope": "repository:a/b:pull"})
    assert url.raw_path_qs == "/x?a=%27&scope=repository:a/b:pull"


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("d", "/a/b/d"), ("../d%2F", "/a/d%2F"), ("../../../d?", "/d?"), ("?y='", "/a/b/c?y='"), ("#z", "/a/b/c?x=1"),
        ("./", "/a/b/"), ("..", "/a/"), ("d/./e/../f", "/a/b/d/f"), ("/q/../r", "/q/../r"), (".", "/a/b/"),
    ],
)  # fmt: skip
def test_a_relative_redirect_leads_where_the_standard_says(written, there):
    """RFC 3986, 5.2; an absolute path is not touched."""
    base = foreign("https://store.test:5/a/b/c?x=1")
    assert str(foreign(written, base=base)) == f"https://store.test:5{there}"


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://[::1]:5000/a", "[::1]:5000"), ("HTTPS://Store.TEST:443/a", "store.test"),
        ("https://bücher.test/a", "xn--bcher-kva.test"), (" https://a.test:8443/a\n", "a.test:8443"),
        ("//b.test/a", "b.test"),
    ],
)  # fmt: skip
def test_a_host_is_read_as_it_is_meant(text, host):
    """Addresses in brackets, its own port, letters beyond ASCII."""
    assert str(foreign(text, base=foreign("https://a.test/"))) == f"https://{host}/a"


@pytest.mark.parametrize(
    "text",
    ["http://", "http:///a", "https:/a", "http:a", "ftp://a/b", "http://a b/", "http://[::1", "http://a:b/",
     "x" * 9999, "http://a:99999/", "http://%61/", "http://a\\@b/", "http://user@/",
     "mailto:x", "/a", "", "http://a%2fb/", "a:1/b"],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(text):
    """One exception for all of it."""
    with pytest.raises(ValueError):  # noqa: PT011 - its words are for nobody
        foreign(text)


async def test_a_redirects_bytes_need_no_encoding(server, fetcher, oci, asked):
    """A Location in Latin-1 is asked for in the bytes that it has."""

    async def away(request):
        request.transport.write(b"HTTP/1.1 302 Found\r\nLocation: /caf\xe9\r\nContent-Length: 0\r\n\r\n")
        return web.Response(status=204)

    server.on("/from", away)
    await fetcher.fetch_http(source(server, oci, "/from"))
    assert asked == ["/caf%E9"]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_the_advice_for_a_url_is_about_the_url(server, fetcher, oci, status):
    """A pull secret would not help, and the signature is not repeated."""

    async def refuse(_request):
        return web.Response(status=status, headers={"WWW-Authenticate": 'Basic realm="r"'})

    server.on("/plugin.wasm", refuse)
    with pytest.raises(FetchError, match=f"answered {status}; .*URL") as caught:
        await fetcher.fetch_http(source(server, oci, "/plugin.wasm?X-Signature=hunter2"))
    for word in ("pull secret", "docker", "reference", "hunter2"):
        assert word not in str(caught.value)


async def test_the_advice_for_a_url_without_a_known_certificate_is_about_the_url(serve, server, authority, fetcher):
    """A URL has neither ``insecure`` nor ``caConfigMap``."""
    secure = await serve(authority=authority)
    for host, words in ((secure.host, "the system's authorities"), (server.host, "write http://")):
        with pytest.raises(FetchError, match=words) as caught:
            await fetcher.fetch_http(HTTPSource(url=f"https://{host}/plugin.wasm", sha256="0" * 64))
        for word in ("insecure", "caConfigMap"):
            assert word not in str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_the_advice_for_a_store_that_was_redirected_to_is_about_the_store(server, serve, fetcher, oci, status):
    """Its signed URL has the login in it: no pull secret is wrong."""
    other, module = await serve(), oci.module("plugin")
    server.put("plugin:v1", oci.manifest(module), module)

    async def away(_request):
        return web.Response(status=307, headers={"Location": f"http://{other.host}/blob?X-Signature=hunter2"})

    async def refuse(_request):
        return web.Response(status=status)

    server.on(f"/v2/plugin/blobs/{oci.sha256(module)}", away)
    other.otherwise(refuse)
    with pytest.raises(
        FetchError, match=f"{other.host}/blob answered {status}; the redirect leads to a store"
    ) as caught:
        await fetcher.fetch_oci(OCISource(reference=f"{server.host}/plugin:v1", insecure=True))
    assert "pull secret" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


LEGAL = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=60) | st.text(alphabet="/?#%&=+.a0\\[] @:é", max_size=60))
def test_any_target_is_legal_and_means_what_was_written(text):
    """What was legal is not touched; what is sent decodes to the same bytes."""
    target = text.replace("#", "")
    if any("\ud800" <= each <= "\udfff" for each in target):
        return
    target = f"/{target}z"
    sent = foreign(f"https://store.test{target}").raw_path_qs
    assert LEGAL.fullmatch(sent)
    assert unquote_to_bytes(sent) == unquote_to_bytes(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", target))
    if LEGAL.fullmatch(target):
        assert sent == target


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=60) | st.from_regex(r"(https?:)?//[^/]{0,20}/[\s\S]{0,20}"), st.booleans())
def test_any_text_is_a_url_that_can_be_asked_or_a_value_error(text, relative):
    """And what is shown of it has no user, query or fragment."""
    try:
        url = foreign(text, base=foreign("https://a.test/b?c") if relative else None)
    except ValueError:
        return
    assert url.scheme in {"http", "https"}
    assert url.raw_host
    assert LEGAL.fullmatch(url.raw_path_qs)
    assert not set("?#@") & set(shown(url).removeprefix(url.scheme).partition("/")[0])
    assert "?" not in shown(url)


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.from_regex("[a-z]{1,8}", fullmatch=True), st.text(max_size=20).filter(str.isprintable)))
def test_any_field_of_a_query_arrives(fields):
    """Beside what was there."""
    query = with_query(foreign("https://t.test/x?Own=%27"), fields).raw_path_qs.partition("?")[2]
    assert query.startswith("Own=%27")
    found = parse_qs(query, keep_blank_values=True)
    assert {key: values[0] for key, values in found.items() if key != "Own"} == fields
