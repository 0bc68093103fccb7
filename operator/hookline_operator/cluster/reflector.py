"""A local copy of one collection of the Kubernetes API, which knows whether it is current.

As client-go's reflector: list, then watch, and list again when the watch cannot be resumed. So a deletion that happened
while nobody watched is seen too.

An open watch proves nothing: the API server may have forgotten it. So each watch lasts for some seconds, and the next
one resumes where it ended. What was missed comes then, or a 410, after which everything is listed. Nothing is read
twice, and a quiet collection costs one request in each turn.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from hookline_operator.cluster.kube import KubeError, key_of
from hookline_operator.cluster.sight import AWAY, Sight, reason_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hookline_operator.cluster.kube import Key, Kube, Object

T = TypeVar("T")

TURN_S: Final = 12
"""Seconds that a watch lasts at least."""
_JITTER_S: Final = 3
_TURNS_A_LOOK: Final = 4
"""After so many turns the collection's version is asked for. A store restored from a backup has an older one."""
_RELIST_S: Final = 600.0
"""Seconds after which names and versions are compared, whatever the watches said. Whole objects are not read."""
_PAUSE_FIRST_S: Final = 0.5
_PAUSE_LAST_S: Final = 15.0
_PAUSE_AWAY_S: Final = 5.0
"""The longest pause where no API server answers: everybody waits for it to come back."""
_RESUMED: Final = 4
"""How often a watch is resumed after an API server was overloaded or failed, since listing everything would be more
work. After that, everything is listed."""
_SHORT_S: Final = 1.0
"""A watch that ends sooner than that was not served."""
_NOT_FOUND: Final = 404
_GONE: Final = 410


class Reflector(Generic[T]):
    """A copy of one collection, as far as ``project`` keeps it. ``changed`` is called with each change.

    ``project`` returns None for an object that is not wanted. ``changed`` gets the key, the old value and the new one,
    which is None where the object is gone. Equal values are not a change.
    """

    def __init__(
        self,
        kube: Kube,
        where: str,
        *,
        project: Callable[[Object], T | None],
        changed: Callable[[Key, T | None, T | None], None],
        sight: Sight | None = None,
        selector: str = "",
        fields: str = "",
        metadata_only: bool = False,
        unknown: str = "",
        absent: Callable[[], Awaitable[bool]] | None = None,
        relist_s: float | None = None,
    ) -> None:
        """``relist_s``: seconds after which all is listed anew; default: ten minutes for names and versions alone.

        ``unknown`` is the sentence for an API server that does not have this collection.

        Where ``absent`` finds that it has none (it may raise KubeError), that is as good as an empty one.
        """
        self.items: dict[Key, T] = {}
        self.synced = asyncio.Event()
        self.sight = sight or Sight(where.rpartition("/")[2])
        self._kube = kube
        self._where = where
        self._project = project
        self._changed = changed
        self._selector = selector
        self._fields = fields
        self._metadata_only = metadata_only
        self._unknown = unknown
        self._absent = absent
        self._relist_s = relist_s or (_RELIST_S if metadata_only else float("inf"))
        self._version = ""
        """From which to watch; empty where everything has to be listed."""
        self._listed = 0.0
        self._attempts = 0

    @property
    def trouble(self) -> str:
        """Why the last look failed, in one sentence; empty while it is current."""
        return self.sight.trouble

    @property
    def version(self) -> str:
        """The collection's version as far as it was read; empty while everything has to be listed."""
        return self._version

    async def run(self) -> None:
        """Keep the copy current, for ever."""
        turns = 0
        while True:
            try:
                turns += 1
                if self._version and turns % _TURNS_A_LOOK == 0:
                    await self._look_back()
                if not self._version:
                    await self._relist()
                began = time.monotonic()
                await self._turn()
                if time.monotonic() - began < _SHORT_S:
                    await asyncio.sleep(_SHORT_S)
            except KubeError as error:
                if error.status == _NOT_FOUND and self._absent is not None and await self._is_absent():
                    await asyncio.sleep(TURN_S)
                else:
                    await asyncio.sleep(self._note_failure(error))

    async def _is_absent(self) -> bool:
        """Whether there is no such collection: then nothing is in it."""
        try:
            if self._absent is None or not await self._absent():
                return False
        except KubeError:
            return False
        self._version = ""
        for key in list(self.items):
            self._changed(key, self.items.pop(key), None)
        self._heard()
        self.synced.set()
        return True

    async def _turn(self) -> None:
        """One watch. Raises KubeError."""
        seconds = TURN_S + random.randint(0, _JITTER_S)  # noqa: S311 - so that not all end at once
        async for kind, found in self._kube.watch(
            self._where,
            self._version,
            seconds=seconds,
            selector=self._selector,
            fields=self._fields,
            metadata_only=self._metadata_only,
        ):
            self._version = found["metadata"]["resourceVersion"]
            self._heard()
            if kind != "BOOKMARK":
                self._take(found, gone=kind == "DELETED")
        self._heard()

    async def _look_back(self) -> None:
        """See that the store is not older than what is known of it, and now and then compare all. Raises KubeError."""
        if time.monotonic() - self._listed > self._relist_s * random.uniform(0.8, 1.2):  # noqa: S311
            self._version = ""
            return
        now = await self._kube.version(self._where)
        if is_older(now, self._version):
            self.sight.failed("went_back", f"{self._where} has an older version than before: a backup was restored?")
            self._version = ""

    def _heard(self) -> None:
        self._attempts = 0
        self.sight.answered()

    def _note_failure(self, error: KubeError) -> float:
        """What an error means, and for how many seconds to wait."""
        said = f"watching {self._where}: {error}"
        if error.status == _NOT_FOUND and self._unknown:
            said = f"the API server does not know {self._unknown}"
        resumes, reason = bool(self._version), reason_of(error)
        if error.status and not (reason in AWAY and self._attempts < _RESUMED):
            self._version = ""
        if error.status == _GONE and resumes:
            self.sight.failures[reason] += 1  # in the order of things: all is listed, and goes on
            return 0.0
        self.sight.failed(reason, said)
        self._attempts += 1
        last = _PAUSE_LAST_S if error.status else _PAUSE_AWAY_S
        pause: float = min(_PAUSE_FIRST_S * 2 ** min(self._attempts, 8), last)
        return max(pause * random.uniform(0.5, 1.0), error.retry_after)  # noqa: S311

    async def _relist(self) -> None:
        there: set[Key] = set()
        version = ""
        async for page, version in self._kube.pages(  # noqa: B007 - the last one counts
            self._where, selector=self._selector, fields=self._fields, metadata_only=self._metadata_only
        ):
            for each in page:
                self._take(each, gone=False)
                if (key := key_of(each)) in self.items:
                    there.add(key)
        for key in self.items.keys() - there:
            self._changed(key, self.items.pop(key), None)
        self._version, self._listed = version, time.monotonic()
        self._heard()
        self.synced.set()

    def _take(self, found: Object, *, gone: bool) -> None:
        key = key_of(found)
        new = None if gone else self._project(found)
        old = self.items.get(key)
        if new is None:
            self.items.pop(key, None)
        else:
            self.items[key] = new
        if new != old:
            self._changed(key, old, new)


def is_older(version: Any, than: Any) -> bool:
    """Whether one ``resourceVersion`` came before another; False where that cannot be told."""
    try:
        return int(version) < int(than)
    except (TypeError, ValueError):
        return False
