"""The key that seals what holds values of Secrets (``hookline_api.bundle``): one for all replicas, in a Secret.

All replicas have to come to the same revisions. A replica that finds no key makes one; one that meets a conflict takes
what the other wrote. A deleted Secret comes back with the key that is in use. Another key in it is taken over within a
minute. Then each plugin with values of Secrets has a new revision, and the kept revisions get new seals
(``revisions.py``). Their statuses vouch for them meanwhile, and nothing else depends on the key.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import random
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from hookline_operator.cluster.kube import MANAGER, KubeError, path
from hookline_operator.cluster.sight import Sight, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_operator.cluster.kube import Object


_SIZE: Final = 32
"""Bytes: as many as SHA-256 has."""
_ENTRY: Final = "seal.key"
_ATTEMPTS: Final = 10
_PERIOD_S: Final = 24.0
_PAUSE_FIRST_S: Final = 0.5
_PAUSE_LAST_S: Final = 30.0
_CONFLICT: Final = 409
_GONE: Final = 404

log = logging.getLogger("hookline.sealing")


class Api(Protocol):
    """What the keepers need of the Kubernetes API; ``cluster.kube.Kube`` is one. Both methods raise KubeError."""

    async def get(self, where: str, /) -> Object | None:
        """An object; None where there is none."""

    async def request(
        self, method: str, where: str, /, *, body: Any = None, content_type: str = "application/json"
    ) -> Object:
        """POST, PUT or PATCH; what the object is then. A PUT with an old resourceVersion is a 409."""


class SealingKey:
    """The key as the Secret has it."""

    def __init__(
        self,
        api: Api,
        *,
        namespace: str,
        secret: str,
        sight: Sight | None = None,
    ) -> None:
        self._api = api
        self.sight = sight or Sight("sealing-key")
        self._namespace = namespace
        self._secret = secret
        self._key: bytes | None = None
        self.changed: list[Callable[[], None]] = []
        """Called when the key is another than before."""

    @property
    def value(self) -> bytes:
        """The key. Raises RuntimeError before the first ``sync``."""
        if self._key is None:
            raise RuntimeError("there is no key yet")
        return self._key

    async def first_sync(self) -> None:
        """``sync`` until it succeeds, with a growing pause."""
        pause = _PAUSE_FIRST_S
        while True:
            try:
                await self.sync()
                self.sight.answered()
                return
            except KubeError as error:
                self.sight.failed(reason_of(error), f"there is no key to seal revisions with yet: {error}")
            pause = min(pause * 2, _PAUSE_LAST_S)
            await asyncio.sleep(pause)

    async def run(self) -> NoReturn:
        """``sync`` for ever, twice a minute."""
        while True:
            await asyncio.sleep(_PERIOD_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
            try:
                await self.sync()
                self.sight.answered()
            except KubeError as error:
                which = f"the key in the Secret {self._namespace}/{self._secret}"
                self.sight.failed(reason_of(error), f"{which} cannot be checked: {error}")

    async def sync(self) -> None:
        """Take the key from the Secret, or put one there. Raises KubeError."""
        for _ in range(_ATTEMPTS):
            found = await self._api.get(path("v1", "secrets", self._namespace, self._secret))
            key = _read((found or {}).get("data") or {})
            if key is None:
                key = self._key or os.urandom(_SIZE)
                if not await self._write(found, {_ENTRY: base64.b64encode(key).decode()}):
                    continue
            before, self._key = self._key, key
            if before is not None and before != key:
                log.info("the key in the Secret %s/%s has changed", self._namespace, self._secret)
                for hear in self.changed:
                    hear()
            return
        raise KubeError(_CONFLICT, f"the Secret {self._namespace}/{self._secret} changes faster than it can be written")

    async def _write(self, found: dict[str, object] | None, data: dict[str, str]) -> bool:
        """Write it; False where somebody was quicker."""
        where = path("v1", "secrets", self._namespace)
        try:
            if found is None:
                metadata = {"name": self._secret, "labels": {"app.kubernetes.io/managed-by": MANAGER}}
                await self._api.request("POST", where, body={"metadata": metadata, "type": "Opaque", "data": data})
            else:
                await self._api.request("PUT", f"{where}/{self._secret}", body={**found, "data": data})
        except KubeError as error:
            # A namespace that is missing is a 404 as well: only what was there can have gone.
            if error.status == _CONFLICT or (error.status == _GONE and found is not None):
                return False
            raise
        return True


def _read(data: dict[str, str]) -> bytes | None:
    try:
        key = base64.b64decode(data.get(_ENTRY) or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == _SIZE else None
