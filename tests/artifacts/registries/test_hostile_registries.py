"""Whatever a registry answers, there is one error with a cause, within bounds."""

from __future__ import annotations

import datetime as dt
import json
import os
from email.utils import format_datetime

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookline_artifacts.errors import FetchError, VerifyError
from hookline_artifacts.login.challenges import parse_challenges
from hookline_artifacts.net.transport import retry_after

FUZZ = max(100, int(os.environ.get("HOOKLINE_FUZZ", "0")) // 10)


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_429_waits_as_long_as_it_says(server, fetcher, artifact, form):
    """A pause that is short enough is kept, and the pull goes on."""
    past = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)

    async def busy(_request):
        server.on(artifact.tag, None)
        return web.Response(status=429, headers={"Retry-After": "0" if form == "seconds" else format_datetime(past)})

    server.on(artifact.tag, busy)

    assert await fetcher.resolve(artifact.source) == artifact.digest
    assert server.paths() == [artifact.tag] * 2


async def test_a_long_pause_is_left_to_the_caller(server, fetcher, artifact):
    """The error says how long the registry wants to be left alone; one request was made."""

    async def busy(_request):
        return web.Response(status=429, headers={"Retry-After": "120"})

    server.on(artifact.tag, busy)

    with pytest.raises(FetchError, match="429") as caught:
        await fetcher.resolve(artifact.source)
    assert (caught.value.transient, caught.value.retry_after) == (True, 120)
    assert server.paths() == [artifact.tag]


async def test_a_failing_server_is_asked_a_few_times(server, make_fetcher, artifact):
    """A 503 is transient, and tried again up to the limit."""

    async def broken(_request):
        return web.Response(status=503)

    server.on(artifact.tag, broken)

    with pytest.raises(FetchError, match="503") as caught:
        await make_fetcher(attempts=3).resolve(artifact.source)
    assert caught.value.transient
    assert len(server.requests) == 3


async def test_a_registry_without_head_is_asked_with_get(server, fetcher, artifact):
    """Where HEAD is refused the digest is computed from the manifest itself."""

    async def only_get(request):
        if request.method == "HEAD":
            return web.Response(status=405)
        return web.Response(body=(server._content[artifact.manifest]))

    server.on(artifact.tag, only_get)

    assert await fetcher.resolve(artifact.source) == artifact.digest


async def test_a_web_page_is_not_taken_for_a_manifest(server, fetcher, artifact):
    """A login page with 200 is named as what it is."""

    async def page(_request):
        return web.Response(text="<html>Please log in</html>", content_type="text/html")

    server.on(artifact.tag, page)

    with pytest.raises(FetchError, match="a web page"):
        await fetcher.resolve(artifact.source)


@pytest.mark.parametrize(
    "document",
    [b"", b"null", b"[]", b"{}", b'{"layers": [], "manifests": []}', b'{"layers": [{}]}', b"[" * 100_000, b"\xff"],
)
async def test_a_manifest_that_makes_no_sense_is_refused(server, fetcher, document):
    """Not JSON, no object, neither or both kinds, no digest, too deep: a VerifyError each."""
    server.put("odd:v1", document)
    with pytest.raises(VerifyError):
        await fetcher.fetch_oci(server.source("odd:v1"))


async def test_an_index_of_indexes_has_an_end(server, fetcher, oci):
    """However deep a chain is built, a few steps are made."""
    manifest = oci.index(oci.manifest(b""))
    for _ in range(20):
        server.put("deep:x", manifest)
        manifest = oci.index(manifest)
    server.put("deep:v1", manifest)

    with pytest.raises(VerifyError, match="deeper than"):
        await fetcher.fetch_oci(server.source("deep:v1"))
    assert len(server.requests) < 10


async def test_a_refused_connection_is_transient(server, make_fetcher):
    """Nobody listens: the error names the host and may be tried again."""
    source = server.source("plugin:v1").model_copy(update={"reference": "127.0.0.1:1/plugin:v1"})
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:1.*") as caught:
        await make_fetcher(attempts=2).resolve(source)
    assert caught.value.transient


def test_challenges_are_read_as_servers_write_them():
    """Several in one header, quoted commas, escapes, names in any case, a scheme without parameters."""
    text = 'Negotiate, BASIC realm="a \\"b\\", c", Bearer Realm="https://t/x?a=b,c" , service=s,scope="r:x:pull"'
    assert parse_challenges(text) == [
        ("negotiate", {}),
        ("basic", {"realm": 'a "b", c'}),
        ("bearer", {"realm": "https://t/x?a=b,c", "service": "s", "scope": "r:x:pull"}),
    ]


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=300) | st.text(alphabet='Basic Bearer="\\,', max_size=300))
def test_any_challenge_is_read_without_an_exception(text):
    """Whatever stands in WWW-Authenticate."""
    for scheme, parameters in parse_challenges(text):
        assert scheme == scheme.lower()
        assert all(isinstance(value, str) for value in parameters.values())


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.from_regex("[a-z]{1,8}", fullmatch=True),
        st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
        max_size=4,
    )
)
def test_what_a_server_quotes_is_what_is_read(parameters):
    """Quoting and reading are inverse."""
    quoted = ",".join(f"{key}={json.dumps(value)}" for key, value in parameters.items())
    assert parse_challenges(f"Bearer {quoted}") == [("bearer", parameters)]


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=60))
def test_retry_after_is_a_bounded_number_or_nothing(text):
    """Whatever stands in Retry-After."""
    assert retry_after(text, now=0.0) is None or 0 <= retry_after(text, now=0.0) <= 3600


def test_retry_after_reads_seconds_and_dates():
    """Both forms of RFC 9110."""
    assert retry_after("7", now=0) == 7
    assert retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=20) == 40
    assert retry_after("999999999999", now=0) == 3600
