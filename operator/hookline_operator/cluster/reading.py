"""Reads specs again that were left out of the catalogue and fit now, a few at a time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from hookline_api.base import API_VERSION, PLURAL
from hookline_operator.cluster.kube import KubeError, path

if TYPE_CHECKING:
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Key, Kube

_READS_AT_ONCE: Final = 4
"""One large plugin that becomes small makes room for thousands."""
_READ_AGAIN_S: Final = 5.0

log = logging.getLogger("hookline.reading")


class Reading:
    """Reads each plugin for whose spec the catalogue has room again."""

    def __init__(self, kube: Kube, catalogue: Catalogue) -> None:
        self.tasks: dict[Key, asyncio.Task[None]] = {}
        """Plugins that are being read."""
        self._kube = kube
        self._catalogue = catalogue
        self._permits = asyncio.Semaphore(_READS_AT_ONCE)

    def read(self, key: Key) -> None:
        """Have a plugin read, unless it is being read already."""
        if key not in self.tasks:
            self.tasks[key] = asyncio.get_running_loop().create_task(self._read(key), name=f"read {key[1]}")

    async def _read(self, key: Key) -> None:
        try:
            async with self._permits:
                found = await self._kube.find(path(API_VERSION, PLURAL, key[0]), key[1])
        except KubeError as error:
            log.warning("plugin '%s/%s' cannot be read: %s", *key, error)
            await asyncio.sleep(_READ_AGAIN_S)
            found = {}
        del self.tasks[key]
        known = self._catalogue.plugin(key)
        if known is None or not known.left_out:
            return
        if found == {}:
            self.read(key)
        elif found is not None and found["metadata"]["uid"] == known.uid:
            self._catalogue.put_plugin(found, gone=False)
