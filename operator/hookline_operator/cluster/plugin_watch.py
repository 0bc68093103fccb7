"""Makes sure that all WasmPlugins are in the catalogue, by two watches that check each other.

kopf watches the objects themselves. It does not tell what was deleted while it did not watch, nor that one of its
watches is dead. So a ``Reflector`` follows names and versions beside it, and the two are compared every five seconds.
Where kopf is behind and tells nothing, it is started again and lists everything.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from hookline_api.base import API_VERSION, PLURAL
from hookline_operator.cluster.handlers import Handlers
from hookline_operator.cluster.kube import KubeError, path
from hookline_operator.cluster.reflector import Reflector, is_older
from hookline_operator.cluster.sight import DEAF

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Key, Kube, Object
    from hookline_operator.cluster.sight import Sights

APPLY: Final = "apply the chart's CustomResourceDefinitions (crds/)"
_REFUSED: Final = ("unauthorized", "forbidden", "not_found")
_STEP_S: Final = 0.1
_COMPARE_S: Final = 5.0
_DEAF: Final = "the watch of WasmPlugins is deaf: it does not tell what changes"
_LATE_S: Final = 6.0
"""Seconds that kopf may be behind the reflector."""
_AHEAD_S: Final = 25.0
"""Seconds that kopf may be ahead of the reflector, whose watch may be the dead one for a turn."""
_NEVER_S: Final = 120.0
"""Seconds after which it counts as deaf, however much else it tells meanwhile."""
_AGAIN_FIRST_S: Final = 15.0
_AGAIN_LAST_S: Final = 240.0
"""Between two beginnings: a list of five thousand large objects takes its time."""

log = logging.getLogger("hookline.plugin_watch")


class Version(NamedTuple):
    """An object's uid and its version."""

    uid: str
    version: str

    @classmethod
    def of(cls, found: Object) -> Version:
        """From the API's object."""
        return cls(found["metadata"]["uid"], found["metadata"]["resourceVersion"])


@dataclass(frozen=True, slots=True)
class _Behind:
    """Something that kopf has not told."""

    wanted: Version | None
    """What is there; None where the plugin is gone."""
    since: float


class PluginWatch:
    """Fills the catalogue with the plugins of these namespaces, or of all where none are given."""

    def __init__(
        self, kube: Kube, catalogue: Catalogue, sights: Sights, *, namespaces: tuple[str, ...], kubeconfig: Path | None
    ) -> None:
        self.reflectors = [
            Reflector(
                kube,
                path(API_VERSION, PLURAL, namespace),
                project=Version.of,
                changed=lambda *_: None,
                sight=sights.new(PLURAL),
                metadata_only=True,
                unknown=f"WasmPlugins: {APPLY}",
            )
            for namespace in namespaces or (None,)
        ]
        """Follow names and versions of the plugins. Whoever owns this object runs them."""
        self._catalogue = catalogue
        self._sight = sights.new(PLURAL)
        self._each_namespace = bool(namespaces)
        self._handlers = Handlers(
            self._seen,
            functools.partial(_served, kube),
            loop=asyncio.get_running_loop(),
            namespaces=namespaces,
            kubeconfig=kubeconfig,
        )
        self._told: dict[Key, Version] = {}
        """What kopf told last."""
        self._heard: dict[str, float] = {}
        """When (monotonic) kopf last told of anything, by the watch that told it."""
        self._behind: dict[Key, _Behind] = {}
        self._refusals = 0
        self._began = time.monotonic()
        self._again_s = _AGAIN_FIRST_S

    def start(self) -> None:
        """Start kopf."""
        self._handlers.start()

    def stop(self) -> None:
        """Have kopf end soon."""
        self._handlers.stop()

    async def first_sync(self) -> None:
        """Wait until everything that is in the API is in the catalogue.

        DANGER: a bundle that is made of half of the plugins takes the other half off the pods.
        """
        await asyncio.gather(*(each.synced.wait() for each in self.reflectors))
        compared = time.monotonic()
        while any(self._differs(key, there) for key, there in self._there().items()):
            await asyncio.sleep(_STEP_S)
            if time.monotonic() - compared > _COMPARE_S:
                self._compare()
                compared = time.monotonic()

    async def run(self) -> None:
        """Compare the two watches, for ever."""
        while True:
            self._compare()
            await asyncio.sleep(_COMPARE_S)

    def _seen(self, found: Object, gone: bool) -> None:  # noqa: FBT001 - kopf's thread calls it so
        key = (found["metadata"]["namespace"], found["metadata"]["name"])
        self._heard[self._ear(key)] = time.monotonic()
        version = Version.of(found)
        if not gone:
            self._told[key] = version
        elif key in self._told and self._told[key].uid == version.uid:
            del self._told[key]
        self._catalogue.put_plugin(found, gone=gone)

    def _ear(self, key: Key) -> str:
        """Which of kopf's watches tells of a plugin."""
        return key[0] if self._each_namespace else ""

    def _there(self) -> dict[Key, Version]:
        return {key: there for each in self.reflectors for key, there in each.items.items()}

    def _differs(self, key: Key, there: Version) -> bool:
        told = self._told.get(key)
        return told is None or told.uid != there.uid

    def _compare(self) -> None:
        """See what kopf has not told, and have it begin again where it will not any more."""
        if any(each.sight.trouble or not each.synced.is_set() for each in self.reflectors):
            return  # what is there is not known well enough to say that somebody else does not know it
        now, there = time.monotonic(), self._there()
        if (refusals := self._refused()) != self._refusals:
            # The same happened to kopf, or its watch is one that the API server has forgotten.
            self._refusals, self._began = refusals, now
            self._handlers.begin_again()
        behind = {key: wanted for key, wanted in there.items() if self._told.get(key) != wanted}
        gone = {plugin.key for plugin in self._catalogue.all_plugins()} - there.keys()
        before = self._behind
        self._behind = {}
        for key, wanted in [*behind.items(), *((key, None) for key in gone)]:
            known = before.get(key)
            same = known is not None and known.wanted == wanted
            self._behind[key] = known if known is not None and same else _Behind(wanted, now)
        for key in gone:
            if now - self._behind[key].since > (_LATE_S if self._has_read(key) else _AHEAD_S):
                log.info("plugin '%s/%s' was deleted while nobody watched", *key)
                self._told.pop(key, None)
                self._catalogue.forget_plugin(key)
                del self._behind[key]
        if late := [key for key in behind if self._is_late(key, now)]:
            self._listen_again(late, now)
        else:
            self._again_s = _AGAIN_FIRST_S
            self._sight.answered()

    def _has_read(self, key: Key) -> bool:
        """Whether the reflectors know of later than kopf's last word of a plugin.

        DANGER: one whose watch hangs has not heard of a new plugin, and a plugin that is forgotten guards nothing.
        """
        told = self._told.get(key)
        return told is None or not any(is_older(each.version or "0", told.version) for each in self.reflectors)

    def _refused(self) -> int:
        """How often the API server said no to the list that kopf has too."""
        return sum(each.sight.failures[reason] for each in self.reflectors for reason in _REFUSED)

    def _is_late(self, key: Key, now: float) -> bool:
        known, told = self._behind[key], self._told.get(key)
        waited = now - known.since
        if told is not None and known.wanted is not None and is_older(known.wanted.version, told.version):
            return waited > _AHEAD_S
        quiet = now - self._heard.get(self._ear(key), 0.0)
        return waited > _NEVER_S or min(waited, quiet) > _LATE_S

    def _listen_again(self, late: Iterable[Key], now: float) -> None:
        self._sight.failed(DEAF, _DEAF)
        if now - self._began > self._again_s:
            log.info("the watch of WasmPlugins is started again: it has not reported '%s/%s'", *min(late))
            self._began, self._again_s = now, min(self._again_s * 2, _AGAIN_LAST_S)
            self._handlers.begin_again()


async def _served(kube: Kube) -> bool:
    """Whether the API server tells of WasmPlugins where kopf looks for them."""
    group, _, version = API_VERSION.partition("/")
    try:
        groups = (await kube.request("GET", "/apis"))["groups"]
        if not any(each["name"] == group for each in groups):
            return False
        found = await kube.get(f"/apis/{group}/{version}")
    except KubeError:
        return False
    return found is not None and any(each["name"] == PLURAL for each in found["resources"])
