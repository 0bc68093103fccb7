"""A thousand plugins of one artifact do not all ask a registry for its signatures: what proved it once proves it again.

Never for anybody who has not had it there with the same access, and never where it is not all that is asked for.
"""

from __future__ import annotations

import json

import pytest

import signed_artifacts as signed
from hookline_artifacts import fetch
from hookline_artifacts.errors import FetchError, SignatureError
from hookline_artifacts.login.access import RegistryAccess
from hookline_artifacts.resolve import resolve
from signed_artifacts import NoObjects, Place, digest_of, plugin, put


@pytest.fixture
def place(server):
    """A signed artifact."""
    put(server, "unsigned", "acme/p")
    made = Place(server, digest_of("unsigned"))
    made.sig(made.key.simple(made.digest))
    return made


def asked(place):
    """How often somebody looked for signatures since the last time."""
    count = len([path for path in place.server.paths() if path.endswith(".sig")])
    place.server.requests.clear()
    return count


async def test_the_second_plugin_asks_for_no_signatures(place, resolve_signed):
    """It has the same ones, with the same proofs, as evidence that travels."""
    first = await resolve_signed(place.source, **place.signers())
    assert asked(place) == 1
    second = await resolve_signed(place.source, **place.signers())
    assert asked(place) == 0
    assert second.trust.evidence == first.trust.evidence
    assert [each.key for _, each in second.trust.proofs] == [each.key for _, each in first.trust.proofs]


async def test_where_it_does_not_do_the_registry_is_asked(place, resolve_signed):
    """Somebody asks for another signer, who has not signed; then for one who has signed meanwhile."""
    other = signed.Key()
    await resolve_signed(place.source, **place.signers())
    asked(place)
    for _ in range(2):
        with pytest.raises(SignatureError):
            await resolve_signed(place.source, anyOf=[signed.signer(other.pem)])
        assert asked(place) == 1
    place.sig(other.simple(place.digest))
    assert await resolve_signed(place.source, anyOf=[signed.signer(other.pem)])
    assert asked(place) == 1


async def test_what_was_refused_is_not_kept(server, resolve_signed):
    """So a signature that comes is found at the next look."""
    put(server, "unsigned", "acme/p")
    place = Place(server, digest_of("unsigned"))
    for _ in range(2):
        with pytest.raises(SignatureError):
            await resolve_signed(place.source, **place.signers())
        assert asked(place) == 1
    place.sig(place.key.simple(place.digest))
    assert await resolve_signed(place.source, **place.signers())


async def test_another_access_asks_for_itself(place, fetcher):
    """What one was given with a password says nothing to who has none of it."""
    resource = plugin({"oci": place.source.model_dump(by_alias=True, exclude_unset=True)}, **place.signers())

    async def run(**access):
        await resolve(resource, fetcher=fetcher, objects=NoObjects(), access=RegistryAccess(**access))
        return asked(place)

    assert await run() == 1
    assert await run() == 0
    assert await run(dockerconfigs=('{"auths": {}}',)) == 1
    assert await run(dockerconfigs=('{"auths": {}}',)) == 0


async def test_what_is_kept_is_verified_each_time(place, fetcher, resolve_signed):
    """Whatever stands there: it may be another artifact's, or nothing that can be read."""
    await resolve_signed(place.source, **place.signers())
    for wrong in (b"{}", b"\xff", b'{"version": 1, "digest": "sha256:' + b"0" * 64 + b'", "documents": []}'):
        await fetcher.keep_evidence(place.source, place.digest, wrong)
        asked(place)
        assert (await resolve_signed(place.source, **place.signers())).trust.proofs
        assert asked(place) == 1


async def test_of_an_artifact_that_cannot_be_had_nothing_is_kept(place, resolve_signed):
    """Its signatures were verified, and its module is not there."""
    manifest = json.loads(place.server._content["/v2/acme/p/manifests/v1"])
    path = f"/v2/acme/p/blobs/{manifest['layers'][0]['digest']}"
    module = place.server._content.pop(path)
    for _ in range(2):
        with pytest.raises(FetchError):
            await resolve_signed(place.source, **place.signers())
        assert asked(place) == 1
    place.server._content[path] = module
    assert await resolve_signed(place.source, **place.signers())


def test_what_is_kept_is_bounded(monkeypatch):
    """In number and in bytes; what was used longest ago goes."""
    monkeypatch.setattr(fetch, "_MAX_KEPT", 3)
    monkeypatch.setattr(fetch, "_MAX_KEPT_BYTES", 100)
    kept = fetch._KeptEvidence()
    for name in "abc":
        kept.put((name,), name.encode())
    assert kept.get(("a",)) == b"a"
    kept.put(("d",), b"d")
    assert [kept.get((name,)) for name in "abcd"] == [b"a", None, b"c", b"d"]
    kept.put(("c",), b"c" * 99)
    assert [kept.get((name,)) for name in "acd"] == [None, b"c" * 99, b"d"]
    assert kept._bytes == 100
    kept.put(("e",), b"e" * 101)
    assert not kept._kept
    assert kept._bytes == 0
