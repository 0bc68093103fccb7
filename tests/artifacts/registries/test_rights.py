"""A digest is not a password: who knows one gets a module only from where they may have it."""

from __future__ import annotations

import asyncio
import base64
import json
import tracemalloc

import pytest

from hookline_api.resources import HTTPSource, OCISource
from hookline_artifacts.errors import FetchError, VerifyError
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.login.access import RegistryAccess
from hookline_artifacts.login.credentials import PullSecret
from hookline_artifacts.net import certificates
from hookline_artifacts.store import _MAX_PROOFS, ArtifactStore


def secret(host, user, password):
    """Access with one pull secret."""
    packed = base64.b64encode(f"{user}:{password}".encode()).decode()
    return RegistryAccess(dockerconfigs=(json.dumps({"auths": {host: {"auth": packed}}}),))


@pytest.fixture
async def private(password_registry, fetcher, oci):
    """A private module that the store has: its owner's access, manifest and digest."""

    class Private:
        module = oci.module("a private module")
        manifest = oci.manifest(module)
        access = secret(password_registry.host, oci.user, oci.password)
        source = password_registry.source("private:v1")

    Private.digest = await password_registry.push("private:v1", Private.manifest, Private.module)
    Private.artifact = await fetcher.fetch_oci(Private.source, access=Private.access, owner="owner")
    return Private


async def test_a_manifest_in_ones_own_repository_gives_nobody_elses_module(server, fetcher, private):
    """The store has the module by the manifest's digest; the other repository has no such blob, and that counts."""
    server.put("mine:v1", private.manifest)
    for prove in (True, False):
        with pytest.raises(FetchError, match=r"mine.*404"):
            await fetcher.fetch_oci(server.source("mine:v1"), digest=private.digest, owner="thief", prove=prove)
        with pytest.raises(FetchError, match=r"mine.*404"):
            await fetcher.fetch_oci(server.source("mine:v1"), owner="thief", prove=prove)


async def test_a_registry_that_only_says_that_it_has_the_blob_has_proven_nothing(server, fetcher, private, oci):
    """Its own registry answers as its owner likes: the bytes are what proves it."""
    from aiohttp import web

    server.put("mine:v1", private.manifest)
    path = f"/v2/mine/blobs/{oci.sha256(private.module)}"

    async def lies(_request):
        return web.Response(body=bytes(len(private.module)))

    server.on(path, lies)
    with pytest.raises(VerifyError, match="not what was asked for"):
        await fetcher.fetch_oci(server.source("mine:v1"), owner="thief")


async def test_who_has_the_bytes_elsewhere_has_them(server, fetcher, private):
    """Another repository that holds the blob serves it, once; then that place is known too."""
    server.put("copy:v1", private.manifest, private.module)
    first = await fetcher.fetch_oci(server.source("copy:v1"), digest=private.digest)
    assert first.sha256 == private.artifact.sha256
    server.requests.clear()
    await fetcher.fetch_oci(server.source("copy:v1"), digest=private.digest)
    assert not server.requests


async def test_a_password_is_proven_before_the_same_repository_gives_it(fetcher, private, password_registry, oci):
    """By digest too, and without ``prove``: a wrong password, none, and then a right one."""
    wrong = secret(password_registry.host, oci.user, "wrong")
    for access in (wrong, RegistryAccess()):
        with pytest.raises(FetchError, match="refuses"):
            await fetcher.fetch_oci(private.source, digest=private.digest, access=access)
    more = RegistryAccess(dockerconfigs=(*wrong.dockerconfigs, *private.access.dockerconfigs))
    assert (await fetcher.fetch_oci(private.source, digest=private.digest, access=more)).sha256


async def test_with_the_registry_down_who_was_let_in_stays_and_nobody_new_gets_it(server, fetcher, oci):
    """What ran goes on; new passwords, and other owners' sources, wait for the registry."""
    module = oci.module("m")
    digest = server.put("plugin:v1", oci.manifest(module), module)
    source, known, new = server.source("plugin:v1"), secret(server.host, "a", "b"), secret(server.host, "c", "d")
    await fetcher.fetch_oci(source, digest=digest, access=known)

    async def down(_request):
        raise ConnectionResetError

    server.on(f"/v2/plugin/manifests/{digest}", down)
    assert (await fetcher.fetch_oci(source, digest=digest, access=known)).digest == digest
    with pytest.raises(FetchError):
        await fetcher.fetch_oci(source, digest=digest, access=new)


async def test_a_manifest_that_somebody_brings_along_is_a_file_and_no_key(fetcher, private, server, tmp_path):
    """In a ConfigMap, in a file of the folder, at a URL: its bytes have the digest that the store knows."""
    with pytest.raises(VerifyError, match="not WebAssembly"):
        await fetcher.fetch_bytes(private.manifest, owner="thief")
    (tmp_path / "manifest.wasm").write_bytes(private.manifest)
    with pytest.raises(VerifyError, match="not WebAssembly"):
        await fetcher.fetch_file(tmp_path / "manifest.wasm")
    server.put("mine:v1", private.manifest)
    url = f"http://{server.host}/v2/mine/manifests/v1"
    with pytest.raises(VerifyError, match="not WebAssembly"):
        await fetcher.fetch_http(HTTPSource(url=url, sha256=private.digest.removeprefix("sha256:")))


async def test_a_layout_folder_has_its_own(fetcher, private, tmp_path):
    """A reference by digest into a folder that has no such manifest."""
    (tmp_path / "layout").mkdir()
    with pytest.raises(FetchError):
        await fetcher.fetch_oci(OCISource(reference=f"oci-layout:layout@{private.digest}"), base=tmp_path)


async def test_a_url_serves_each_owner_itself(server, fetcher, oci):
    """Who knows a URL and a sha256 is not who may ask there: the second owner asks too."""
    from aiohttp import web

    module, asked = oci.module("m"), []

    async def answer(_request):
        asked.append(None)
        return web.Response(body=module)

    server.on("/plugin.wasm", answer)
    source = HTTPSource(url=f"http://{server.host}/plugin.wasm", sha256=oci.sha256(module).removeprefix("sha256:"))
    for owner in ("a", "a", "b"):
        await fetcher.fetch_http(source, owner=owner)
    assert len(asked) == 2


async def test_a_module_is_granted_to_whose_it_is(store, private):
    """What sidecars of one namespace download is nothing that those of another find."""
    assert store.granted(private.artifact.sha256, owner="owner").path.read_bytes() == private.module
    assert store.granted(private.artifact.sha256, owner="thief") is None
    assert ArtifactStore(store._modules.parent).granted(private.artifact.sha256, owner="owner") is not None


async def test_names_in_the_index_tell_nothing(store, private):
    """They are made with a key of the store's own: a hash over passwords could be guessed at."""
    written = b"".join(path.name.encode() + path.read_bytes() for path in store._index.iterdir())
    for secret_word in (private.access.fingerprint, private.digest.removeprefix("sha256:")):
        assert secret_word.encode() not in written
    assert (store._modules.parent / "key").stat().st_mode & 0o777 == 0o600


async def test_proofs_are_bounded_and_the_oldest_go(store, fetcher, server, oci):
    """Sixty-four holders of one artifact; who was forgotten proves it again."""
    module = oci.module("m")
    digest = server.put("plugin:v1", oci.manifest(module), module)
    artifact = await fetcher.fetch_oci(server.source("plugin:v1"), digest=digest)
    for number in range(_MAX_PROOFS + 1):
        store.prove(artifact, place="here", holder=str(number))
    assert store.get(digest, place="here", holder="0") is None
    assert store.get(digest, place="here", holder="1") is not None
    assert store.get(digest, place="there", holder="1") is None


async def test_a_registry_that_never_answers_holds_its_owners_places_and_no_others(server, make_fetcher, oci):
    """Of one namespace, as many fetches as it may have hang; another's, at the same host, comes through."""
    from aiohttp import web

    fetcher, ends, begun = make_fetcher(), asyncio.Event(), []

    async def hang(_request):
        begun.append(None)
        await ends.wait()
        raise web.HTTPNotFound

    stuck = []
    for number in range(7):
        module = oci.module(f"stuck {number}")
        digest = server.put(f"stuck{number}:v1", oci.manifest(module), module)
        server.on(f"/v2/stuck{number}/blobs/{oci.sha256(module)}", hang)
        source = server.source(f"stuck{number}:v1")
        stuck.append(asyncio.create_task(fetcher.fetch_oci(source, digest=digest, owner="hostile")))
    module = oci.module("honest")
    digest = server.put("honest:v1", oci.manifest(module), module)
    assert (await fetcher.fetch_oci(server.source("honest:v1"), digest=digest, owner="honest")).digest == digest
    assert len(begun) <= FetchLimits().of_one_owner
    ends.set()
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)


def test_large_pull_secrets_are_told_apart_without_being_written_as_text():
    """Sixteen Secrets have 16 MiB: telling them apart takes no more memory than they do, and is done once."""

    def given(**more):
        secrets = [PullSecret(name=f"s{each}", document=bytes(2**20)) for each in range(16)]
        return RegistryAccess(dockerconfigs=tuple(secrets), **more)

    access = given()
    tracemalloc.start()
    try:
        before = access.fingerprint
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert access.fingerprint is before
    assert given().fingerprint == before
    others = [
        RegistryAccess(),
        given(ca_pem=""),
        given(ca_pem="x"),
        RegistryAccess(dockerconfigs=access.dockerconfigs[::-1]),
        RegistryAccess(dockerconfigs=access.dockerconfigs[1:]),
        RegistryAccess(dockerconfigs=(PullSecret(name="a", document="b"), PullSecret(name="c", document="d"))),
        RegistryAccess(dockerconfigs=(PullSecret(name="a", document="bc"), PullSecret(name="", document="d"))),
        RegistryAccess(dockerconfigs=(PullSecret(name="a", document=b""),)),
        RegistryAccess(dockerconfigs=(PullSecret(name="a", document=None),)),
        RegistryAccess(dockerconfigs=(PullSecret(name="a", document=b"", bare=True),)),
        RegistryAccess(dockerconfigs=({"a": "b"},)),
        RegistryAccess(dockerconfigs=('{"a": "b"}',)),
    ]
    assert len({before, *(each.fingerprint for each in others)}) == len(others) + 1


async def test_of_a_registrys_own_authorities_no_more_are_read_than_anybody_has(authority, server, make_fetcher):
    """OpenSSL takes more than linear time in them, on the event loop, and all that are kept are bounded together."""
    fetcher = make_fetcher()
    for text in (authority.pem * (certificates.MAX_CERTIFICATES + 1), " " * (certificates.MAX_PEM + 1)):
        with pytest.raises(FetchError, match=r"leave in the key ca\.crt only those") as caught:
            await fetcher.resolve(server.source("plugin:v1"), access=RegistryAccess(ca_pem=text))
        assert not caught.value.transient
    assert server.requests == []
    kept = fetcher._transport._contexts
    for each in range(12):
        text = authority.pem + " " * (certificates.MAX_PEM - len(authority.pem) - each)
        with pytest.raises(FetchError, match="404"):
            await fetcher.resolve(server.source("plugin:v1"), access=RegistryAccess(ca_pem=text))
        assert sum(len(text or "") for text in kept) <= certificates.MAX_KEPT
