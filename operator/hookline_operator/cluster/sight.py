"""Whether this replica sees what it has to see, and who is told where it does not.

Each collection that is watched, and each object that is polled, has a ``Sight``. Whoever looks calls ``answered`` or
``failed``. From that come one line in the log for each state and one when it is over, a count by reason, the age of the
last answer, and whether the replica is blind there.

A replica is blind where it had no answer for ``GRACE_S``. That costs readiness only where the API server answers this
replica and refuses, or where the watch misses what it tells. An API server that does not answer at all is away for
every replica. Taking all of them out of the Service would take the webhooks away too, and for longer than the API
server was away.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_operator.cluster.kube import KubeError

GRACE_S: Final = 30.0
"""Seconds without an answer after which a replica is blind: more than two turns of a watch."""
DEAF: Final = "deaf"
UNREACHABLE: Final = "unreachable"
_REASONS: Final = {
    0: UNREACHABLE,
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    410: "gone",
    422: "invalid",
    429: "throttled",
}
_SERVER: Final = "server_error"
AWAY: Final = frozenset({UNREACHABLE, "throttled", _SERVER})
"""Reasons that are the API server's, and so every replica's."""
_MAX_TROUBLE: Final = 500

log = logging.getLogger("hookline.sight")


def reason_of(error: KubeError) -> str:
    """Why the API server refused, as one word of a few: for labels."""
    return _REASONS.get(error.status) or (_SERVER if error.status >= 500 else "refused")  # noqa: PLR2004


class Sight:
    """How well one collection is seen. ``name`` is a label: the collection's plural, without a namespace."""

    def __init__(
        self,
        name: str,
        *,
        grace_s: float = GRACE_S,
        needed: bool = True,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``needed`` says whether what pods are told depends on it."""
        self.name = name
        self.needed = needed
        self._grace_s = grace_s
        self.failures: Counter[str] = Counter()
        """How often it could not be looked at, by reason."""
        self.trouble = ""
        """Why the last look failed, in one sentence; empty while all is well."""
        self._now = now
        self._heard = now()
        self._reason = ""
        self._said: set[str] = set()
        """The reasons that the log has of the trouble that there is now."""

    @property
    def age(self) -> float:
        """Seconds since the last answer."""
        return self._now() - self._heard

    @property
    def blind(self) -> bool:
        """Whether the last answer is older than the grace."""
        return self.age > self._grace_s

    @property
    def costs_readiness(self) -> bool:
        """Whether another replica may see what this one does not."""
        return self.needed and self.blind and self._reason not in {"", *AWAY}

    @property
    def sentence(self) -> str:
        """What is wrong, for a person."""
        why = self.trouble or f"nothing was heard of {self.name}"
        return f"{why} (for {self.age:.0f} s)" if self.blind else why

    def answered(self) -> None:
        """The API server has answered, if only that there is nothing new."""
        if self._said:
            log.info("%s can be seen again, after %.0f s", self.name, self.age)
        self._heard, self.trouble, self._reason = self._now(), "", ""
        self._said.clear()

    def failed(self, reason: str, sentence: str) -> None:
        """A look has failed. ``sentence`` is logged once for each reason until one succeeds."""
        self.failures[reason] += 1
        self.trouble, self._reason = sentence[:_MAX_TROUBLE], reason
        if reason not in self._said:
            self._said.add(reason)
            log.warning("%s", self.trouble)


class Sights:
    """All sights of one replica."""

    def __init__(self) -> None:
        self._all: list[Sight] = []

    def new(self, name: str, *, grace_s: float = GRACE_S, needed: bool = True) -> Sight:
        """Add a sight. Several may have the same name, in several namespaces."""
        sight = Sight(name, grace_s=grace_s, needed=needed)
        self._all.append(sight)
        return sight

    @property
    def blind(self) -> bool:
        """Whether the replica is blind to anything that pods depend on."""
        return any(each.needed and each.blind for each in self._all)

    def troubles(self) -> list[str]:
        """Why the last looks failed, where they did."""
        return list(dict.fromkeys(each.trouble for each in self._all if each.trouble))

    def sentences(self) -> list[str]:
        """What the replica is blind to, in sentences."""
        return list(dict.fromkeys(each.sentence for each in self._all if each.blind))

    def not_ready(self) -> list[str]:
        """Why this replica should be asked nothing new, in sentences."""
        return list(dict.fromkeys(each.sentence for each in self._all if each.costs_readiness))

    def by_name(self) -> dict[str, list[Sight]]:
        """The sights by their names."""
        found: dict[str, list[Sight]] = {}
        for each in self._all:
            found.setdefault(each.name, []).append(each)
        return found
