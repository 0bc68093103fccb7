"""Whatever a registry answers, there is one error with a cause, within bounds, and no secret leaves its host."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import os
from email.utils import format_datetime

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookline_api.resources import OCISource
from hookline_artifacts.errors import FetchError, VerifyError
from hookline_artifacts.login.access import RegistryAccess
from hookline_artifacts.login.challenges import parse_challenges
from hookline_artifacts.net.transport import retry_after

FUZZ = max(100, int(os.environ.get("HOOKLINE_FUZZ", "0")) // 10)
PULL_SECRET = base64.b64encode(b"puller:hunter2").decode()


def access_for(server):
    """Pull secrets for a server."""
    return RegistryAccess(dockerconfigs=({"auths": {server.host: {"auth": PULL_SECRET}}},))


@pytest.fixture
def artifact(server, oci):
    """A module behind ``plugin:v1`` on the server, and the paths of its parts."""
    module = oci.module("plugin", 200_000)
    digest = server.put("plugin:v1", oci.manifest(module), module)

    class Parts:
        bytes = module
        source = server.source("plugin:v1")
        blob = f"/v2/plugin/blobs/{oci.sha256(module)}"
        manifest = f"/v2/plugin/manifests/{digest}"
        tag = "/v2/plugin/manifests/v1"

    Parts.digest = digest
    return Parts


async def cut_off(request, body, *, after, declared=None):
    """Send the beginning of a body and break the connection."""
    response = web.StreamResponse(headers={"Content-Length": str(declared or len(body))})
    await response.prepare(request)
    await response.write(body[:after])
    request.transport.close()
    return response


async def test_a_dropped_connection_is_resumed_where_it_stopped(server, fetcher, artifact):
    """The second request asks for the rest, and the whole is right."""

    async def first(request):
        server.on(artifact.blob, None)
        return await cut_off(request, artifact.bytes, after=100_000)

    server.on(artifact.blob, first)

    found = await fetcher.fetch_oci(artifact.source)

    assert found.path.read_bytes() == artifact.bytes
    ranges = [request.headers.get("Range") for request in server.requests if request.path == artifact.blob]
    assert ranges[0] is None
    assert 0 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= 100_000


@pytest.mark.parametrize("second", ["whole", "wrong part"])
async def test_a_server_that_cannot_resume_is_read_from_the_start(server, fetcher, artifact, second):
    """A 200 instead of a 206, or another part than was asked for, is not glued to what came before."""

    async def again(_request):
        if second == "whole":
            return web.Response(body=artifact.bytes)
        server.on(artifact.blob, None)
        length = len(artifact.bytes)
        return web.Response(
            status=206, body=artifact.bytes[7:], headers={"Content-Range": f"bytes 7-{length - 1}/{length}"}
        )

    async def first(request):
        server.on(artifact.blob, again)
        return await cut_off(request, artifact.bytes, after=100_000)

    server.on(artifact.blob, first)

    assert (await fetcher.fetch_oci(artifact.source)).path.read_bytes() == artifact.bytes


async def test_a_range_behind_the_end_starts_over(server, fetcher, artifact):
    """A 416 while resuming forgets what came before."""

    async def again(_request):
        server.on(artifact.blob, None)
        return web.Response(status=416)

    async def first(request):
        server.on(artifact.blob, again)
        return await cut_off(request, artifact.bytes, after=100_000)

    server.on(artifact.blob, first)

    assert (await fetcher.fetch_oci(artifact.source)).path.read_bytes() == artifact.bytes


async def test_a_body_that_always_breaks_off_is_transient(server, make_fetcher, artifact):
    """After the last attempt the error may be tried again later, and nothing is left in the store."""

    async def never(request):
        return await cut_off(request, artifact.bytes, after=10)

    server.on(artifact.blob, never)

    with pytest.raises(FetchError, match=r"cut off|closed") as caught:
        await make_fetcher(attempts=3).fetch_oci(artifact.source)
    assert caught.value.transient
    assert server.paths().count(artifact.blob) == 3


async def test_other_bytes_than_the_digest_says_are_refused(server, fetcher, store, artifact):
    """A tampered blob of the right length is a VerifyError, and is not kept."""

    async def tampered(_request):
        return web.Response(body=artifact.bytes[:-1] + b"!")

    server.on(artifact.blob, tampered)

    with pytest.raises(VerifyError, match="not what was asked for"):
        await fetcher.fetch_oci(artifact.source)
    assert store.get(artifact.digest) is None


async def test_another_manifest_than_the_digest_says_is_refused(server, fetcher, oci, artifact):
    """The manifest is hashed here, whatever Docker-Content-Digest claims."""

    async def lie(_request):
        return web.Response(body=oci.manifest(b"other"), headers={"Docker-Content-Digest": artifact.digest})

    server.on(artifact.manifest, lie)

    with pytest.raises(VerifyError, match="not what was asked for"):
        await fetcher.fetch_oci(artifact.source)


async def test_a_blob_longer_than_its_manifest_says_is_cut(server, make_fetcher, artifact):
    """An endless body ends at the size that the manifest promised."""

    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(bytes(65_536))
        return response

    server.on(artifact.blob, endless)

    with pytest.raises(VerifyError, match="longer than the"):
        await make_fetcher().fetch_oci(artifact.source)


async def test_a_declared_length_over_the_cap_is_refused_before_it_comes(server, make_fetcher, artifact):
    """Both the manifest's size and the server's Content-Length count."""
    with pytest.raises(FetchError, match="only 1000 are allowed") as caught:
        await make_fetcher(download=1000).fetch_oci(artifact.source)
    assert not caught.value.transient
    assert artifact.blob not in server.paths()


async def test_an_endless_manifest_is_cut(server, make_fetcher, artifact):
    """A manifest has a cap of its own."""

    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(b" " * 65_536)
        return response

    server.on(artifact.manifest, endless)

    with pytest.raises(FetchError, match="only 200000 are allowed"):
        await make_fetcher(manifest=200_000).fetch_oci(artifact.source)


async def test_a_content_length_that_lies_is_found_out(server, make_fetcher, artifact):
    """Too long a promise is a broken connection, too short a one is missing bytes."""

    async def too_long(request):
        return await cut_off(request, artifact.bytes, after=len(artifact.bytes), declared=len(artifact.bytes) + 5)

    server.on(artifact.blob, too_long)
    with pytest.raises((FetchError, VerifyError)):
        await make_fetcher(attempts=2).fetch_oci(artifact.source)

    async def too_short(_request):
        return web.Response(body=artifact.bytes[:100])

    server.on(artifact.blob, too_short)
    with pytest.raises(FetchError, match="cut off after 100 of"):
        await make_fetcher(attempts=2).fetch_oci(artifact.source)


async def test_a_gzip_encoded_answer_is_not_unpacked(server, fetcher, artifact):
    """Content-Encoding is not asked for and not undone: the digest is of the bytes on the wire."""

    async def encoded(_request):
        response = web.Response(body=artifact.bytes)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    server.on(artifact.blob, encoded)

    with pytest.raises((FetchError, VerifyError)):
        await fetcher.fetch_oci(artifact.source)
    assert all(request.headers["Accept-Encoding"] == "identity" for request in server.requests)


async def test_who_drips_is_left(server, make_fetcher, artifact):
    """A byte now and then is no progress, however long it goes on."""

    async def drip(request):
        response = web.StreamResponse(headers={"Content-Length": str(len(artifact.bytes))})
        await response.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(b"\0")
            await asyncio.sleep(0.005)  # the fault itself
        return response

    server.on(artifact.blob, drip)

    with pytest.raises(FetchError, match=r"longer than 0\.5 s") as caught:
        await make_fetcher(stall=0.5, attempts=1).fetch_oci(artifact.source)
    assert caught.value.transient


async def test_the_total_time_ends_everything(server, make_fetcher, artifact):
    """A server that says nothing is left when the fetch's time is over, whatever the retries."""

    async def silent(_request):
        await asyncio.Event().wait()

    server.on(artifact.manifest, silent)

    with pytest.raises(FetchError, match=r"within 0\.1 s") as caught:
        await make_fetcher(total=0.1).fetch_oci(artifact.source, digest=artifact.digest)
    assert caught.value.transient


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


async def test_credentials_do_not_follow_a_redirect(server, serve, fetcher, artifact, oci):
    """The other host gets the request and no Authorization; the blob comes all the same."""
    other = await serve()
    other.put("store:v1", oci.manifest(b""), artifact.bytes)

    async def locked(request):
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        where = f"http://{other.host}/v2/store/blobs/{oci.sha256(artifact.bytes)}?X-Signature=a%2Fb"
        return web.Response(status=307, headers={"Location": where})

    server.on(artifact.blob, locked)

    found = await fetcher.fetch_oci(artifact.source, access=access_for(server))

    assert found.path.read_bytes() == artifact.bytes
    (asked,) = other.requests
    assert "Authorization" not in asked.headers
    assert asked.raw_path.endswith("?X-Signature=a%2Fb")


async def test_a_login_asked_for_after_a_redirect_is_not_given(server, serve, fetcher, artifact):
    """A host that was redirected to cannot challenge for the first one's credentials."""
    other = await serve()

    async def ask(_request):
        realm = f"http://{other.host}/token"
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})

    async def away(_request):
        return web.Response(status=302, headers={"Location": f"http://{other.host}/steal"})

    other.on("/steal", ask)
    server.on(artifact.blob, away)

    with pytest.raises(FetchError, match="401"):
        await fetcher.fetch_oci(artifact.source, access=access_for(server))
    assert set(other.paths()) == {"/steal"}
    assert all("Authorization" not in request.headers for request in other.requests)


async def test_https_is_not_left_for_http(serve, authority, fetcher, oci):
    """A redirect from https to http is refused, and the http host is not asked."""
    secure, plain = await serve(authority=authority), await serve()
    module = oci.module()
    secure.put("plugin:v1", oci.manifest(module), module)

    async def downgrade(_request):
        return web.Response(status=302, headers={"Location": f"http://{plain.host}/blob?token=abc"})

    secure.on(f"/v2/plugin/blobs/{oci.sha256(module)}", downgrade)

    with pytest.raises(FetchError, match="redirects from https") as caught:
        await fetcher.fetch_oci(secure.source("plugin:v1"), access=RegistryAccess(ca_pem=authority.pem))
    assert "abc" not in str(caught.value)
    assert not plain.requests


@pytest.mark.parametrize("location", ["", "ftp://127.0.0.1/x", "http://", "http://[::1", "//no host/"])
async def test_a_redirect_to_nowhere_is_refused(server, fetcher, artifact, location):
    """No Location, another scheme, no host: one error."""

    async def away(_request):
        return web.Response(status=302, headers={"Location": location} if location else {})

    server.on(artifact.tag, away)

    with pytest.raises(FetchError):
        await fetcher.resolve(artifact.source)


@pytest.mark.parametrize("address", ["169.254.169.254", "[fe80::1]"])
async def test_link_local_addresses_are_never_asked(server, fetcher, artifact, address):
    """There a cloud gives its machine's credentials to whoever asks: neither as a source nor after a redirect."""
    source = OCISource(reference=f"{address}/plugin:v1", insecure=True)
    with pytest.raises(FetchError, match="link-local"):
        await fetcher.fetch_oci(source)

    async def elsewhere(_):
        raise web.HTTPTemporaryRedirect(f"http://{address}/latest/meta-data/")

    server.on(artifact.blob, elsewhere)
    with pytest.raises(FetchError, match="link-local"):
        await fetcher.fetch_oci(artifact.source)


async def test_a_redirect_loop_has_an_end(server, fetcher, artifact):
    """Five redirects are followed, a sixth is not."""

    async def around(request):
        return web.Response(status=302, headers={"Location": request.path})

    server.on(artifact.tag, around)
    server.on(artifact.manifest, around)

    with pytest.raises(FetchError, match="302"):
        await fetcher.fetch_oci(artifact.source, digest=artifact.digest)
    assert len(server.requests) == 6


async def test_a_token_server_without_tls_is_not_asked_by_a_secure_registry(serve, authority, fetcher):
    """The realm has to be https unless the plugin is `insecure`."""
    secure, plain = await serve(authority=authority), await serve()

    async def challenge(_request):
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{plain.host}/token"'})

    secure.on("/v2/plugin/manifests/v1", challenge)
    access = RegistryAccess(ca_pem=authority.pem, dockerconfigs=access_for(secure).dockerconfigs)

    with pytest.raises(FetchError, match="realm must be an https URL"):
        await fetcher.resolve(secure.source("plugin:v1"), access=access)
    assert not plain.requests


async def test_a_refused_token_is_not_used_again(server, fetcher, artifact):
    """A token that the registry stops accepting is replaced; one that it never accepts ends in an error."""
    good, minted = "second", iter(["first", "second", "third", "fourth"])

    async def mint(_request):
        return web.json_response({"access_token": next(minted)})

    async def guarded(request):
        if request.headers.get("Authorization") == f"Bearer {good}":
            return web.Response(body=server._content[artifact.tag], headers={"Docker-Content-Digest": artifact.digest})
        realm = f"http://{server.host}/token"
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})

    server.on("/token", mint)
    server.on(artifact.tag, guarded)

    with pytest.raises(FetchError, match="without credentials"):  # "first" is not accepted, and nobody else to be
        await fetcher.resolve(artifact.source)
    assert await fetcher.resolve(artifact.source) == artifact.digest  # "second"
    asked = server.paths().count("/token")
    assert await fetcher.resolve(artifact.source) == artifact.digest  # from the cache
    assert server.paths().count("/token") == asked
    good = "third"
    assert await fetcher.resolve(artifact.source) == artifact.digest


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "a b"}', b'{"token": "a\\r\\nX: y"}', b"x" * 300_000],
)
async def test_a_token_answer_that_is_none_is_an_error(server, fetcher, artifact, answer):
    """Not JSON, no token, a token that would break a header, too long."""

    async def challenge(_request):
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{server.host}/token"'})

    async def token(_request):
        return web.Response(body=answer)

    server.on(artifact.tag, challenge)
    server.on("/token", token)

    with pytest.raises(FetchError, match="token") as caught:
        await fetcher.resolve(artifact.source)
    assert not caught.value.transient


@pytest.mark.parametrize("realm", ["", "ftp://127.0.0.1/t", "http://[::1", "http://u:hunter2@127.0.0.1/t", "/token"])
async def test_a_realm_that_cannot_be_asked_is_refused(server, fetcher, artifact, realm):
    """No URL, another scheme, a login within it: not transient, and not repeated."""

    async def challenge(_request):
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})

    server.on(artifact.tag, challenge)

    with pytest.raises(FetchError, match="no usable token server") as caught:
        await fetcher.resolve(artifact.source)
    assert "hunter2" not in str(caught.value)


async def test_a_token_server_that_fails_is_transient(server, make_fetcher, artifact):
    """Its 503 is no refusal of the credentials."""

    async def challenge(_request):
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{server.host}/token"'})

    async def broken(_request):
        return web.Response(status=503)

    server.on(artifact.tag, challenge)
    server.on("/token", broken)

    with pytest.raises(FetchError, match="503") as caught:
        await make_fetcher(attempts=2).resolve(artifact.source)
    assert caught.value.transient


async def test_a_login_of_another_kind_is_named(server, fetcher, artifact):
    """Neither Basic nor Bearer: the error says so."""

    async def challenge(_request):
        return web.Response(status=401, headers={"WWW-Authenticate": "Negotiate"})

    server.on(artifact.tag, challenge)

    with pytest.raises(FetchError, match="neither Basic nor Bearer"):
        await fetcher.resolve(artifact.source)


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
