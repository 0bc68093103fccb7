"""How much memory guests may have: one account, which all who give memory to a guest ask.

A pod has a limit. The kernel ends a pod that passes it, with all its guards. So what the parts may take is added up
beforehand (``Plan``): the processes, a state folder in memory, one child that compiles or checks
(``hookline_artifacts.apart``), and the guests. What the first two leave is halved between the child and the guests. The
guests' half is divided among the workers, and each worker counts its part with plain numbers (``Budget``):

- a call that begins takes all that it may come to have (``need``), until it ends. A plugin with calls under way leaves
  room for one of the largest other plugin that has none, and those that have none come first: so no plugin's calls
  keep another's from running;
- an instance that is kept for other calls, or made ready for one, has what its memory is now. It is kept only as long
  as the largest call still fits beside it, and is given up where a call needs its room;
- calls that wait to be observed (``backlog.py``) have their inputs.

Inputs of calls that wait for a permit or for memory are counted apart (``WAITING``): they must not take what the calls
before them need.

A call that finds too little waits, as for a permit, and is then an overload. Inline calls run one at a time and end
before anything else is counted, so they only look. A bundle is refused where even one call of its largest plugin would
not fit beside one instance of each.

All of a ``Budget`` belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from hookline_api.permissions import Permission, grants
from hookline_api.quantities import format_size
from hookline_artifacts.errors import ConfigError
from hookline_runtime.errors import OverloadError
from hookline_runtime.host.http_message import MAX_BODY
from hookline_runtime.host.query import MAX_PARAMETERS, MAX_SQL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from hookline_api.bundle import BundlePlugin

_MIB: Final = 2**20
PROCESSES: Final = 64 * _MIB
"""Of the parent and the supervisor, with what they keep of bundles, artifacts and the admin port's callers."""
WORKER: Final = 20 * _MIB
"""Of each worker beside its guests: what it does not share with the parent, which is 7 MiB when it is idle, and bodies
that are being read. So four workers have room for a plugin of the default limits in the chart's 512 MiB."""
STORE: Final = 64 * _MIB
"""Of the plugins' store, where it is in memory and a plugin may write to it: its cap (``kv.MAX_BYTES``)."""
CHILD_LEAST: Final = 64 * _MIB
"""Of a child that compiles or checks: the interpreter and the engine take 40 MiB of it."""
CALL: Final = 4 * _MIB
"""Of a call beside its memory, input and output: a native stack of 512 KiB, two tables of 200,000 elements in all."""
_FETCH: Final = 8 * MAX_BODY
"""Of a request or a response: its body, and the body as JSON, where a byte takes up to six."""
_COMMAND: Final = 2 * _MIB
"""Of a command for a server of keys: a value, and the value as it is sent."""
WAITING: Final = 16 * _MIB
"""Of all inputs that wait in one worker for a permit or for memory: 64 of the largest that ``limits.input`` takes by
default, thousands of usual ones. The bodies that they were read from wait with them, up to twice as much."""
WAITING_CALLS: Final = 4
"""Calls of each plugin that may wait whatever their size: so many large bodies are read at once."""
_UNBOUNDED: Final = 2**62


def need(entry: BundlePlugin) -> int:
    """Bytes that one call of a plugin may come to have at the most."""
    limits = entry.limits
    return limits.memory + limits.input + limits.output + CALL + _asked(entry)


def _asked(entry: BundlePlugin) -> int:
    """Bytes that the host has of what a call asks and is answered, beside the guest's own: one thing at a time."""
    most = 0
    if entry.data_sources and grants(entry.permissions, Permission.QUERY_EXECUTE):
        # The rows as they came, and as one text.
        most = MAX_SQL + MAX_PARAMETERS + 2 * max(source.postgres.max_bytes for source in entry.data_sources)
    if entry.egress and grants(entry.permissions, Permission.HTTP_FETCH):
        most = max(most, _FETCH)
    if entry.kv.valkey is not None or any(cache.valkey is not None for cache in entry.caches):
        most = max(most, _COMMAND)
    return most


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What the parts of one pod may take, in bytes."""

    limit: int
    processes: int
    state: int
    """Of what is kept in the state folder, where that is in memory."""
    workers: int

    @classmethod
    def of(cls, limit: int, *, workers: int, state: int) -> Plan:
        """The plan of a pod with that limit."""
        return cls(limit=limit, processes=PROCESSES + workers * WORKER, state=state, workers=workers)

    @property
    def rest(self) -> int:
        """For the guests and a child together."""
        return max(0, self.limit - self.processes - self.state)

    @property
    def guests(self) -> int:
        """For the guests of one worker; a child gets what it needs at the least first."""
        return max(0, min(max(self.rest // 2, 0), self.rest - CHILD_LEAST)) // self.workers

    @property
    def most_guests(self) -> int:
        """For the guests of one worker where the child gets no more than it needs at the least."""
        return max(0, self.rest - CHILD_LEAST) // self.workers

    def child(self, guests: int) -> int:
        """For a child, where the guests of each worker have so much."""
        return max(0, self.rest - guests * self.workers)


class _Sized(Protocol):
    """What a bundle is checked by."""

    @property
    def name(self) -> str:
        """The plugin's name."""

    @property
    def need(self) -> int:
        """Bytes of one of its calls."""

    @property
    def each(self) -> int:
        """Bytes of one of its instances that is kept."""


class _One(NamedTuple):
    name: str
    need: int
    each: int = 0


class Holder(_Sized, Protocol):
    """A plugin, as the budget sees it."""

    def shed(self) -> None:
        """Give up all instances that no call uses."""


class _Waiting(NamedTuple):
    """A call that waits for memory."""

    size: int
    turn: asyncio.Future[None]
    holder: Holder | None


class Budget:
    """What the guests of one process may have. Without a plan, as much as there is."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        """What the parts of the pod may have; None where nothing bounds them."""
        self.free = _UNBOUNDED
        """Bytes that nobody has."""
        self.total = _UNBOUNDED
        """Bytes for all guests of this process."""
        self.backlogs = 0
        """Plugins for which answers wait until their calls can be observed."""
        self._reserve = 0
        """Bytes of the largest call: what is kept between calls must leave so much."""
        self._shedding = False
        self._holders: list[Holder] = []
        self._waiting: collections.deque[_Waiting] = collections.deque()
        self._calls: collections.Counter[Holder] = collections.Counter()
        """How many calls each plugin has under way, of those that have any."""

    @property
    def waiting(self) -> int:
        """Bytes of inputs that may wait for one plugin: the plugins have the same share each."""
        return WAITING // max(1, len(self._holders))

    def follow(self, plan: Plan | None) -> None:
        """Have what that plan gives to the guests of one worker; a later plan, from the next ``check`` on."""
        first, self.plan = self.plan is None, plan
        if plan is None:
            self._set(_UNBOUNDED)
        elif first:
            self._set(plan.guests)

    def _set(self, total: int) -> None:
        self.free += total - self.total
        self.total = total
        self._make_room(self._reserve)
        self._pass_on()

    def check_one(self, entry: BundlePlugin) -> None:
        """Raise ``TooLargeError`` where one plugin alone is too much: before anything of it runs."""
        one = _One(entry.name, need(entry))
        if self.plan is not None and one.need > self.plan.most_guests:
            self.check([one], running=set())

    def check(self, holders: Sequence[_Sized], *, running: set[str]) -> None:
        """Make room for a bundle of these, or raise ``TooLargeError`` with the one of them that is too much.

        Of those that do not run yet (``running``), the largest; else of all. Where the bundle needs more than half of
        what there is, the child gets less.
        """
        plan = self.plan
        if plan is None:
            return
        if not holders:
            self._set(plan.guests)
            return
        kept, largest = sum(each.each for each in holders), max(holders, key=lambda each: each.need)
        once = kept + largest.need
        if once <= plan.most_guests:
            self._set(max(plan.guests, once))
            return
        second = max((each.need for each in holders if each is not largest), default=0)
        new = [each for each in holders if each.name not in running] or holders
        blamed = max(new, key=lambda each: each.each + (each.need - second if each is largest else 0))
        lacking = (once - plan.most_guests) * plan.workers
        raise TooLargeError(
            blamed.name,
            f"the plugins do not fit into memory once: one instance of each has {_mib(kept)} together, and one call of "
            f"'{largest.name}' may have {_mib(largest.need)}, so {_mib(once)} in each of {plan.workers} workers. Of "
            f"{_mib(plan.limit)} for all, the processes take {_mib(plan.processes)}, the state folder "
            f"{_mib(plan.state)} and a compiler {_mib(CHILD_LEAST)}, which leaves {_mib(plan.most_guests)} for the "
            f"guests of each worker. Give the sidecar {_mib(plan.limit + lacking)}, or lower limits.memory"
            f"{', or have fewer workers' if plan.workers > 1 else ''}",
        )

    def add(self, holder: Holder) -> None:
        """A plugin is loaded."""
        self._holders.append(holder)
        self._reserve = max(self._reserve, holder.need)
        self._make_room(self._reserve)

    def remove(self, holder: Holder) -> None:
        """A plugin has ended, and has given back what it had."""
        if holder in self._holders:
            self._holders.remove(holder)
            self._reserve = max((each.need for each in self._holders), default=0)

    def keep(self, size: int) -> bool:
        """Take so much for what is kept between calls, where the largest call still fits; whether it does."""
        if not self.fits(size):
            return False
        self.free -= size
        return True

    def fits(self, size: int) -> bool:
        """Whether so much could be kept."""
        return self.free - size >= self._reserve

    def give(self, size: int) -> None:
        """Give back so much."""
        self.free += size
        if self._waiting and not self._shedding:
            self._pass_on()

    async def enter(self, size: int, seconds: float | None, holder: Holder | None = None) -> None:
        """Take so much for a call of a plugin, after at most that many seconds. Raises OverloadError.

        Whoever names the ``holder`` gives it back with ``leave``.
        """
        if not self._waiting and self._find_room(size, holder):
            self._take(size, holder)
            return
        if size > self.total:
            raise OverloadError(
                f"one call may have {_mib(size)} of memory, and all guests of this worker have {_mib(self.total)}"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(size, turn, holder)
        self._waiting.append(waiting)
        self._pass_on()
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave(size, holder)
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiting)
                self._pass_on()
            if seconds is not None and isinstance(error, TimeoutError):
                raise OverloadError(
                    f"waited {seconds * 1000:.0f} ms for {_mib(size)} of memory; all guests of this worker have "
                    f"{_mib(self.total)}"
                ) from None
            raise

    @contextlib.asynccontextmanager
    async def taken(self, size: int, seconds: float) -> AsyncIterator[None]:
        """``enter``, for as long as the context lasts."""
        await self.enter(size, seconds)
        try:
            yield
        finally:
            self.give(size)

    def leave(self, size: int, holder: Holder | None) -> None:
        """A call that has entered is over."""
        if holder is not None:
            self._calls[holder] -= 1
            if not self._calls[holder]:
                del self._calls[holder]
        self.give(size)

    def _take(self, size: int, holder: Holder | None) -> None:
        self.free -= size
        if holder is not None:
            self._calls[holder] += 1

    def _find_room(self, size: int, holder: Holder | None) -> bool:
        """Make room for a call, if that is to be had; whether there is enough."""
        if holder in self._calls:
            size += max((each.need for each in self._holders if each not in self._calls), default=0)
        if self.free < size:
            self._make_room(size)
        return self.free >= size

    def _make_room(self, size: int) -> None:
        """Let plugins give up what they only keep, those that keep the most first."""
        self._shedding = True  # what they give back is for whoever asks, and is handed out by nobody else
        for holder in sorted(self._holders, key=lambda each: -each.each) if self.free < size else ():
            holder.shed()
            if self.free >= size:
                break
        self._shedding = False

    def _pass_on(self) -> None:
        while self._waiting:
            # Who came first of those that have no call under way, then who came first of all.
            first = next((each for each in self._waiting if each.holder not in self._calls), self._waiting[0])
            if not first.turn.done():
                if not self._find_room(first.size, first.holder):
                    return
                self._take(first.size, first.holder)
                first.turn.set_result(None)
            self._waiting.remove(first)


class TooLargeError(ConfigError):
    """A bundle does not fit into memory; ``plugin`` is the one to do without."""

    def __init__(self, plugin: str, message: str) -> None:
        super().__init__(message)
        self.plugin = plugin


def _mib(size: int) -> str:
    """A size for a sentence: whole mebibytes, upwards."""
    return format_size(-(-size // _MIB) * _MIB)
