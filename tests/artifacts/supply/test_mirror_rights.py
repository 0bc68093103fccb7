"""A mirror is no way around the registry: who may have something is decided each time, and by which password."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from aiohttp import web

from hookline_api.resources import OCISource
from hookline_artifacts.errors import FetchError
from hookline_artifacts.login.access import RegistryAccess
from registries import sha256


def basic(login):
    """As a header has it."""
    return "Basic " + base64.b64encode(login.encode()).decode()


def guard(server, login):
    """Let all that was put there ask for a login; the headers that came."""
    came = []

    def at(path):
        body = server._content[path]

        async def answer(request):
            came.append(request.headers.get("Authorization"))
            if came[-1] != basic(login):
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            return web.Response(body=body, headers={"Docker-Content-Digest": sha256(body)})

        return answer

    for path in list(server._content):
        server.on(path, at(path))
    return came


def access(**logins):
    """Logins by host."""
    auths = {host: {"auth": base64.b64encode(login.encode()).decode()} for host, login in logins.items()}
    return RegistryAccess(dockerconfigs=(json.dumps({"auths": auths}),))


def source(origin, name, *mirrors):
    """A reference at one server, with mirrors."""
    texts = [f"http://{each.host}/{name.partition(':')[0]}" for each in mirrors]
    return OCISource(reference=f"{origin.host}/{name}", insecure=True, mirrors=texts)


async def test_each_host_is_shown_its_own_password(serve, fetcher, oci):
    """And never another's, in whatever order they are asked."""
    mirror, origin = await serve(), await serve()
    module = oci.module("secret")
    mirror.put("x:v1", oci.manifest(module), module)
    origin.put("x:v1", oci.manifest(module), module)
    to_mirror, to_origin = guard(mirror, "m:one"), guard(origin, "o:two")
    mirror.on(f"/v2/x/blobs/{oci.sha256(module)}", _missing)

    both = access(**{mirror.host: "m:one", origin.host: "o:two"})
    assert (await fetcher.fetch_oci(source(origin, "x:v1", mirror), access=both)).path.read_bytes() == module

    assert set(to_mirror) == {None, basic("m:one")}
    assert set(to_origin) == {None, basic("o:two")}


async def _missing(_request):
    return web.Response(status=404)


async def test_a_password_for_the_registry_alone_is_not_shown_to_a_mirror(serve, fetcher, oci):
    """The mirror wants one, and gets none; the registry gets its own."""
    mirror, origin = await serve(), await serve()
    module = oci.module("secret")
    for each in (mirror, origin):
        each.put("x:v1", oci.manifest(module), module)
    to_mirror, _ = guard(mirror, "m:one"), guard(origin, "o:two")
    own = access(**{origin.host: "o:two"})
    assert (await fetcher.fetch_oci(source(origin, "x:v1", mirror), access=own)).path.read_bytes() == module
    assert set(to_mirror) == {None}


async def test_what_one_had_with_a_password_another_has_to_ask_for(serve, fetcher, oci):
    """From a mirror that wants one: without it neither the mirror nor the registry gives it, and nor does the store."""
    mirror, origin = await serve(), await serve()
    module = oci.module("secret")
    for each in (mirror, origin):
        digest = each.put("x:v1", oci.manifest(module), module)
    guard(mirror, "m:one"), guard(origin, "o:two")
    wanted = source(origin, "x:v1", mirror)

    await fetcher.fetch_oci(wanted, access=access(**{mirror.host: "m:one"}))
    with pytest.raises(FetchError, match="answered 401"):
        await fetcher.fetch_oci(wanted, digest=digest)
    with pytest.raises(FetchError, match="answered 401"):
        await fetcher.fetch_oci(wanted, digest=digest, access=access(**{origin.host: "o:wrong"}))
    assert await fetcher.fetch_oci(wanted, digest=digest, access=access(**{origin.host: "o:two"}))


async def test_what_an_open_mirror_gave_is_no_right_at_the_registry(serve, fetcher, oci):
    """Who does not name the mirror asks the registry, which refuses."""
    mirror, origin = await serve(), await serve()
    module = oci.module("secret")
    for each in (mirror, origin):
        digest = each.put("x:v1", oci.manifest(module), module)
    guard(origin, "o:two")

    await fetcher.fetch_oci(source(origin, "x:v1", mirror), digest=digest)
    with pytest.raises(FetchError, match="answered 401"):
        await fetcher.fetch_oci(source(origin, "x:v1"), digest=digest)


async def test_what_the_registry_gave_is_had_by_no_mirror_of_ones_own(serve, fetcher, oci):
    """A mirror that has the manifest, which many know, and not the module: it proves nothing."""
    own, origin = await serve(), await serve()
    module = oci.module("secret")
    digest = origin.put("x:v1", oci.manifest(module), module)
    guard(origin, "o:two")
    await fetcher.fetch_oci(source(origin, "x:v1"), digest=digest, access=access(**{origin.host: "o:two"}))

    own.put("x:v1", oci.manifest(module))
    with pytest.raises(FetchError, match="answered 401"):
        await fetcher.fetch_oci(source(origin, "x:v1", own), digest=digest, prove=True)


async def test_who_asks_at_the_same_time_does_not_come_along(serve, fetcher, oci):
    """With other mirrors it is another question, although registry, digest and password are the same."""
    mirror, origin = await serve(), await serve()
    module = oci.module("secret")
    for each in (mirror, origin):
        digest = each.put("x:v1", oci.manifest(module), module)
    guard(origin, "o:two")
    gate, asked = asyncio.Event(), asyncio.Event()

    async def late(_request):
        asked.set()
        await gate.wait()
        return web.Response(body=module)

    mirror.on(f"/v2/x/blobs/{oci.sha256(module)}", late)
    first = asyncio.create_task(fetcher.fetch_oci(source(origin, "x:v1", mirror), digest=digest))
    await asked.wait()
    with pytest.raises(FetchError, match="answered 401"):
        await fetcher.fetch_oci(source(origin, "x:v1"), digest=digest)
    gate.set()
    assert (await first).path.read_bytes() == module
