"""One loaded plugin: its instances, its limits, its circuit breaker, and where its calls run.

A call runs inline on the event loop while the plugin is quick, because a thread costs eleven times a quick call.
A plugin is on probation first, on threads of its own: only after some quick calls in a row it runs inline, and
one slow call sends it back for twice as long. So an endless loop holds the event loop once at the most, for one
time-out, and a plugin that is slow raises nobody else's p99.

While it is inline a call is plain, synchronous code, from ``ready`` to ``call_now``. What a fresh instance costs is
paid between calls: after an answer, what it used is given back and the next instance is made ready.

All of this class belongs to one event loop; only ``_execute`` runs on a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hookline_runtime.call.decisions import Answer, read_answer
from hookline_runtime.call.inputs import Call
from hookline_runtime.errors import CallError, DeadlineError, OverloadError, TrapError, told, traced
from hookline_runtime.guest.border import PAGE, spent_ns
from hookline_runtime.plugin.backlog import Backlog
from hookline_runtime.plugin.budget import WAITING_CALLS, Budget, need
from hookline_runtime.plugin.permits import Places

if TYPE_CHECKING:
    from hookline_api.bundle import BundlePlugin, CallCause
    from hookline_api.hooks import Hook
    from hookline_runtime.guest.calls import Guest, Instance
    from hookline_runtime.host.functions import PluginHost
    from hookline_runtime.plugin.probation import Before
    from hookline_runtime.plugin.stats import Row

_QUICK_NS: Final = 2_000_000
"""A call that takes longer is no call for the event loop."""
_MAX_INLINE_MS: Final = 1_000
"""A plugin that may take longer than this stays on threads, however quick it is."""
_PROBATION: Final = 8
_MAX_PROBATION: Final = 4096
_FORGIVEN_AFTER: Final = 10_000
"""Quick calls in a row after which the probation is short again."""
MAX_THREADS: Final = 16
"""More calls at a time than there are threads would wait where no deadline sees them."""
_SPARES: Final = 2
"""Fresh instances that are kept ready for the next calls, where each call gets one of its own."""
_LOOK: Final = -1
_UNTIDY_S: Final = 0.005
"""How long a single used instance may wait for a second one: giving both back at once costs one turn of the loop."""
_MAX_KNOWN: Final = 128
_MAX_KNOWN_BYTES: Final = 256

_BREAKER_THRESHOLD: Final = 5
_BREAKER_FIRST_PAUSE_S: Final = 1.0
_BREAKER_LAST_PAUSE_S: Final = 60.0
_LOG_PAUSE_S: Final = 10.0

_now_ns: Final = time.perf_counter_ns

log = logging.getLogger("hookline.plugin")


@dataclass(frozen=True, kw_only=True, slots=True)
class LastFailure:
    """The newest failure of a plugin, for people."""

    hook: str
    cause: CallCause
    message: str
    at: float
    """Seconds since 1970."""


class Road:
    """One hook of one plugin: everything that a call needs, found once."""

    __slots__ = ("breaker", "export", "hook", "known", "memory", "row")

    def __init__(self, hook: Hook, row: Row) -> None:
        self.hook = hook
        self.export = hook.value
        self.row = row
        self.breaker = Breaker()
        self.memory = 0
        self.known: dict[bytes | None, Answer | None] = {}
        """Answers that were read before: most plugins say few different things."""

    def apart(self, row: Row) -> Road:
        """The same, breaker and all, counted elsewhere."""
        made = Road(self.hook, row)
        made.breaker, made.known = self.breaker, self.known
        return made

    def read(self, raw: bytes | None) -> Answer | None:
        """A guest's answer; raises ResultError. Short ones are known afterwards."""
        known = self.known
        if raw in known:
            return known[raw]
        answer = read_answer(self.hook, raw)
        if raw is None or len(raw) <= _MAX_KNOWN_BYTES:
            if len(known) >= _MAX_KNOWN:
                known.clear()
            known[raw] = answer
        return answer


class _Run:
    """One execution on a thread, and what it came to."""

    __slots__ = ("answer", "error", "instance", "kept", "ns", "work_ns")

    def __init__(self) -> None:
        self.instance: Instance | None = None
        """What it ran in; closed where nothing else may."""
        self.kept = False
        """Whether that was kept from a call before, and so is counted already."""
        self.answer: Answer | None = None
        self.error: CallError | None = None
        self.ns = 0
        self.work_ns = 0
        """Processor time, and what it waited for in host functions: waiting for a core is not the plugin's doing."""


class Breaker:
    """Takes one hook of a plugin that keeps trapping or timing out off the road for a growing pause."""

    __slots__ = ("_pause", "_trial", "_until", "failures", "kind")

    def __init__(self) -> None:
        self.failures = 0
        """Failures in a row; 0 on a good day."""
        self._pause = _BREAKER_FIRST_PAUSE_S
        self._until = 0.0
        self._trial = False
        self.kind: type[CallError] = TrapError
        """What opened it."""

    @property
    def open_for(self) -> float:
        """Seconds until the next trial; 0 while the plugin is on the road."""
        return max(0.0, self._until - time.monotonic()) if self.failures >= _BREAKER_THRESHOLD else 0.0

    def lets_through(self) -> bool:
        """Whether a call may run: always while closed; one at a time once the pause is over."""
        if self.failures < _BREAKER_THRESHOLD:
            return True
        if self._trial or time.monotonic() < self._until:
            return False
        self._trial = True
        return True

    def did_not_run(self) -> None:
        """A call that was let through never reached the guest: another one may be the trial."""
        self._trial = False

    def succeeded(self) -> None:
        """The guest came back by itself, whatever it answered."""
        self.failures = 0
        self._trial = False
        self._pause = _BREAKER_FIRST_PAUSE_S

    def failed(self, kind: type[CallError]) -> bool:
        """A call trapped or timed out; whether that took the plugin off the road."""
        self.failures += 1
        self.kind = kind
        was_trial, self._trial = self._trial, False
        if self.failures < _BREAKER_THRESHOLD:
            return False
        if self.failures > _BREAKER_THRESHOLD and not was_trial:
            return False  # a call that was under way when the breaker opened
        self._until = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, _BREAKER_LAST_PAUSE_S)
        return True


class Plugin:
    """One plugin of one bundle in this process."""

    last_fault: LastFailure | None = None
    """The newest failure that was the guest's doing: behind one that loops, overloads are soon the newest."""

    def __init__(
        self,
        entry: BundlePlugin,
        guest: Guest,
        host: PluginHost,
        rows: dict[Hook, Row],
        *,
        spare: Instance | None = None,
        places: Places | None = None,
        budget: Budget | None = None,
        number: int = 0,
    ) -> None:
        self.entry = entry
        self.number = number
        """Of its rows in the statistics."""
        self.name = entry.name
        self.revision = entry.revision
        self.host = host
        self.roads = {hook: Road(hook, rows[hook]) for hook in entry.hooks}
        self.last_failure: LastFailure | None = None
        self.last_failures: dict[Hook, LastFailure] = {}
        self.inline = False
        """Whether calls run on the event loop."""
        self.before: Before | None = None
        """What answers the calls that this one fails on, while it is on probation."""
        self._timeout_ms = entry.limits.timeout
        self._may_run_inline = self._timeout_ms <= _MAX_INLINE_MS
        self._guest = guest
        self._has_secrets = bool(entry.secret_paths)
        self._counts_fuel = entry.limits.fuel is not None
        self._max_input = entry.limits.input
        self._pooled = entry.isolation.mode == "Pooled"
        self._last_call = entry.isolation.max_calls - 1 if self._pooled else 0
        """How many calls an instance has served before its last one."""
        self._keep = entry.isolation.size if self._pooled else _SPARES
        self.need = need(entry.limits)
        """Bytes that one of its calls may have at the most."""
        self._room = self.need
        """… or of the version before it, if that is asked in its place."""
        self._budget = budget or Budget()
        self._first = self.each = max(guest.info.memory_pages * PAGE, 0 if spare is None else spare.memory)
        """Bytes of a fresh instance, and those that each one that is kept counts for."""
        self._mark = self.each
        """An instance with more memory after an inline call needs a look; less than nothing where any does."""
        self._waiting = self._waiting_bytes = 0
        """Calls that wait for room, and their inputs."""
        self._kept = 0
        """Instances that the budget counts: those here, and the one that an inline call has."""
        self._instances: list[Instance] = [] if spare is None else [spare]
        self._used: list[Instance] = []
        self._tidying = self._will_tidy = False
        self.places = places or Places(entry.limits.concurrency, most=MAX_THREADS)
        self._threads: ThreadPoolExecutor | None = None
        self.backlog = Backlog(
            waits=entry.observers.overflow == "Wait",
            run=self._observe,
            dropped=self._count_dropped,
            waited=lambda hook, ns: self.roads[hook].row.count_waited(ns),
            idle=self._close_if_done,
            budget=self._budget,
        )
        """The calls that it only watches."""
        self._probation = _PROBATION
        self._quick_in_a_row = 0
        self._failing = False
        self._logged_at = -_LOG_PAUSE_S
        self._holders = 0
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether everything it held is given back."""
        return self._closed.is_set()

    def trust(self) -> None:
        """Run inline from the first call on: the version before this one did.

        On probation it could take fewer calls at a time than that one did, and calls would fail because of a
        change. It costs one time-out of the event loop at the most.
        """
        self.inline = self._may_run_inline

    def put_on_probation(self, before: Before) -> None:
        """Have that version answer what this one fails on, until this one has proven itself (``prove``).

        It is never on the event loop while the other is not: where its call fails there, the other's runs there too.
        """
        self.prove()
        self.before = before
        self._room = max(self.need, before.plugin.need)
        self.inline = self.inline and before.plugin.inline

    def runs(self, runs: bool) -> None:  # noqa: FBT001 - one word, and its opposite
        """Whether it is what runs from here on; else another version is, and this one's calls are told apart."""
        for road in self.roads.values():
            road.row = road.row.timely() if runs else road.row.late()

    def prove(self) -> None:
        """It is on probation no longer, and lets go of the version before it."""
        before, self.before, self._room = self.before, None, self.need
        if before is not None:
            before.end()

    def ready(self) -> bool:
        """Whether a call would run now, on this thread, without waiting for anything."""
        places = self.places
        return self.inline and self._budget.free >= self._room and (places.running < places.held or places.get())

    def call_now(self, road: Road, data: bytes) -> Answer | None:
        """One call on this thread, where ``ready`` said so: the guest's answer, or None where it has no opinion.

        Raises CallError, already counted.
        """
        failing = road.breaker.failures
        if failing:
            self._ask_breaker(road)
        if len(data) > self._max_input:
            raise self.refuse_size(road, len(data))
        instance, ready, known = None, self._instances, road.known
        begin = _now_ns()
        try:
            instance = ready.pop() if ready else self._fresh()
            last = instance.calls >= self._last_call
            raw = instance.call(road.export, data, last=last)
            answer = known[raw] if raw in known else road.read(raw)
            ns = _now_ns() - begin
            road.row.count(ns)
        except Exception as failure:  # noqa: BLE001 - of the guest, or our own mistake: it is an answer either way
            ns = _now_ns() - begin
            error = self._failed(road, ns, failure)
            self._weigh(0 if instance is None else ns, instance)
            if instance is not None:
                self._note_instance(road, instance)
                instance.close()
            self._lost()
            try:
                if error is failure:
                    raise
                raise error from failure
            finally:
                del error  # an error that its own traceback leads to would keep the input until the collector comes
        if failing or self._failing:
            self._recovered(road)
        if ns > _QUICK_NS:
            self._weigh(ns, instance)
        elif self._probation != _PROBATION:
            self._quick_in_a_row += 1
            if self._quick_in_a_row == _FORGIVEN_AFTER:
                self._probation = _PROBATION
        if instance.memory != road.memory or self._counts_fuel:
            self._note_instance(road, instance)
        if instance.memory > self._mark and not self._count(instance):
            return answer
        if last:
            self._put_aside(instance)
        else:
            ready.append(instance)  # there is room: it came from here
        return answer

    async def call(self, hook: Hook, data: bytes) -> Answer | None:
        """One call, inline or on a thread, once there is room for it. As ``call_now`` otherwise."""
        return await self.call_on(self.roads[hook], data)

    async def call_on(self, road: Road, data: bytes) -> Answer | None:
        """``call``, counted elsewhere."""
        return await self._call(road, data, self._timeout_ms / 1000)

    async def _call(self, road: Road, data: bytes, patience: float | None) -> Answer | None:
        """``call``; it waits so many seconds for room, None for as long as it takes."""
        if self.ready():
            return self.call_now(road, data)
        if road.breaker.failures:
            self._ask_breaker(road)
        if len(data) > self._max_input:
            raise self.refuse_size(road, len(data))
        try:
            await self._enter(patience, len(data))
        except BaseException as error:
            road.breaker.did_not_run()
            if isinstance(error, OverloadError):
                self._failed(road, 0, error)
            raise
        if self.inline:  # it waited for a place, and not for a thread
            road.breaker.did_not_run()  # a trial is asked for again
            try:
                return self.call_now(road, data)
            finally:
                self._leave()
        run = _Run()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.places.most, thread_name_prefix=f"plugin-{self.name}")
        try:
            future = asyncio.get_running_loop().run_in_executor(self._threads, self._execute, road, run, data)
        except RuntimeError as error:  # the process has no thread left to give
            run.error = OverloadError(f"no thread for the call: {error}")
            self._ended(road, run)
        else:
            # The call ends when the thread does, also where nobody waits for the answer any more.
            future.add_done_callback(lambda _: self._ended(road, run))
            await asyncio.shield(future)
        if run.error is not None:
            try:
                raise run.error
            finally:
                run.error = None  # as in call_now
        return run.answer

    async def _enter(self, patience: float | None, size: int) -> None:
        """Take a place and memory for a call of so many bytes, within so many seconds. Raises OverloadError."""
        most = self._budget.waiting
        if patience is not None and self._waiting >= WAITING_CALLS and self._waiting_bytes + size > most:
            raise OverloadError(
                f"{self._waiting} calls wait with {self._waiting_bytes} bytes of input; "
                f"{most} bytes may wait for this plugin in one worker"
            )
        begin = time.monotonic()
        self._waiting += 1
        self._waiting_bytes += size
        try:
            await self.places.enter(patience, quick=self.inline)
            try:
                left = None if patience is None else max(0.0, patience - (time.monotonic() - begin))
                await self._budget.enter(self.need, left, self)
            except BaseException:
                self.places.leave()
                self._close_if_done()
                raise
        finally:
            self._waiting -= 1
            self._waiting_bytes -= size

    async def _observe(self, hook: Hook, data: bytes) -> None:
        """Run a call that it only watches. Who must see everything is not passed over because others are busy."""
        road = self.roads[hook]
        try:
            await self._call(road, data, None if self.backlog.waits else self._timeout_ms / 1000)
        except CallError as error:
            if self.before is None or await self.before.ask(self, road, Call(hook, data, b""), error) is error:
                raise

    def _count_dropped(self, hook: Hook, why: str) -> None:
        road = self.roads[hook]
        road.row.count_dropped()
        self._failed(road, 0, OverloadError(why))

    async def ended(self) -> None:
        """Return when it is closed: no bundle holds it, and no call is under way on any thread."""
        await self._closed.wait()

    def hold(self) -> None:
        """One more bundle has this plugin."""
        self._holders += 1

    def release(self) -> None:
        """One bundle less has it, and none of that bundle's calls is under way; after the last, it closes."""
        self._holders -= 1
        self._close_if_done()

    def _execute(self, road: Road, run: _Run, data: bytes) -> None:
        """The call itself, on a thread. Raises nothing."""
        begin, work = time.perf_counter_ns(), time.thread_time_ns()
        instance: Instance | None = None
        try:
            try:
                instance = self._instances.pop()
                run.kept = True
            except IndexError:
                instance = self._guest.instantiate()
            raw = instance.call(road.export, data, last=instance.calls >= self._last_call)
            run.answer = read_answer(road.hook, raw)
        except Exception as error:  # noqa: BLE001 - as in call_now
            run.error = self._as_call_error(road, error)
        if instance is not None:
            self._note_instance(road, instance)
            if run.error is None and instance.calls <= self._last_call:
                run.instance = instance
            else:
                instance.close()
        run.ns = time.perf_counter_ns() - begin
        waited = 0 if instance is None else instance.waited_ns()
        run.work_ns = spent_ns(work_ns=time.thread_time_ns() - work, passed_ns=run.ns, host_ns=waited)

    def _fresh(self) -> Instance:
        """An instance for an inline call that found none ready; a used one goes first, since its memory is warm."""
        if self._used:
            return self._guest.instantiate(instead_of=self._used.pop())
        if self._budget.keep(self.each):
            self._kept += 1
        else:
            self._mark = _LOOK
        return self._guest.instantiate()

    def admit(self) -> None:
        """Be counted from now on: on the event loop, once it is loaded."""
        self._budget.add(self)
        for _ in tuple(self._instances):
            if self._budget.keep(self.each):
                self._kept += 1
            else:
                self._instances.pop().close()

    def shed(self) -> None:
        """Give up the instances that no call uses."""
        for instances in (self._used, self._instances):
            with contextlib.suppress(IndexError):  # a thread may take the last one
                while True:
                    instances.pop().close()
                    self._lost()

    def _lost(self) -> None:
        """An instance that was counted is closed; or one that was not, after an inline call."""
        if self._mark < 0:
            self._mark = self.each
        else:
            self._uncount()

    def _count(self, instance: Instance) -> bool:
        """Whether there is room to keep an instance that has grown, or that is not counted yet; else it is closed."""
        if self._mark < 0 and self._budget.keep(self.each):
            self._mark = self.each
            self._kept += 1
        if self._mark >= 0 and self._grows(instance):
            return True
        instance.close()
        self._lost()
        return False

    def _grows(self, instance: Instance) -> bool:
        """Count as much for each instance as this one has, where there is room for it; whether it is counted for."""
        more = instance.memory - self.each
        if more > 0:
            if not self._budget.keep(more * self._kept):
                return False
            self.each = self._mark = instance.memory
        return True

    def _put_back(self, run: _Run, instance: Instance) -> None:
        """Keep what a call on a thread has left, if there is room."""
        if not run.kept and len(self._instances) < self._keep and self._budget.keep(self.each):
            self._kept += 1
            run.kept = True
        if run.kept and len(self._instances) < self._keep and self._grows(instance):
            self._instances.append(instance)
            return
        instance.close()
        if run.kept:
            self._uncount()

    def _uncount(self) -> None:
        self._kept -= 1
        self._budget.give(self.each)

    def _put_aside(self, instance: Instance) -> None:
        """Used up; it is given back between calls."""
        self._used.append(instance)
        if len(self._used) >= _SPARES:
            if not self._tidying:
                self._tidying = True
                asyncio.get_running_loop().call_soon(self._tidy)
        elif not self._will_tidy:
            self._will_tidy = True
            asyncio.get_running_loop().call_later(_UNTIDY_S, self._tidy_late)

    def _tidy(self) -> None:
        """Between calls: give back what they used, and make ready what the next ones need."""
        self._tidying = False
        used, ready = self._used, self._instances
        lacks = len(used) > 0 and not self._closed.is_set()
        begin = time.thread_time_ns()
        while lacks and len(ready) < self._keep:
            old = used.pop() if used else None
            if old is None:
                if not self._budget.keep(self.each):
                    break
                self._kept += 1
            try:
                ready.append(self._guest.instantiate(timeout_ms=self._timeout_ms, instead_of=old))
            except CallError:  # the call that needs one makes it, fails, and is counted
                self._uncount()
                break
        while used:
            used.pop().close()
            self._uncount()
        if not self._pooled and self.each > self._first:
            more, self.each, self._mark = self.each - self._first, self._first, self._first
            self._budget.give(more * self._kept)  # what is kept is fresh
        if time.thread_time_ns() - begin > _QUICK_NS:
            self._was_slow()

    def _tidy_late(self) -> None:
        """What the last call left is given back also where no other call comes."""
        self._will_tidy = False
        if self._used and not self._tidying:
            self._tidy()

    def _note_instance(self, road: Road, instance: Instance) -> None:
        if instance.memory > road.memory:
            road.memory = instance.memory
            road.row.saw_memory(instance.memory)
        if self._counts_fuel:
            road.row.count_fuel(instance.fuel)

    def _leave(self) -> None:
        self._budget.leave(self.need, self)
        self.places.leave()
        self._close_if_done()

    def _ended(self, road: Road, run: _Run) -> None:
        """A call on a thread is over."""
        if run.instance is not None:
            self._put_back(run, run.instance)
            run.instance = None
        elif run.kept:
            self._uncount()
        if run.work_ns > _QUICK_NS:
            self._was_slow()
        else:
            self._quick_in_a_row += 1
            if self._quick_in_a_row == _FORGIVEN_AFTER:
                self._probation = _PROBATION
            if not self.inline and self._quick_in_a_row >= self._probation:
                self.inline = self._may_run_inline and (self.before is None or self.before.plugin.inline)
        if run.error is None:
            road.row.count(run.ns)
            if road.breaker.failures or self._failing:
                self._recovered(road)
        else:
            self._failed(road, run.ns, run.error)
        self._leave()

    def _weigh(self, ns: int, instance: Instance | None) -> None:
        """Judge an inline call that took that long by the clock: was it its own doing, or did it wait for a core?"""
        if ns > _QUICK_NS and instance is not None and instance.spent_ns() > _QUICK_NS:
            self._was_slow()

    def _was_slow(self) -> None:
        if self.inline:
            self._probation = min(self._probation * 2, _MAX_PROBATION)
        self.inline = False
        self._quick_in_a_row = 0

    def _ask_breaker(self, road: Road) -> None:
        """Raise where the breaker keeps the plugin off the road; without a failure nobody needs to ask it."""
        breaker = road.breaker
        if not breaker.lets_through():
            road.row.count_skipped()
            raise breaker.kind(
                f"plugin '{self.name}' is off the road for another {breaker.open_for:.1f} s "
                f"after {breaker.failures} failures in a row"
            )

    def refuse_size(self, road: Road, size: int) -> OverloadError:
        """Count an input that is larger than it takes; the failure that this is."""
        road.breaker.did_not_run()
        error = OverloadError(f"the input has {size} bytes, and limits.input is {self._max_input}")
        self._failed(road, 0, error)
        return error

    def _as_call_error(self, road: Road, error: Exception) -> CallError:
        if isinstance(error, CallError):
            return error
        # Our own mistake; it fails as the plugin's policy says, and not open.
        log.error(
            "plugin '%s', hook %s: the runtime failed", self.name, road.hook,
            exc_info=traced(error, secrets=self._has_secrets),
        )  # fmt: skip
        return TrapError(f"the runtime failed: {type(error).__name__}")

    def _failed(self, road: Road, ns: int, failure: Exception) -> CallError:
        """Count a call that failed, and tell the breaker."""
        error = self._as_call_error(road, failure)
        road.row.count(ns)
        road.row.count_failure(error.cause)
        breaker = road.breaker
        if isinstance(error, TrapError | DeadlineError):
            if breaker.failed(type(error)):
                log.warning(
                    "plugin '%s', hook %s, is off the road for %.0f s after %d failures in a row: %s",
                    self.name, road.hook, breaker.open_for, breaker.failures,
                    told(error, secrets=self._has_secrets),
                )  # fmt: skip
        elif not isinstance(error, OverloadError):
            breaker.succeeded()
        self._note(road.hook, error)
        return error

    def _recovered(self, road: Road) -> None:
        road.breaker.succeeded()
        self._failing = False

    def _note(self, hook: Hook, error: CallError) -> None:
        message = told(error, secrets=self._has_secrets)
        self.last_failure = LastFailure(hook=hook.value, cause=error.cause, message=message, at=time.time())
        self.last_failures[hook] = self.last_failure
        if not isinstance(error, OverloadError):
            self.last_fault = self.last_failure
        # Once per change of state, and never faster than a person reads: one call in two may fail.
        now = time.monotonic()
        if not self._failing and now - self._logged_at >= _LOG_PAUSE_S:
            self._logged_at = now
            log.warning("plugin '%s', hook %s failed (%s): %s", self.name, hook, error.cause, message)
        self._failing = True

    def _close_if_done(self) -> None:
        if self._holders > 0 or self.places.running or self.backlog.running:
            return
        self._closed.set()
        self.prove()
        self.places.close()
        self.backlog.close()
        for instances in (self._instances, self._used):
            while instances:
                instances.pop().close()
        self._budget.give(self._kept * self.each)
        self._kept = 0
        self._budget.remove(self)
        self._guest.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False)
