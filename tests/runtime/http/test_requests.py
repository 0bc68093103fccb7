"""What a guest sends is read strictly, and bounded before it is parsed; what the server gets is what it asked."""

from __future__ import annotations

import base64
import json

import pytest

from hookline_runtime.host.http_message import MAX_BODY, MAX_HEADER_BYTES, MAX_HEADERS, MAX_REQUEST, HttpError
from hookline_runtime.host.http_message import read_request as read
from http_guests import HttpGuest, body, cause


def request(**fields):
    """As JSON."""
    return json.dumps({"url": "https://a.test/"} | fields).encode()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "failed"),
        (b"[]", "failed"),
        (b'"https://a.test/"', "failed"),
        (b"{", "failed"),
        (b"{}", "failed"),
        (b'{"url":"https://a.test/"} x', "failed"),
        (b'{"url":"\xff"}', "failed"),
        (request(url=None), "failed"),
        (request(url=7), "failed"),
        (request(method="get"), "failed"),
        (request(method="TRACE"), "failed"),
        (request(method="CONNECT"), "failed"),
        (request(method="GET / HTTP/1.1\r\nX: y"), "failed"),
        (request(method=None), "failed"),
        (request(redirect="follow"), "failed"),
        (request(timeoutMs=0), "failed"),
        (request(timeoutMs=-1), "failed"),
        (request(timeoutMs=True), "failed"),
        (request(timeoutMs=1.5), "failed"),
        (request(timeoutMs=60_001), "failed"),
        (request(headers=[]), "failed"),
        (request(body=7), "failed"),
        (request(body="a", bodyBase64="YQ=="), "failed"),
        (request(bodyBase64="%%"), "failed"),
        (request(bodyBase64="é"), "failed"),
        (request(bodyBase64=7), "failed"),
        (request(bodyBase64="YQ"), "failed"),
        (request(url="https://a.test/" + "x" * 8192), "limit"),
        (request(body="x" * (MAX_BODY + 1)), "limit"),
        (request(bodyBase64=base64.b64encode(bytes(MAX_BODY + 1)).decode()), "limit"),
        (request(headers={f"x-{n}": "y" for n in range(MAX_HEADERS + 1)}), "limit"),
        (request(headers={"x": "y" * MAX_HEADER_BYTES}), "limit"),
        (b"[" * 100_000, "limit"),
        (b"{" + b'"a":[],' * 100_000 + b'"b":1}', "limit"),
        (b" " * MAX_REQUEST + b"{}", "limit"),
    ],
)
def test_what_is_no_request_is_told_as_such(raw, why):
    """In one sentence, and at once."""
    with pytest.raises(HttpError) as refused:
        read(raw)
    assert refused.value.cause == why
    assert 10 < len(str(refused.value)) < 200


@pytest.mark.parametrize(
    "name",
    ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "Proxy-Authorization", "proxy-connection", "TE",
     "Upgrade", "Trailer", "Expect", "Keep-Alive", "Accept-Encoding"],
)  # fmt: skip
def test_headers_of_the_transport_are_the_hosts(name):
    """Two ends of one message are how a second one is smuggled in."""
    with pytest.raises(HttpError, match="is the host's to send") as refused:
        read(request(headers={name: "x"}))
    assert refused.value.cause == "denied"


@pytest.mark.parametrize(
    "headers",
    [{"x": "a\r\nHost: evil"}, {"x": "a\nb"}, {"x": "\x00"}, {"x": "\x7f"}, {"x": "ü"}, {"x": 1}, {"x": None},
     {"x": ["a"]}, {"x\r\nHost": "a"}, {"x:": "a"}, {"": "a"}, {"x y": "a"}, {"ü": "a"}, {"X": "a", "x": "b"},
     {"x" * 129: "a"}],
)  # fmt: skip
def test_a_header_cannot_end_its_line(headers):
    """Nor be there twice in two spellings."""
    with pytest.raises(HttpError) as refused:
        read(request(headers=headers))
    assert refused.value.cause == "denied"


def test_a_large_body_is_no_costly_one():
    """Its text may hold as many brackets and escapes as it likes."""
    text = '{"a": [1, 2, "\\" \\\\"]}, ' * 20_000
    assert read(request(body=text)).body == text.encode()
    assert read(request(bodyBase64=base64.b64encode(bytes(MAX_BODY)).decode())).body == bytes(MAX_BODY)


async def test_the_server_gets_what_was_asked(site, guest):
    """Method, target, headers and body, and of ours no more than is needed."""
    site.page("/v1/x", "yes")
    asks = guest(site.rule(methods=["POST", "GET"]))
    answer = await asks.fetch(
        site.url("/v1/x?a=%2e%2e"), method="POST", headers={"X-One": " a b ", "User-Agent": "us"}, body="bödy"
    )
    assert body(answer) == b"yes"
    method, target, headers, sent = site.requests[0]
    assert (method, target, sent) == ("POST", "/v1/x?a=%2e%2e", "bödy".encode())
    assert headers == {
        "host": f"127.0.0.1:{site.port}", "x-one": "a b", "user-agent": "us", "accept": "*/*",
        "accept-encoding": "gzip, deflate", "content-length": "5",
    }  # fmt: skip


async def test_a_post_is_the_short_form(site, guest):
    """Of bytes and their type."""
    site.page("/", b"\xff\x00", X_Twice="a")
    asks = guest(site.rule(methods=["POST"]))
    answer = await asks.post(site.url(), "application/octet-stream", b"\x00\xff")
    assert answer["status"] == 200
    assert body(answer) == b"\xff\x00"
    assert "bodyBase64" in answer
    assert answer["headers"]["x-twice"] == "a"
    assert answer["fromCache"] is False
    assert site.requests[0][2]["content-type"] == "application/octet-stream"
    assert site.requests[0][3] == b"\x00\xff"
    assert cause(await asks.post(site.url(), "a\r\nb", b"")) == "denied"
    assert (
        cause(
            await asks.post(
                site.url(
                    "/..",
                ),
                "a",
                b"",
            )
        )
        == "denied"
    )


async def test_what_comes_to_no_response_is_counted(site, guest):
    """By function."""
    asks = guest(site.rule())
    await asks.fetch(site.url(), method="POST")
    await asks.fetch("nonsense")
    await asks.post(site.url(), "", b"")
    await asks.fetch(site.url())
    assert asks.host.refused == {"http_fetch": 2, "http_post": 1}
    assert [method for method, *_ in site.requests] == ["GET"]


async def test_without_a_rule_nothing_is_asked(site):
    """With the permission; without it the host function itself is denied."""
    assert cause(await HttpGuest([]).fetch(site.url())) == "denied"
    assert site.requests == []


async def test_no_proxy_of_the_environment_is_asked(site, guest, monkeypatch):
    """It would resolve names by itself, and see what is sent in the clear."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    site.page("/", "direct")
    assert body(await guest(site.rule()).fetch(site.url())) == b"direct"


async def test_cookies_are_not_kept(site, guest):
    """What a server sets is the guest's to see, and nobody's to send."""
    site.page("/", "x", Set_Cookie="a=b")
    asks = guest(site.rule())
    assert (await asks.fetch(site.url()))["headers"]["set-cookie"] == "a=b"
    await asks.fetch(site.url())
    assert "cookie" not in site.requests[1][2]
