"""Visits that do the same, in the order of their coming: who is late, and who has been here longest."""

from __future__ import annotations

import itertools
from collections import defaultdict
from typing import Generic, Protocol, TypeVar


class Member(Protocol):
    """What a crowd knows of a visit. Neither may change while it is in one."""

    address: str
    since: float
    """When it came into the crowd."""

    def __hash__(self) -> int: ...


Who = TypeVar("Who", bound=Member)


class Crowd(Generic[Who]):
    """Visits in the order of their coming, also by address."""

    def __init__(self) -> None:
        self.visits: dict[Who, None] = {}
        self.by_address: defaultdict[str, dict[Who, None]] = defaultdict(dict)

    def __len__(self) -> int:
        return len(self.visits)

    def add(self, visit: Who) -> None:
        """Put it last."""
        self.visits[visit] = None
        self.by_address[visit.address][visit] = None

    def remove(self, visit: Who) -> None:
        """Take it out. Raises KeyError."""
        del self.visits[visit]
        mine = self.by_address[visit.address]
        del mine[visit]
        if not mine:
            del self.by_address[visit.address]

    def count(self, address: str) -> int:
        """How many are of this address."""
        return len(self.by_address[address]) if address in self.by_address else 0

    def before(self, moment: float) -> list[Who]:
        """Those that came until then."""
        return list(itertools.takewhile(lambda visit: visit.since <= moment, self.visits))

    def oldest(self, address: str | None = None) -> Who | None:
        """The oldest of this address; without one, of the address that has the most here."""
        if not self.visits:
            return None
        if address is None:
            most = max(self.by_address, key=self.count)
            return next(iter(self.by_address[most]))
        return next(iter(self.by_address[address])) if address in self.by_address else None
