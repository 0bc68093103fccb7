"""No redirect and no token server gets a secret that is another's."""

from __future__ import annotations

import base64

import pytest
from aiohttp import web

from hookline_api.resources import OCISource
from hookline_artifacts.errors import FetchError
from hookline_artifacts.login.access import RegistryAccess

PULL_SECRET = base64.b64encode(b"puller:hunter2").decode()


def access_for(server):
    """Pull secrets for a server."""
    return RegistryAccess(dockerconfigs=({"auths": {server.host: {"auth": PULL_SECRET}}},))


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
    """Its 503 is not a refusal of the credentials."""

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
