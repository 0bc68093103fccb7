"""A source goes in and an artifact in the store comes out; once for all who ask, and never when it is known."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os

import pytest
from aiohttp import web

from hookline_api.resources import HTTPSource, OCISource
from hookline_artifacts.errors import FetchError, VerifyError
from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.store import ArtifactStore


@pytest.fixture
def gate(server, oci):
    """A module whose blob comes when ``open`` is set; ``asked`` is set when it is asked for."""
    module = oci.module("gated")
    digest = server.put("gated:v1", oci.manifest(module), module)

    class Gate:
        open, asked, source = asyncio.Event(), asyncio.Event(), server.source("gated:v1")
        blob = f"/v2/gated/blobs/{oci.sha256(module)}"

    Gate.digest = digest

    async def answer(_request):
        Gate.asked.set()
        await Gate.open.wait()
        return web.Response(body=module)

    server.on(Gate.blob, answer)
    return Gate


async def test_what_the_store_knows_is_not_fetched_again(server, make_fetcher, gate):
    """By digest there is no request at all, not even with another fetcher."""
    gate.open.set()
    first = await make_fetcher().fetch_oci(gate.source, digest=gate.digest)
    server.requests.clear()

    assert await make_fetcher().fetch_oci(gate.source, digest=gate.digest) == first
    assert not server.requests


async def test_a_digest_reference_is_resolved_without_a_request(server, fetcher, gate):
    """It says itself what it means."""
    source = server.source(f"gated@{gate.digest}")
    assert await fetcher.resolve(source) == gate.digest
    assert not server.requests


async def test_a_damaged_file_of_the_store_is_fetched_again(server, fetcher, gate):
    """The second fetch finds the damage and mends it."""
    gate.open.set()
    first = await fetcher.fetch_oci(gate.source, digest=gate.digest)
    first.path.write_bytes(b"rot")

    second = await fetcher.fetch_oci(gate.source, digest=gate.digest)

    assert hashlib.sha256(second.path.read_bytes()).hexdigest() == first.sha256
    assert server.paths().count(gate.blob) == 2


async def test_many_who_ask_at_once_are_served_by_one_pull(server, fetcher, gate):
    """Ten callers, one request for the blob."""
    calls = [asyncio.create_task(fetcher.fetch_oci(gate.source, digest=gate.digest)) for _ in range(10)]
    await gate.asked.wait()
    gate.open.set()

    assert len({artifact.sha256 for artifact in await asyncio.gather(*calls)}) == 1
    assert server.paths().count(gate.blob) == 1


async def test_one_who_gives_up_leaves_the_others(server, fetcher, gate):
    """The first caller is cancelled; the second gets the same pull's result."""
    first, second = (asyncio.create_task(fetcher.fetch_oci(gate.source, digest=gate.digest)) for _ in range(2))
    await gate.asked.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.open.set()

    assert (await second).path.exists()
    assert server.paths().count(gate.blob) == 1


async def test_the_last_one_who_gives_up_ends_the_pull(fetcher, store, gate):
    """Nothing goes on for nobody, and no half file stays."""
    only = asyncio.create_task(fetcher.fetch_oci(gate.source, digest=gate.digest))
    await gate.asked.wait()
    (pull,) = fetcher._tasks
    only.cancel()
    await asyncio.wait([pull])

    assert pull.cancelled()
    assert not list(store._tmp.iterdir())


async def test_closing_ends_whoever_waits_with_a_fetch_error(store, gate, tmp_path):
    """And later calls are refused."""
    fetcher = Fetcher(store, docker_config=tmp_path / "none")
    waiting = asyncio.create_task(fetcher.fetch_oci(gate.source, digest=gate.digest))
    await gate.asked.wait()
    await fetcher.close()

    with pytest.raises(FetchError, match="closed"):
        await waiting
    for late in (fetcher.fetch_oci(gate.source, digest=gate.digest), fetcher.resolve(gate.source)):
        with pytest.raises(FetchError, match="closed"):
            await late


async def test_a_failure_is_not_remembered(server, make_fetcher, gate):
    """The next call asks again."""
    fetcher = make_fetcher(attempts=1)

    async def broken(_request):
        server.on(gate.blob, None)
        return web.Response(status=503)

    server.on(gate.blob, broken)
    with pytest.raises(FetchError):
        await fetcher.fetch_oci(gate.source, digest=gate.digest)

    assert (await fetcher.fetch_oci(gate.source, digest=gate.digest)).digest == gate.digest


async def test_a_url_gives_what_its_sha256_names(server, fetcher, oci):
    """Raw or packed; known ones are not asked for again."""
    module = oci.module("url")
    packed = oci.tar({"plugin.wasm": module, "plugin.yaml": b"name: packed"})

    async def answer(_request):
        return web.Response(body=packed)

    server.on("/plugin.tar.gz", answer)
    url = f"http://{server.host}/plugin.tar.gz?token=hunter2"
    source = HTTPSource(url=url, sha256=hashlib.sha256(packed).hexdigest())

    for _ in range(2):
        artifact = await fetcher.fetch_http(source)
        assert (artifact.layout, artifact.digest) == ("heliosdb-tar", oci.sha256(packed))
        assert artifact.description.name == "packed"
        assert artifact.path.read_bytes() == module
    assert len(server.requests) == 1

    with pytest.raises(VerifyError, match="not what was asked for") as caught:
        await fetcher.fetch_http(HTTPSource(url=url, sha256="0" * 64))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://", "http://[::1/x", "https://user:hunter2@127.0.0.1:1/x?token=hunter2"])
async def test_a_url_that_cannot_be_asked_is_an_error_without_its_secrets(make_fetcher, url):
    """No host, a broken one, nobody there."""
    with pytest.raises(FetchError) as caught:
        await make_fetcher(attempts=1).fetch_http(HTTPSource(url=url, sha256="0" * 64))
    assert "hunter2" not in str(caught.value)


async def test_a_file_is_taken_raw_or_packed(fetcher, oci, tmp_path):
    """The digest is of the file, the sha256 of the module."""
    module = oci.module("file")
    for name, data in (("a.wasm", module), ("a.tar.gz", oci.tar({"plugin.wasm": module}))):
        (tmp_path / name).write_bytes(data)
        artifact = await fetcher.fetch_file(tmp_path / name)
        assert (artifact.digest, artifact.sha256) == (oci.sha256(data), oci.sha256(module)[7:])


async def test_bytes_are_taken_as_a_file_is(fetcher, oci):
    """A ConfigMap's content."""
    artifact = await fetcher.fetch_bytes(oci.module("bytes"))
    assert (artifact.layout, artifact.digest) == ("raw", f"sha256:{artifact.sha256}")
    with pytest.raises(VerifyError, match="not WebAssembly"):
        await fetcher.fetch_bytes(b"text")


async def test_only_regular_files_of_a_bearable_size_are_read(make_fetcher, oci, tmp_path):
    """A pipe does not hang, a device does not fill the disk; a link to a file is a file (ConfigMaps)."""
    fetcher = make_fetcher(download=2000)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(3000))
    for path in ("pipe", "large", "absent", "", "nul\0", "/dev/zero"):
        with pytest.raises(FetchError) as caught:
            await fetcher.fetch_file(tmp_path / path)
        assert not caught.value.transient
    (tmp_path / "real.wasm").write_bytes(oci.module())
    (tmp_path / "link.wasm").symlink_to("real.wasm")
    assert (await fetcher.fetch_file(tmp_path / "link.wasm")).layout == "raw"


@pytest.fixture
def folder(tmp_path, oci):
    """An OCI layout folder with two tags, and the module of ``v1``."""
    root = tmp_path / "base" / "modules"
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    module, other = oci.module("v1"), oci.module("v2")
    entries = []
    for tag, data in (("v1", module), ("registry.test/guard:v2", other)):
        manifest = oci.manifest(data)
        for blob in (manifest, data):
            (blobs / oci.sha256(blob)[7:]).write_bytes(blob)
        entries.append((manifest, {"annotations": {"org.opencontainers.image.ref.name": tag}}))
    (root / "index.json").write_bytes(oci.index(*entries))
    return root, module, entries


async def test_a_layout_folder_is_a_registry(fetcher, folder, tmp_path, oci):
    """By tag, by a tag within a whole name, and by digest."""
    _, module, entries = folder
    base = tmp_path / "base"
    artifact = await fetcher.fetch_oci(OCISource(reference="oci-layout:modules:v1"), base=base)
    assert artifact.path.read_bytes() == module
    assert artifact.digest == oci.sha256(entries[0][0])
    second = oci.sha256(entries[1][0])
    assert await fetcher.resolve(OCISource(reference="oci-layout:modules:v2"), base=base) == second
    assert (await fetcher.fetch_oci(OCISource(reference=f"oci-layout:modules@{second}"), base=base)).digest == second


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("oci-layout:modules:v3", "no artifact with the tag"),
        ("oci-layout:modules", "2 entries and none"),
        ("oci-layout:absent:v1", "cannot be read"),
        ("oci-layout:modules@sha256:" + "0" * 64, "cannot be read"),
    ],
)
async def test_what_a_layout_folder_does_not_have_is_named(fetcher, folder, tmp_path, reference, message):
    """An unknown tag, no tag where there are several, no folder, no such digest."""
    assert folder
    with pytest.raises((FetchError, VerifyError), match=message):
        await fetcher.fetch_oci(OCISource(reference=reference), base=tmp_path / "base")


async def test_a_tampered_blob_in_a_layout_folder_is_refused(fetcher, folder, tmp_path, oci):
    """A folder is believed no more than a registry."""
    root, module, _ = folder
    (root / "blobs" / "sha256" / oci.sha256(module)[7:]).write_bytes(module[:-1] + b"!")
    with pytest.raises(VerifyError, match="not what was asked for"):
        await fetcher.fetch_oci(OCISource(reference="oci-layout:modules:v1"), base=tmp_path / "base")


async def test_a_layout_folder_needs_a_manifest_folder(fetcher):
    """Without `base` a reference cannot read the disk of whoever resolves it."""
    with pytest.raises(FetchError, match="in manifest folders only"):
        await fetcher.resolve(OCISource(reference="oci-layout:/etc"))


async def test_annotations_describe_the_plugin(server, fetcher, oci):
    """What the manifest says of the module is in the artifact, and survives in the store."""
    module = oci.module("described")
    manifest = oci.manifest(module, annotations={"hookline.plugin": json.dumps({"hooks": ["pre_query"]})})
    server.put("described:v1", manifest, module)
    for _ in range(2):
        artifact = await fetcher.fetch_oci(server.source("described:v1"))
        assert artifact.description.hooks == ("pre_query",)


async def test_a_store_that_somebody_emptied_is_made_again(tmp_path, oci):
    """While it is in use."""
    store = ArtifactStore(tmp_path / "store")
    for folder in (store._tmp, store._modules, store._index):
        folder.rmdir()
    fetcher = Fetcher(store, limits=FetchLimits(), docker_config=tmp_path / "none")
    assert (await fetcher.fetch_bytes(oci.module())).path.exists()
    await fetcher.close()


async def test_a_store_that_cannot_be_written_is_a_fetch_error(tmp_path, oci):
    """A file stands where its folder was: transient, and the message is about the store."""
    store = ArtifactStore(tmp_path / "store")
    store._tmp.rmdir()
    store._tmp.write_bytes(b"")
    fetcher = Fetcher(store, limits=FetchLimits(), docker_config=tmp_path / "none")
    with pytest.raises(FetchError, match="the store cannot be used") as caught:
        await fetcher.fetch_bytes(oci.module())
    assert caught.value.transient
    await fetcher.close()


def titled(oci, data, title, media_type="application/vnd.oci.image.layer.v1.tar"):
    """A layer as ``oras push`` writes it."""
    return oci.descriptor(data, media_type, annotations={"org.opencontainers.image.title": title})


async def test_a_module_among_other_files_is_found_by_its_title(server, fetcher, oci):
    """``oras push REPO:1 plugin.wasm README.md``: the README is not even asked for."""
    module, readme = oci.module("titled"), b"# a README"
    manifest = oci.manifest(titled(oci, module, "plugin.wasm"), titled(oci, readme, "README.md"))
    server.put("plugin:1", manifest, module, readme)
    artifact = await fetcher.fetch_oci(server.source("plugin:1"))
    assert (artifact.layout, artifact.path.read_bytes()) == ("titled", module)
    assert not [path for path in server.paths() if path.endswith(oci.sha256(readme))]


@pytest.mark.parametrize("order", [1, -1])
async def test_the_layer_of_an_image_that_holds_the_module_is_found(server, fetcher, oci, order):
    """Two ``COPY``, in either order; where the last one has it, the first is not asked for."""
    module = oci.module("copied")
    layers = [oci.tar({"README.md": b"x"}), oci.tar({"plugin.wasm": module})][::order]
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    server.put("image:1", oci.manifest(*(oci.descriptor(layer, kind) for layer in layers)), *layers)
    artifact = await fetcher.fetch_oci(server.source("image:1"))
    assert (artifact.layout, artifact.path.read_bytes()) == ("image", module)
    assert sum("/blobs/" in path for path in server.paths()) == (1 if order == 1 else 2)


async def test_layers_of_an_image_share_the_limit_of_a_download(server, make_fetcher, oci):
    """Each by itself would be let through."""
    layers = [oci.tar({f"{number}.txt": os.urandom(3000)}) for number in range(3)]
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    server.put("image:1", oci.manifest(*(oci.descriptor(layer, kind) for layer in layers)), *layers)
    with pytest.raises(FetchError, match="are allowed"):
        await make_fetcher(download=8000).fetch_oci(server.source("image:1"))
    assert sum("/blobs/" in path for path in server.paths()) == 2


async def test_a_message_names_the_layer_that_was_looked_at(server, fetcher, oci):
    """By its title, or its digest."""
    text = b"# a README"
    server.put("a:1", oci.manifest(titled(oci, text, "README.md")), text)
    with pytest.raises(VerifyError, match=rf"the layer 'README.md' \({oci.sha256(text)}\) of .*a:1: .*not WebAssembly"):
        await fetcher.fetch_oci(server.source("a:1"))
    packed = oci.tar({"notes.txt": text})
    server.put("b:1", oci.manifest(oci.descriptor(packed, "application/vnd.oci.image.layer.v1.tar")), packed)
    with pytest.raises(
        VerifyError, match=rf"the layer {oci.sha256(packed)} of .*b:1: the archive holds no plugin.wasm"
    ):
        await fetcher.fetch_oci(server.source("b:1"))


async def test_a_layer_in_zstd_is_refused_by_name_and_not_fetched(server, fetcher, oci):
    """What ``docker buildx --output compression=zstd`` pushes."""
    layer = b"\x28\xb5\x2f\xfd" + bytes(100)
    kind = "application/vnd.oci.image.layer.v1.tar+zstd"
    server.put("z:1", oci.manifest(oci.descriptor(layer, kind)), layer)
    with pytest.raises(VerifyError, match=rf"the layer {oci.sha256(layer)} of .*z:1: .*compressed with zstd.*gzip"):
        await fetcher.fetch_oci(server.source("z:1"))
    assert not [path for path in server.paths() if "/blobs/" in path]
    server.put("z:2", oci.manifest(oci.descriptor(layer, kind.removesuffix("+zstd"))), layer)
    with pytest.raises(VerifyError, match="compressed with zstd"):
        await fetcher.fetch_oci(server.source("z:2"))
