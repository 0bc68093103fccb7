"""A body that breaks off, lies, drips or has no end is resumed or refused, within bounds."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from hookline_artifacts.errors import FetchError, VerifyError


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
    """A byte now and then is not progress, however long it goes on."""

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
