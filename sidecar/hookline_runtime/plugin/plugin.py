"""One loaded plugin: its instances, its limits, its circuit breaker, and where its calls run.

A call runs inline on the event loop while the plugin is quick, because a thread costs eleven times a quick call.
A plugin is on probation first, on threads of its own: only after some quick calls in a row it runs inline, and
one slow call sends it back for twice as long. So an endless loop holds the event loop once at the most, for one
time-out, and a plugin that is slow raises nobody else's p99.

While it is inline a call is plain, synchronous code, from ``get_ready`` to ``call_now``. What a fresh instance costs is
paid between calls: after an answer, what it used is given back and the next instance is made ready.

All of this class belongs to one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hookline_runtime.call.inputs import Call
from hookline_runtime.errors import CallError, DeadlineError, OverloadError, TrapError, failure_sentence, without_words
from hookline_runtime.plugin.backlog import Backlog
from hookline_runtime.plugin.budget import WAITING_CALLS, Budget, need
from hookline_runtime.plugin.hook import PluginHook
from hookline_runtime.plugin.instances import Instances
from hookline_runtime.plugin.permits import Permits
from hookline_runtime.plugin.runs import MAX_THREADS, Run, Runs

if TYPE_CHECKING:
    from hookline_api.bundle import BundlePlugin, CallCause
    from hookline_api.hooks import Hook
    from hookline_runtime.call.decisions import Answer
    from hookline_runtime.guest.calls import Guest, Instance
    from hookline_runtime.host.functions import PluginHost
    from hookline_runtime.plugin.probation import Before
    from hookline_runtime.plugin.stats import Row

_QUICK_NS: Final = 2_000_000
"""A call that takes longer runs on a thread."""
_MAX_INLINE_MS: Final = 1_000
"""A plugin that may take longer than this stays on threads, however quick it is."""
_PROBATION: Final = 8
_MAX_PROBATION: Final = 4096
_FORGIVEN_AFTER: Final = 10_000
"""Quick calls in a row after which the probation is short again."""
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
    line: str | None = None
    """The last line that the guest logged in that call; None where it logged none, or has values of Secrets."""
    backtrace: tuple[str, ...] = ()
    """The guest's functions that were under way, the innermost first; none where it has values of Secrets."""


class Plugin:
    """One plugin of one bundle in this process."""

    inline = False
    """Whether calls run on the event loop as a whole."""
    before: Before[Plugin] | None = None
    """What answers the calls that this one fails on, while it is on probation."""
    last_failure: LastFailure | None = None
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
        permits: Permits | None = None,
        budget: Budget | None = None,
        number: int = 0,
    ) -> None:
        self.entry = entry
        self.number = number
        """Of its rows in the statistics."""
        self.name = entry.name
        self.revision = entry.revision
        self.host = host
        self.hooks = {name: PluginHook(name, rows[name]) for name in entry.hooks}
        self.last_failures: dict[Hook, LastFailure] = {}
        self._timeout_ms = entry.limits.timeout
        self._may_run_inline = self._timeout_ms <= _MAX_INLINE_MS
        self._steps_inline = False
        self._has_secrets = entry.has_secrets
        self._counts_fuel = entry.limits.fuel is not None
        self._max_input = entry.limits.input
        self.need = need(entry)
        """Bytes that one of its calls may have at the most."""
        self._room = self.need
        """… or of the version before it, if that is asked in its place."""
        self._budget = budget or Budget()
        self._instances = Instances(entry, guest, self._budget, spare=spare, tidied=self._weigh_work)
        self._ready, self._last_call = self._instances.ready, self._instances.last_call
        self._waiting = self._waiting_bytes = 0
        """Calls that wait for room, and their inputs."""
        self.permits = permits or Permits(entry.limits.concurrency, most=MAX_THREADS)
        self._runs = Runs(
            entry,
            guest,
            instances=self._instances,
            permits=self.permits,
            as_call_error=self._as_call_error,
            ended=self._end_run,
        )
        """Where its calls run that do not run inline. Those that go in steps do so as ``_steps_inline`` says."""
        self.backlog = Backlog(
            waits=entry.observers.overflow == "Wait",
            run=self._observe,
            dropped=self._count_dropped,
            waited=lambda name, ns: self.hooks[name].row.count_waited(ns),
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
    def each(self) -> int:
        """Bytes that each instance that is kept counts for."""
        return self._instances.each

    @property
    def waits(self) -> bool:
        """Whether its guest may wait for somebody else."""
        return self._runs.waits is not None

    @property
    def on_loop(self) -> bool:
        """Whether its calls run on the event loop, as far as they do not wait."""
        return self.inline or self._steps_inline

    def end_waits(self, when: float) -> None:
        """Let no call of its wait beyond that moment of the event loop's clock: the process ends."""
        if self._runs.waits is not None:
            self._runs.waits.end_by(when)

    @property
    def closed(self) -> bool:
        """Whether everything it held is given back."""
        return self._closed.is_set()

    def trust(self) -> None:
        """Run inline from the first call on: the version before this one did.

        On probation it could take fewer calls at a time than that one did, and calls would fail because of a
        change. It costs one time-out of the event loop at the most.
        """
        if self._runs.steps:
            self._steps_inline = self._may_run_inline
        elif not self.waits:
            self.inline = self._may_run_inline

    def put_on_probation(self, before: Before[Plugin]) -> None:
        """Have that version answer what this one fails on, until this one has proven itself (``prove``).

        It is never on the event loop while the other is not: where its call fails there, the other's runs there too.
        """
        self.prove()
        self.before = before
        self._room = max(self.need, before.plugin.need)
        self.inline = self.inline and before.plugin.inline

    def count_as(self, *, current: bool) -> None:
        """Count its calls as those of the version that runs, or apart, as those of one that was replaced."""
        for hook in self.hooks.values():
            hook.row = hook.row.timely() if current else hook.row.late()

    def prove(self) -> None:
        """End its probation, and let go of the version before it."""
        before, self.before, self._room = self.before, None, self.need
        if before is not None:
            before.end()

    def get_ready(self) -> bool:
        """Get what a call needs to run now, on this thread, or nothing; whether it can run."""
        permits = self.permits
        return self.inline and self._budget.free >= self._room and (permits.running < permits.held or permits.get())

    def call_now(self, hook: PluginHook, data: bytes) -> Answer | None:
        """One call on this thread, after ``get_ready``: the guest's answer, or None where it has no opinion.

        Raises CallError, already counted.
        """
        failing = hook.breaker.failures
        if failing:
            self._ask_breaker(hook)
        if len(data) > self._max_input:
            raise self.refuse_size(hook, len(data))
        instance, ready, known = None, self._ready, hook.known
        begin = _now_ns()
        try:
            instance = ready.pop() if ready else self._instances.make()
            last = instance.calls >= self._last_call
            raw = instance.call(hook.export, data, last=last)
            answer = known[raw] if raw in known else hook.read(raw)
            ns = _now_ns() - begin
            hook.row.count(ns)
        except Exception as failure:  # noqa: BLE001 - of the guest, or our own mistake: it is an answer either way
            ns = _now_ns() - begin
            error = self._count_failure(hook, ns, failure, instance)
            self._weigh(0 if instance is None else ns, instance)
            if instance is not None:
                self._note_use(hook, instance)
                instance.close()
            self._instances.lose()
            try:
                if error is failure:
                    raise
                raise error from failure
            finally:
                del error  # an error that its own traceback leads to would keep the input until the collector comes
        if failing or self._failing:
            self._recover(hook)
        if ns > _QUICK_NS:
            self._weigh(ns, instance)
        elif self._probation != _PROBATION:
            self._quick_in_a_row += 1
            if self._quick_in_a_row == _FORGIVEN_AFTER:
                self._probation = _PROBATION
        if instance.memory != hook.memory or self._counts_fuel:
            self._note_use(hook, instance)
        if instance.memory > self._instances.mark and not self._instances.recount(instance):
            return answer
        if last:
            self._instances.put_aside(instance)
        else:
            ready.append(instance)  # there is room: it came from here
        return answer

    async def call(self, hook: Hook, data: bytes) -> Answer | None:
        """One call, inline or on a thread, once there is room for it. As ``call_now`` otherwise."""
        return await self.call_on(self.hooks[hook], data)

    async def call_on(self, hook: PluginHook, data: bytes) -> Answer | None:
        """``call``, counted elsewhere."""
        return await self._call(hook, data, self._timeout_ms / 1000)

    async def _call(self, hook: PluginHook, data: bytes, patience: float | None) -> Answer | None:
        """``call``; it waits so many seconds for room, None for as long as it takes."""
        if self.get_ready():
            return self.call_now(hook, data)
        if hook.breaker.failures:
            self._ask_breaker(hook)
        if len(data) > self._max_input:
            raise self.refuse_size(hook, len(data))
        try:
            await self._enter(patience, len(data))
        except BaseException as error:
            hook.breaker.forget_call()
            if isinstance(error, OverloadError):
                self._count_failure(hook, 0, error)
            raise
        if self.inline:  # it waited for a permit, and not for a thread
            hook.breaker.forget_call()  # a trial is asked for again
            try:
                return self.call_now(hook, data)
            finally:
                self._leave()
        run = Run()
        try:
            await self._runs.go(hook, run, data, on_loop=self._steps_inline)
        except RuntimeError as error:  # the process has no thread left to give
            run.error = OverloadError(f"no thread for the call: {error}")
            self._end_run(hook, run)
        if run.error is not None:
            try:
                raise run.error
            finally:
                run.error = None  # as in call_now
        return run.answer

    async def _enter(self, patience: float | None, size: int) -> None:
        """Take a permit and memory for a call of so many bytes, within so many seconds. Raises OverloadError."""
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
            await self.permits.enter(patience, quick=self.inline)
            try:
                left = None if patience is None else max(0.0, patience - (time.monotonic() - begin))
                await self._budget.enter(self.need, left, self)
            except BaseException:
                self.permits.leave()
                self._close_if_done()
                raise
        finally:
            self._waiting -= 1
            self._waiting_bytes -= size

    async def _observe(self, name: Hook, data: bytes) -> None:
        """Run a call that it only watches. Who must see everything is not passed over because others are busy."""
        hook = self.hooks[name]
        try:
            await self._call(hook, data, None if self.backlog.waits else self._timeout_ms / 1000)
        except CallError as error:
            if self.before is None or await self.before.ask(self, hook, Call(name, data, b""), error) is error:
                raise

    def _count_dropped(self, name: Hook, why: str) -> None:
        hook = self.hooks[name]
        hook.row.count_dropped()
        self._count_failure(hook, 0, OverloadError(why))

    async def ended(self) -> None:
        """Wait until it is closed: no bundle holds it, and its last call is over."""
        await self._closed.wait()

    def hold(self) -> None:
        """One more bundle has this plugin."""
        self._holders += 1

    def release(self) -> None:
        """One bundle less has it, and none of that bundle's calls is under way; after the last, it closes."""
        self._holders -= 1
        self._close_if_done()

    def _note_use(self, hook: PluginHook, used: Instance | Run) -> None:
        if used.memory > hook.memory:
            hook.memory = used.memory
            hook.row.saw_memory(used.memory)
        if self._counts_fuel:
            hook.row.count_fuel(used.fuel)

    def admit(self) -> None:
        """Be counted from now on: on the event loop, once it is loaded."""
        self._budget.add(self)
        self._instances.admit()

    def shed(self) -> None:
        """Give up the instances that no call uses."""
        self._instances.shed()

    def _leave(self) -> None:
        self._budget.leave(self.need, self)
        self.permits.leave()
        self._close_if_done()

    def _end_run(self, hook: PluginHook, run: Run) -> None:
        """A call that ran elsewhere is over."""
        self._note_use(hook, run)
        self._instances.give_back(run.instance, counted=run.kept)
        run.instance = None
        if run.work_ns > _QUICK_NS:
            self._send_to_threads()
        else:
            self._quick_in_a_row += 1
            if self._quick_in_a_row == _FORGIVEN_AFTER:
                self._probation = _PROBATION
            if self._quick_in_a_row >= self._probation:
                if self._runs.steps:
                    self._steps_inline = self._may_run_inline
                elif not self.inline and not self.waits:
                    self.inline = self._may_run_inline and (self.before is None or self.before.plugin.inline)
        if run.cancelled:
            hook.breaker.forget_call()
            hook.row.count_cancelled(run.ns)
        elif run.error is None:
            hook.row.count(run.ns)
            if hook.breaker.failures or self._failing:
                self._recover(hook)
        else:
            self._count_failure(hook, run.ns, run.error)
        self._leave()

    def _weigh(self, ns: int, instance: Instance | None) -> None:
        """Judge an inline call that took that long by the clock: was it its own doing, or did it wait for a core?"""
        if ns > _QUICK_NS and instance is not None and instance.spent_ns() > _QUICK_NS:
            self._send_to_threads()

    def _weigh_work(self, ns: int) -> None:
        """Judge so much processor time."""
        if ns > _QUICK_NS:
            self._send_to_threads()

    def _send_to_threads(self) -> None:
        if self.on_loop:
            self._probation = min(self._probation * 2, _MAX_PROBATION)
        self.inline = self._steps_inline = False
        self._quick_in_a_row = 0

    def _ask_breaker(self, hook: PluginHook) -> None:
        """Raise while the breaker pauses the hook. Without a failure nobody needs to ask it."""
        breaker = hook.breaker
        if not breaker.let_through():
            hook.row.count_skipped()
            raise breaker.kind(
                f"plugin '{self.name}' is paused for another {breaker.open_for:.1f} s "
                f"after {breaker.failures} failures in a row"
            )

    def refuse_size(self, hook: PluginHook, size: int) -> OverloadError:
        """Count an input that is larger than it takes; the failure that this is."""
        hook.breaker.forget_call()
        error = OverloadError(f"the input has {size} bytes, and limits.input is {self._max_input}")
        self._count_failure(hook, 0, error)
        return error

    def _as_call_error(self, hook: PluginHook, error: Exception) -> CallError:
        if isinstance(error, CallError):
            return error
        # Our own mistake; it fails as the plugin's policy says, and not open.
        log.error(
            "plugin '%s', hook %s: the runtime failed", self.name, hook.name,
            exc_info=without_words(error, secrets=self._has_secrets),
        )  # fmt: skip
        return TrapError(f"the runtime failed: {type(error).__name__}")

    def _count_failure(
        self, hook: PluginHook, ns: int, failure: Exception, instance: Instance | None = None
    ) -> CallError:
        """Count a call that failed in that instance, and tell the breaker."""
        error = self._as_call_error(hook, failure)
        if instance is not None:
            instance.tell(error)
        hook.row.count(ns)
        hook.row.count_failure(error.cause)
        breaker = hook.breaker
        if isinstance(error, TrapError | DeadlineError):
            if breaker.count_failure(type(error)):
                log.warning(
                    "plugin '%s', hook %s, is paused for %.0f s after %d failures in a row: %s",
                    self.name, hook.name, breaker.open_for, breaker.failures,
                    failure_sentence(error, secrets=self._has_secrets),
                )  # fmt: skip
        elif not isinstance(error, OverloadError):
            breaker.count_success()
        self._note(hook.name, error)
        return error

    def _recover(self, hook: PluginHook) -> None:
        hook.breaker.count_success()
        self._failing = False

    def _note(self, hook: Hook, error: CallError) -> None:
        message = failure_sentence(error, secrets=self._has_secrets)
        hides = self._has_secrets
        self.last_failure = LastFailure(
            hook=hook.value,
            cause=error.cause,
            message=message,
            at=time.time(),
            line=None if hides else error.line,
            backtrace=() if hides else error.backtrace,
        )
        self.last_failures[hook] = self.last_failure
        if not isinstance(error, OverloadError):
            self.last_fault = self.last_failure
        # Once per change of state, and never faster than a person reads: one call in two may fail.
        now = time.monotonic()
        if not self._failing and now - self._logged_at >= _LOG_PAUSE_S:
            self._logged_at = now
            where = f", in {' < '.join(error.backtrace)}" if error.backtrace else ""
            log.warning("plugin '%s', hook %s failed (%s): %s%s", self.name, hook, error.cause, message, where)
        self._failing = True

    def _close_if_done(self) -> None:
        if self._holders > 0 or self.permits.running or self.backlog.running:
            return
        self._closed.set()
        self.prove()
        self.permits.close()
        self.backlog.close()
        self._instances.close()
        self._budget.remove(self)
        self._instances.guest.close()
        self.host.close()
        self._runs.close()
