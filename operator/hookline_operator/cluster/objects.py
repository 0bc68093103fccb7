"""Secrets and ConfigMaps that plugins refer to: their data, and whether it has changed.

The watch tells names and versions alone, and every new label or annotation makes a new version. So an object with a new
version that a plugin refers to is read first, and its contents are compared by a digest. With the same contents,
nothing is resolved again.

DANGER: the digest is kept in revisions, which more people may read than Secrets. It is an HMAC with the operator's own
key over the object's name and data, so nobody can try values, or see that two Secrets hold the same.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import logging
from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import FetchError
from hookline_operator.cluster.kept import Kept
from hookline_operator.cluster.kube import Kube, KubeError, path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hookline_operator.cluster.catalogue import Catalogue, Kind, Reference
    from hookline_operator.cluster.kube import Key

_ENTRY: Final = 256
"""Bytes that a key of a Secret takes beside its name and its value."""
_KEPT_OBJECTS: Final = 32 * 2**20
"""Bytes of Secrets and ConfigMaps: one has a mebibyte at the most, and most have a few hundred bytes."""
_PURPOSE: Final = b"hookline.dev/contents/1"
_LOOKS_AT_ONCE: Final = 8
_LOOK_S: Final = 5.0
"""How long a change is held back until it is read; then it counts as one, whatever it is."""
_FIRST_S: Final = 20.0
"""The same for all that changed while no operator ran."""

log = logging.getLogger("hookline.objects")


class ClusterObjects:
    """Secrets and ConfigMaps from the API, each read once for each version."""

    def __init__(self, kube: Kube, catalogue: Catalogue, *, key: Callable[[], bytes] | None = None) -> None:
        """``key`` gives the key for digests of contents. Without it, every new version counts as a change."""
        self._kube = kube
        self._catalogue = catalogue
        self._key = key
        self._kept: Kept[Mapping[str, bytes]] = Kept("Secrets and ConfigMaps", most=_KEPT_OBJECTS)
        self._coming: dict[Reference, str] = {}
        """The newest version of what is being looked at, before the catalogue hears of it."""
        self._looks: dict[Reference, asyncio.Task[None]] = {}
        self._permits = asyncio.Semaphore(_LOOKS_AT_ONCE)

    async def secret(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        """A Secret's data; None where there is none. Raises FetchError."""
        return await self._read("Secret", namespace or "", name)

    async def config_map(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        """A ConfigMap's data; None where there is none. Raises FetchError."""
        return await self._read("ConfigMap", namespace or "", name)

    def put_version(self, kind: Kind, key: Key, version: str | None) -> None:
        """Take in a version from the watch; None where it is gone.

        The catalogue hears of it once the object was read.
        """
        reference: Reference = (kind, *key)
        if version is None or self._key is None or not self._catalogue.is_compared(reference):
            self._coming.pop(reference, None)
            self._catalogue.put_version(kind, key, version)
            return
        self._coming[reference] = version
        if reference not in self._looks:
            task = asyncio.get_running_loop().create_task(self._look(reference), name=f"look at {key[1]}")
            self._looks[reference] = task
            task.add_done_callback(lambda _: self._looks.pop(reference, None))

    async def settle(self) -> None:
        """Compare everything that has a newer version than the plugins' revisions name, before anybody acts on it."""
        changed = self._catalogue.differing() if self._key is not None else set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_S):
                await asyncio.gather(*(self._noted(each, self._catalogue.versions[each]) for each in changed))

    async def _look(self, reference: Reference) -> None:
        """Read it, and tell the catalogue, until nothing newer has come meanwhile."""
        kind, *key = reference
        while (version := self._coming.get(reference)) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._noted(reference, version)
            if self._coming.get(reference) == version:
                del self._coming[reference]
                self._catalogue.put_version(kind, (key[0], key[1]), version)

    async def _noted(self, reference: Reference, version: str) -> None:
        """Have the digest of this version noted; where it cannot be read, it has none, and counts as changed."""
        with contextlib.suppress(FetchError):
            async with self._permits:
                await self._fetched(reference, version)

    async def _read(self, kind: Kind, namespace: str, name: str) -> Mapping[str, bytes] | None:
        reference: Reference = (kind, namespace, name)
        version = self._catalogue.versions.get(reference)
        if version is None:
            return None
        if (known := self._kept.get((*reference, version))) is None and (look := self._looks.get(reference)):
            # DANGER: what is there by now must not go by the older version, which was checked.
            await asyncio.wait({look})
            version = self._catalogue.versions.get(reference, version)
        return known if known is not None else await self._fetched(reference, version)

    async def _fetched(self, reference: Reference, version: str) -> Mapping[str, bytes] | None:
        """The data; None where it is gone. Raises FetchError."""
        kind, namespace, name = reference
        if (known := self._kept.get((*reference, version))) is not None:
            return known
        try:
            found = await self._kube.get(path("v1", kind.lower() + "s", namespace, name))
        except KubeError as error:
            raise FetchError(f"the {kind} '{name}' cannot be read: {error}") from error
        if found is None:
            return None
        data: dict[str, bytes] = {}
        try:
            if kind == "Secret":
                data = {each: base64.b64decode(value) for each, value in (found.get("data") or {}).items()}
            else:
                data = {each: value.encode() for each, value in (found.get("data") or {}).items()}
                binary = found.get("binaryData") or {}
                data |= {each: base64.b64decode(value) for each, value in binary.items()}
        except binascii.Error as error:
            raise FetchError(f"the {kind} '{name}' cannot be read: {error}") from error
        size = sum(len(each) + len(value) + _ENTRY for each, value in data.items())
        version = found["metadata"]["resourceVersion"]
        self._kept.put((*reference, version), data, size)
        if self._key is not None:
            self._catalogue.note_contents(reference, version, digest(self._key(), reference, data))
        return data


def digest(key: bytes, reference: Reference, data: Mapping[str, bytes]) -> str:
    """HMAC-SHA256 over an object's kind, namespace, name and data, as 64 hex digits."""
    made = hmac.new(key, _PURPOSE, hashlib.sha256)
    for part in _parts(reference, data):
        made.update(len(part).to_bytes(8))
        made.update(part)
    return made.hexdigest()


def _parts(reference: Reference, data: Mapping[str, bytes]) -> Iterable[bytes]:
    yield from (each.encode() for each in reference)
    for name in sorted(data):
        yield name.encode()
        yield data[name]
