"""Rows that need nothing of each other's: lanes, each a namespace, side by side; in a lane one row after the other."""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

from installation import ROOT, Installation, Tenant
from truth import calls, outages, pods, releases, settings, sources
from truth.looks import answers, ready
from truth.moody_registry import MoodyRegistry
from truth.play import play
from truth.row import Act, Figure, Row
from truth.scene import Scene
from waiting import until

LOG: Final = ROOT / "build" / "truth.log"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """Rows that are played in one namespace."""

    name: str
    prepare: Act
    rows: list[Row]


def _good(scene: Scene) -> None:
    scene.push("good")
    scene.guard()


QUIET: Final = Row(
    name="nothing", what="nothing, for a minute, while all around it is broken",
    breaks=lambda _: None, says=(), next_step="", quiet_s=60.0, well=(ready(), answers("good")),
)  # fmt: skip
_CALLS: Final = len(calls.OF_CALLS) // 2
_SOURCES: Final = len(sources.FROM_SOURCES) // 2
LANES: Final = (
    Lane(name="calls", prepare=calls.prepare, rows=calls.OF_CALLS[:_CALLS]),
    Lane(name="versions", prepare=calls.prepare, rows=calls.OF_CALLS[_CALLS:]),
    Lane(name="pods", prepare=pods.prepare, rows=pods.OF_PODS),
    Lane(name="sources", prepare=sources.prepare, rows=sources.FROM_SOURCES[:_SOURCES]),
    Lane(name="registries", prepare=sources.prepare, rows=sources.FROM_SOURCES[_SOURCES:]),
    Lane(name="settings", prepare=settings.prepare, rows=settings.OF_SETTINGS),
    Lane(name="quiet", prepare=_good, rows=[QUIET]),
)
TOGETHER: Final = [row.name for lane in LANES for row in lane.rows]
ALONE: Final = {row.name: row for row in (*outages.OUTAGES, *releases.RELEASES)}
ORDER: Final = [*TOGETHER, *ALONE]
"""Of the table."""
BRIEF: Final = frozenset({
    "traps", "paused", "overload", "at-start", "rolled-back-trap", "no-pods", "unguarded", "stuck-in-init", "wrong-tag",
    "registry-lies", "no-registry", "no-password", "secret-missing", "schema", "permission", "secret-annotated",
    "nothing",
    "leader-killed", "apiserver-paused", "definition-not-served", "no-rights", "scaled-to-0", "new-authority",
})  # fmt: skip
"""One or two of each kind, for where all of them take too long."""


def say(line: str) -> None:
    """Progress, for people: in build/truth.log, and where pytest shows output."""
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("a") as log:
        log.write(f"{line}\n")
    print(line, file=sys.stderr, flush=True)


@contextmanager
def scene_of(name: str, prepare: Act, installation: Installation) -> Iterator[Scene]:
    """A namespace where the plugin is ready and under load."""
    cluster = installation.cluster
    with (
        MoodyRegistry(cluster.gateway) as registry,
        cluster.namespace(f"truth-{name}") as namespace,
    ):
        scene = Scene(installation, Tenant(cluster, namespace).prepare(), registry)
        with contextlib.closing(scene):
            prepare(scene)
            proxies = scene.proxies()
            scene.ready()
            with scene.under_load(proxies):
                yield scene


class Playing:
    """All lanes that have rows of these names, each in a thread; ``figure`` waits for a row."""

    def __init__(self, installation: Installation, names: Iterable[str]) -> None:
        self.figures: dict[str, Figure] = {}
        wanted = set(names)
        self._threads = [
            threading.Thread(target=self._lane, args=(lane, rows, installation), daemon=True)
            for lane in LANES
            if (rows := [row for row in lane.rows if row.name in wanted])
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def wait(self) -> None:
        """Back when all are done."""
        for thread in self._threads:
            thread.join()

    def figure(self, name: str) -> Figure:
        """Of a row, once it was played."""
        until(lambda: name in self.figures, f"the row {name}", seconds=1800)
        return self.figures[name]

    def _lane(self, lane: Lane, rows: list[Row], installation: Installation) -> None:
        try:
            with scene_of(lane.name, lane.prepare, installation) as scene:
                for row in rows:
                    self.figures[row.name] = play(row, scene, log=say)
        except Exception:  # noqa: BLE001 - a thread that dies would leave those waiting who ask for its rows
            why = traceback.format_exc()
            for row in rows:
                self.figures.setdefault(row.name, Figure(what=row.what, problems=[f"the lane did not start: {why}"]))


class Alone:
    """Rows that break what all share, one after the other in one namespace."""

    def __init__(self, scene: Scene, figures: dict[str, Figure]) -> None:
        self._scene = scene
        self._figures = figures

    def figure(self, name: str) -> Figure:
        """Play a row."""
        self._figures[name] = play(ALONE[name], self._scene, log=say)
        return self._figures[name]
