"""One line of the table of attacks, and what all of them are made of.

An attack is a function of the program's addresses and a number of seconds. It runs in a process of its own, says
``begun`` once it is ready to hurt, and then what it did.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from cluster.access import Access
from exhaustion import connections

Where = dict[str, Any]
Run = Callable[[Where, float], dict[str, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """One line of the table."""

    name: str
    entry: int
    """Of the issue."""
    program: Literal["sidecar", "operator"]
    what: str
    """For the table: who sends what."""
    run: Run
    deploys: bool
    """Whether an honest plugin is put there meanwhile: for attacks on what loads plugins."""


_all: Final[dict[str, Attack]] = {}


def attack(
    name: str, entry: int, program: Literal["sidecar", "operator"], what: str, *, deploys: bool = False
) -> Callable[[Run], Run]:
    """Puts a function into the table."""

    def keep(run: Run) -> Run:
        _all[name] = Attack(name=name, entry=entry, program=program, what=what, run=run, deploys=deploys)
        return run

    return keep


def attacks() -> dict[str, Attack]:
    """All, by name."""
    return dict(_all)


def begun() -> None:
    """Everything is made: from now on it counts."""
    sys.stdout.write("begun\n")
    sys.stdout.flush()


def opener(where: Where, port: str) -> connections.Open:
    """Opens connections that are ready for a request."""
    if port == "https":
        return connections.tls(where["host"], where["https"], where["ca"], where["server_name"])
    return plain(where, port)


def plain(where: Where, port: str, *, sources: int = 1) -> connections.Open:
    """Opens connections, and greets nobody."""
    return connections.tcp(where["host"], where[port], sources=sources)


def trust(where: Where) -> ssl.SSLContext:
    """The operator's authority."""
    return ssl.create_default_context(cafile=where["ca"])


def access(where: Where) -> Access:
    """The API server, with an administrator's rights: what a tenant may write is written with them."""
    return Access(kubeconfig=Path(where["kubeconfig"]), kubectl=Path(where["kubectl"]))


def stay(seconds: float, **told: int) -> dict[str, int]:
    """What was put there does the rest."""
    time.sleep(seconds)
    return told


def ran(work: Coroutine[Any, Any, Counter[str]]) -> dict[str, int]:
    """What it counted."""
    return dict(asyncio.run(work))
