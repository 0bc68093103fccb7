"""Mirrors are asked in order, with the registry itself last; each fails in bounded time, and the next is asked."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from fault_proxy import FaultProxy
from hookline_api.resources import OCISource
from hookline_artifacts.errors import FetchError, VerifyError


def source(origin, name, *mirrors):
    """A reference at one server, with mirrors: servers, or texts."""
    texts = [each if isinstance(each, str) else f"http://{each.host}/{name.partition(':')[0]}" for each in mirrors]
    return OCISource(reference=f"{origin.host}/{name}", insecure=True, mirrors=texts)


def answer_with(status, body=b"", **headers):
    """An answer to all."""

    async def answer(_request):
        return web.Response(status=status, body=body, headers=headers)

    return answer


@pytest.fixture
def module(oci):
    """A module, the manifest that names it, and both."""
    return oci.module("mirrored")


async def test_the_mirror_is_asked_first_and_the_registry_not_at_all(serve, fetcher, oci, module):
    """Neither what the tag means, nor the manifest, nor the module."""
    mirror, origin = await serve(), await serve()
    digest = mirror.put("a/x:v1", oci.manifest(module), module)

    artifact = await fetcher.fetch_oci(source(origin, "a/x:v1", mirror))

    assert artifact.digest == digest
    assert artifact.path.read_bytes() == module
    assert not origin.requests


async def test_a_real_registry_is_a_mirror_of_one_that_is_away(registry, fetcher, oci, module, serve):
    """As in a cluster without a way out."""
    await registry.push("mirrors/x:v1", oci.manifest(module), module)
    origin = await serve()
    origin.otherwise(answer_with(503))
    mirrored = source(origin, "a/x:v1", f"http://{registry.host}/mirrors/x")
    assert (await fetcher.fetch_oci(mirrored)).path.read_bytes() == module
    assert not origin.requests


@pytest.mark.parametrize("what", ["nothing", 401, 403, 404, 429, 500, "html", "manifest", "blob", "no blob"])
async def test_what_a_mirror_does_wrong_costs_one_question(serve, fetcher, oci, module, what):
    """It has nothing, refuses, fails, or gives other bytes than those of the digest: the next is asked."""
    bad, good, origin = await serve(), await serve(), await serve()
    manifest = oci.manifest(module)
    digest = good.put("x:v1", manifest, module)
    bad.put("x:v1", manifest, module)
    other = oci.module("other")
    if isinstance(what, int):
        for name in ("v1", digest):
            bad.on(f"/v2/x/manifests/{name}", answer_with(what))
    elif what == "html":
        bad.on(f"/v2/x/manifests/{digest}", answer_with(200, b"<html>", **{"Content-Type": "text/html"}))
    elif what == "manifest":
        bad.on(f"/v2/x/manifests/{digest}", answer_with(200, oci.manifest(other)))
    elif what == "blob":
        bad.on(f"/v2/x/blobs/{oci.sha256(module)}", answer_with(200, other))
    elif what == "no blob":
        bad.on(f"/v2/x/blobs/{oci.sha256(module)}", answer_with(404))
    else:
        bad = await serve()

    artifact = await fetcher.fetch_oci(source(origin, "x:v1", bad, good))

    assert artifact.path.read_bytes() == module
    assert not origin.requests
    asked = [(request.method, request.path) for request in bad.requests]
    assert asked, "it was asked"
    assert len(asked) == len(set(asked))


async def test_the_registry_is_asked_last(serve, fetcher, oci, module):
    """Where no mirror has it, and for what a tag means too."""
    empty, origin = await serve(), await serve()
    origin.put("x:v1", oci.manifest(module), module)
    assert (await fetcher.fetch_oci(source(origin, "x:v1", empty))).path.read_bytes() == module
    assert empty.requests


async def test_a_tag_means_what_the_first_that_answers_says(serve, fetcher, oci):
    """A mirror may be behind its registry."""
    mirror, origin = await serve(), await serve()
    old, new = oci.module("old"), oci.module("new")
    digest = mirror.put("x:v1", oci.manifest(old), old)
    origin.put("x:v1", oci.manifest(new), new)
    assert await fetcher.resolve(source(origin, "x:v1", mirror)) == digest
    assert await fetcher.resolve(source(origin, "x:v1")) != digest


async def test_the_sentence_names_each_mirror_and_why(serve, fetcher):
    """And begins with what the registry itself said."""
    first, second, origin = await serve(), await serve(), await serve()
    first.otherwise(answer_with(403))
    with pytest.raises(FetchError) as failed:
        await fetcher.fetch_oci(source(origin, "x:v1", first, second))
    sentence = str(failed.value)
    assert f"{origin.host}/v2/x/manifests/v1 answered 404" in sentence
    assert f"of its mirrors, none gave it: {first.host}/x (" in sentence
    assert "answered 403" in sentence
    assert f"{second.host}/x (" in sentence
    assert not failed.value.transient


async def test_wrong_bytes_everywhere_are_not_what_was_asked_for(serve, fetcher, oci, module):
    """That is no failure that passes."""
    mirror, origin = await serve(), await serve()
    manifest = oci.manifest(module)
    for each in (mirror, origin):
        each.put("x:v1", manifest, module)
        each.on(f"/v2/x/blobs/{oci.sha256(module)}", answer_with(200, oci.module("wrong!!!")))
    with pytest.raises(VerifyError, match="of its mirrors, none gave it"):
        await fetcher.fetch_oci(source(origin, "x:v1", mirror))


async def test_an_artifact_that_is_no_plugin_is_fetched_once(serve, fetcher, oci):
    """Everywhere else it would be the same bytes."""
    mirror, origin = await serve(), await serve()
    origin.put("x:v1", oci.manifest(b"no module"), b"no module")
    mirror.put("x:v1", oci.manifest(b"no module"), b"no module")
    with pytest.raises(VerifyError):
        await fetcher.fetch_oci(source(origin, "x:v1", mirror))
    assert not origin.requests


async def test_a_mirror_that_is_silent_keeps_only_the_first_waiting(serve, make_fetcher, oci):
    """The others pass it over for a while."""
    mirror, origin = await serve(), await serve()
    host, port = mirror.host.split(":")
    fetcher = make_fetcher(stall=0.2)
    async with FaultProxy(host, int(port)) as silent:
        silent.silent = True
        names = [f"x{number}:v1" for number in range(8)]
        for name in names:
            module = oci.module(name)
            origin.put(name, oci.manifest(module), module)
        where = f"http://127.0.0.1:{silent.port}"
        for name in names:
            await fetcher.fetch_oci(source(origin, name, f"{where}/{name.partition(':')[0]}"))
        assert silent.accepted == 1


async def test_a_mirror_that_was_away_is_asked_where_nobody_answers(serve, make_fetcher, oci, module):
    """Then it may be back."""
    mirror, origin = await serve(), await serve()
    mirror.put("x:v1", oci.manifest(module), module)
    host, port = mirror.host.split(":")
    fetcher = make_fetcher(attempts=1, connect=0.5, stall=0.5)
    async with FaultProxy(host, int(port)) as away, FaultProxy(*origin.host.split(":")) as gone:
        wanted = OCISource(
            reference=f"127.0.0.1:{gone.port}/x:v1", insecure=True, mirrors=[f"http://127.0.0.1:{away.port}/x"]
        )
        await gone.refuse()
        await away.refuse()
        with pytest.raises(FetchError) as failed:
            await fetcher.fetch_oci(wanted)
        assert failed.value.transient
        await away.accept()
        assert (await fetcher.fetch_oci(wanted)).path.read_bytes() == module


async def test_a_mirror_that_drips_has_its_share_of_the_time(serve, make_fetcher, oci, module):
    """Then the registry is asked, and has time left."""
    mirror, origin = await serve(), await serve()
    manifest = oci.manifest(module)
    for each in (mirror, origin):
        each.put("x:v1", manifest, module)

    async def drip(request):
        answer = web.StreamResponse(headers={"Content-Length": str(len(module))})
        await answer.prepare(request)
        await answer.write(module[:1])
        await asyncio.Event().wait()

    mirror.on(f"/v2/x/blobs/{oci.sha256(module)}", drip)
    fetcher = make_fetcher(total=12, stall=60)  # 6 s for the mirror
    assert (await fetcher.fetch_oci(source(origin, "x:v1", mirror))).path.read_bytes() == module


@pytest.mark.parametrize(
    "text", ["", "x", "a/b", "https://a.example/b", "a.example", "a.example/b:v1", "a.example/b:latest", "a.example/B"]
)
async def test_what_is_no_repository_is_no_mirror(server, fetcher, text):
    """It is told, and nobody is asked."""
    wanted = OCISource.model_construct(
        reference=f"{server.host}/x:v1", insecure=True, mirrors=[text], pull_policy=None, pull_secrets=[]
    )
    with pytest.raises(FetchError, match=r"spec\.source\.oci\.mirrors") as failed:
        await fetcher.fetch_oci(wanted)
    assert not failed.value.transient
    assert not server.requests


async def test_closing_ends_a_question_to_a_mirror(serve, make_fetcher, oci, module):
    """Whoever waits gets an error, and nothing goes on."""
    mirror, origin = await serve(), await serve()
    asked = asyncio.Event()

    async def silent(_request):
        asked.set()
        await asyncio.Event().wait()

    mirror.put("x:v1", oci.manifest(module), module)
    mirror.on(f"/v2/x/blobs/{oci.sha256(module)}", silent)
    fetcher = make_fetcher()
    pull = asyncio.create_task(fetcher.fetch_oci(source(origin, "x:v1", mirror)))
    await asked.wait()
    await fetcher.close()
    with pytest.raises(FetchError, match="closed"):
        await pull
    assert not origin.requests


def sign(server, oci, name, digest, *, signature=b"c2lnbmF0dXJl"):
    """Put something that looks like a cosign signature beside a digest."""
    payload = json.dumps({"critical": {"image": {"docker-manifest-digest": digest}}}).encode()
    layer = oci.descriptor(
        payload,
        "application/vnd.dev.cosign.simplesigning.v1+json",
        annotations={"dev.cosignproject.cosign/signature": signature.decode()},
    )
    server.put(f"{name}:{digest.replace(':', '-')}.sig", oci.manifest(layer), payload)


@pytest.mark.parametrize("where", ["mirror", "origin"])
async def test_signatures_come_from_where_they_are(serve, fetcher, oci, module, where):
    """Of the one that has the artifact; and of the others where that one has none."""
    mirror, origin = await serve(), await serve()
    digest = mirror.put("x:v1", oci.manifest(module), module)
    sign({"mirror": mirror, "origin": origin}[where], oci, "x", digest)
    found = await fetcher.signatures(source(origin, "x:v1", mirror), digest)
    assert [each.form for each in found.signatures] == ["simple"]
    assert [path for path in origin.paths() if path.endswith(".sig")] == (
        [] if where == "mirror" else [f"/v2/x/manifests/{digest.replace(':', '-')}.sig"]
    )


async def test_where_a_mirror_has_only_old_signatures_the_registry_is_asked_for_its_own(
    serve, make_fetcher, oci, module
):
    """An artifact is signed with a new key after it was mirrored; what is enough asks nobody else."""
    mirror, origin = await serve(), await serve()
    digest = mirror.put("x:v1", oci.manifest(module), module)
    sign(mirror, oci, "x", digest, signature=b"b2xk")
    fetcher = make_fetcher(attempts=1)
    async with FaultProxy(*origin.host.split(":")) as proxy:
        wanted = OCISource(reference=f"127.0.0.1:{proxy.port}/x:v1", insecure=True, mirrors=[f"http://{mirror.host}/x"])

        async def found(enough):
            evidence = await fetcher.signatures(wanted, digest, enough=enough)
            return [each.signature for each in evidence.signatures]

        assert await found(lambda evidence: evidence.signatures[0].signature == b"old") == [b"old"]
        assert not [path for path in origin.paths() if path.endswith(".sig")]
        assert await found(lambda _: False) == [b"old"]  # it has not even the artifact
        origin.put("x:v1", oci.manifest(module), module)
        sign(origin, oci, "x", digest, signature=b"bmV3")
        assert await found(lambda _: False) == [b"new", b"old"]
        await proxy.refuse()
        assert await found(lambda _: False) == [b"old"]


async def test_no_signature_is_not_said_where_the_registry_did_not_answer(serve, make_fetcher, oci, module):
    """It may have one: that is a failure that passes, and no verdict."""
    mirror, origin = await serve(), await serve()
    digest = mirror.put("x:v1", oci.manifest(module), module)
    fetcher = make_fetcher(attempts=1)
    async with FaultProxy(*origin.host.split(":")) as gone:
        await gone.refuse()
        wanted = OCISource(reference=f"127.0.0.1:{gone.port}/x:v1", insecure=True, mirrors=[f"http://{mirror.host}/x"])
        with pytest.raises(FetchError) as failed:
            await fetcher.signatures(wanted, digest)
        assert failed.value.transient
        sign(mirror, oci, "x", digest)
        assert (await fetcher.signatures(wanted, digest)).signatures


async def test_nobody_is_asked_of_what_the_store_has(serve, make_fetcher, oci, module):
    """By digest, with every mirror and the registry away."""
    mirror, origin = await serve(), await serve()
    digest = mirror.put("x:v1", oci.manifest(module), module)
    wanted = source(origin, "x:v1", mirror)
    first = await make_fetcher().fetch_oci(wanted, digest=digest)
    mirror.requests.clear()
    assert await make_fetcher().fetch_oci(wanted, digest=digest) == first
    assert not mirror.requests
    assert not origin.requests
