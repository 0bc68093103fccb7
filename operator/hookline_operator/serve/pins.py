"""What this replica's store never drops: the modules, and the evidence, of every revision that is kept.

Pods ask for a revision at any time: a new one, one that lost its disk, all of them after a rollback. The registry may
be away then. So as long as the API has a revision that this operator made, its files stay, and ``--cache-size`` may be
exceeded for them; they go once the revision has gone. Of one namespace no more bytes are pinned than the cache has,
what runs before what ran: nobody fills the disk for the others. Each replica keeps those that it has, and fetches none
because of that.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Final

import orjson

from hookline_artifacts.errors import LoadError
from hookline_artifacts.threads import in_thread
from hookline_operator.serve.blobs import layers_in

if TYPE_CHECKING:
    from hookline_artifacts.store import ArtifactStore
    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Key
    from hookline_operator.cluster.plugins import Plugin

log = logging.getLogger("hookline.pins")

_LEAST: Final = 256 << 20
_READ_AT_ONCE: Final = 64
"""Revisions whose evidence is read before it is pinned what they lead to."""
_PAUSE_S: Final = 0.25
"""Seconds between two looks at all revisions: ten thousand take some milliseconds."""


class Pins:
    """Keeps the store's pins as the catalogue is."""

    def __init__(self, catalogue: Catalogue, store: ArtifactStore, *, most: int) -> None:
        """``most`` is in bytes, and for one namespace; some modules of any size are pinned however small it is."""
        self._catalogue = catalogue
        self._store = store
        self._most = max(most, _LEAST)
        self._layers: dict[tuple[str, str], tuple[tuple[str, int], ...]] = {}
        """By a revision's namespace and name, the layers that its evidence leads to: a sidecar may ask for them."""
        self._told: set[str] = set()
        """Namespaces of which it was logged that they have too much."""
        self._changed = asyncio.Event()

    def plugin_changed(self, _key: Key) -> None:
        """Something about a plugin has changed: perhaps its revisions."""
        self._changed.set()

    async def run(self) -> None:
        """Pin again whenever something has changed."""
        while True:
            self.pin()
            if await self._read_evidence():
                continue
            await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(_PAUSE_S)

    def pin(self) -> None:
        """Pin what the revisions name now; a text that nobody vouches for pins nothing."""
        self._store.pin(sha256 for namespace in list(self._catalogue.plugins) for sha256 in self._of(namespace))

    async def _read_evidence(self) -> bool:
        """Read, of some revisions, which layers their evidence leads to; whether there were any."""
        signed = {
            (each.namespace, each.name): each.template
            for plugin in self._catalogue.all_plugins()
            for each in self._catalogue.revisions_of(plugin)
            if each.sealed and len(each.files) > 1
        }
        unread = {key: template for key, template in signed.items() if key not in self._layers}
        self._layers = {key: layers for key, layers in self._layers.items() if key in signed}
        for key, template in itertools.islice(unread.items(), _READ_AT_ONCE):
            self._layers[key] = await in_thread(_layers, template)
        return bool(unread)

    def _of(self, namespace: str) -> set[str]:
        """What one namespace has pinned."""
        left, found = self._most, set[str]()
        for sha256, size in self._files(self._catalogue.plugins_in(namespace)):
            if sha256 in found:
                continue
            if size > left:
                if namespace not in self._told:
                    self._told.add(namespace)
                    log.warning(
                        "the modules of namespace '%s' have more than %d bytes, and not all of them are kept for when "
                        "their source is away; raise --cache-size", namespace, self._most,
                    )  # fmt: skip
                continue
            found.add(sha256)
            left -= size
        return found

    def _files(self, plugins: list[Plugin]) -> list[tuple[str, int]]:
        """Of what runs first, and then of what ran and is kept."""
        running = [self._catalogue.to_run(each) for each in plugins]
        current = [self._catalogue.current(each) for each in plugins]
        older = [each for plugin in plugins for each in self._catalogue.revisions_of(plugin) if each.sealed]
        found: list[tuple[str, int]] = []
        for each in (*running, *current, *older):
            if each is not None:
                found += (*each.files, *self._layers.get((each.namespace, each.name), ()))
        return found


def _layers(template: bytes) -> tuple[tuple[str, int], ...]:
    try:
        found = layers_in(orjson.loads(template)["evidence"].encode())
    except (LoadError, ValueError, KeyError, AttributeError):
        return ()
    return tuple((sha256, each.size) for sha256, each in found.items())
