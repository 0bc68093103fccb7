"""Whether the pods reach what a plugin asks outside of them: databases, caches, its keys, hosts. Pure functions.

It is a condition of its own, and no part of ``Ready``: pods run what was asked for, a rollout goes on, and no version
of a plugin brings a database back. What it means for calls is for ``Healthy`` to say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hookline_api.outbound import CACHE, DATA_SOURCE, KEYS
from hookline_api.text import readable
from hookline_operator.status.reasons import (
    CACHE_UNAVAILABLE,
    DATA_SOURCE_UNAVAILABLE,
    NO_REPORTS,
    SOURCE_UNAVAILABLE,
    SOURCES_AVAILABLE,
    STORE_UNAVAILABLE,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_operator.status.observation import PodObservation

_NAMED: Final = 3
"""Sources that one sentence names."""
_MAX_MESSAGE: Final = 256
_KINDS: Final = (
    (DATA_SOURCE.partition("{")[0], DATA_SOURCE_UNAVAILABLE),
    (KEYS, STORE_UNAVAILABLE),
    (CACHE.partition("{")[0], CACHE_UNAVAILABLE),
    ("", SOURCE_UNAVAILABLE),
)
"""How the names of sources begin, and the reason; the worst first."""


def judge(pods: Sequence[PodObservation], *, asks: bool) -> tuple[bool | None, str, str] | None:
    """Whether what the plugin asks can be reached, the reason, and the message; None where it asks nothing.

    The same for the same pods in any order. No figure in it moves while nothing else does.
    """
    running = sorted((pod for pod in pods if pod.runs != "Nothing"), key=lambda pod: pod.name)
    found: dict[str, list[tuple[str, str]]] = {}
    for pod in running:
        for each in pod.unavailable:
            found.setdefault(each.source, []).append((pod.name, each.message))
    if not found:
        if not asks:
            return None
        if not running:
            return None, NO_REPORTS, "no pod that runs it has reported"
        return True, SOURCES_AVAILABLE, "no pod says that it cannot reach what the plugin asks"
    worst = sorted(found, key=lambda source: (_rank(source), source))
    told = "; ".join(_sentence(source, found[source], len(running)) for source in worst[:_NAMED])
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return False, _KINDS[_rank(worst[0])][1], f"{told}{more}"


def _rank(source: str) -> int:
    return next(rank for rank, (begin, _) in enumerate(_KINDS) if source.startswith(begin))


def _sentence(source: str, there: list[tuple[str, str]], running: int) -> str:
    where = f"pod '{there[0][0]}'" if len(there) == 1 else f"{len(there)} of {running} pods"
    why = readable(there[0][1], _MAX_MESSAGE)
    return f"{readable(source, _MAX_MESSAGE)} cannot be reached from {where}{f': {why}' if why else ''}"
