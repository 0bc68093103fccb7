"""Calls that do not run on the event loop as a whole: on a thread of the plugin's, or in steps (``waits.py``).

A plugin has its threads for itself, so it can take nobody else's. All of this belongs to one event loop; ``_execute``
alone runs on a thread.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, cast

from hookline_runtime.errors import CallError, DeadlineError
from hookline_runtime.guest.border import spent_ns
from hookline_runtime.guest.waiting import THREAD, Waiter
from hookline_runtime.plugin.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_api.bundle import BundlePlugin
    from hookline_runtime.call.decisions import Answer
    from hookline_runtime.guest.calls import Guest, Instance
    from hookline_runtime.guest.fibers import Instance as FiberInstance
    from hookline_runtime.plugin.hook import PluginHook
    from hookline_runtime.plugin.instances import Instances
    from hookline_runtime.plugin.permits import Permits
    from hookline_runtime.plugin.waits import Steps

MAX_THREADS: Final = 16
"""More calls at a time than there are threads would wait where no deadline sees them."""
_MAX_WAITING_THREADS: Final = 64
"""The same of a guest whose calls block threads while they wait for somebody else."""

_now_ns: Final = time.perf_counter_ns


class Run:
    """One such call, and what it came to."""

    __slots__ = ("answer", "cancelled", "error", "fuel", "instance", "kept", "memory", "ns", "waiter", "work_ns")

    def __init__(self) -> None:
        self.instance: Instance | None = None
        """What it ran in; None where nothing else may."""
        self.kept = False
        """Whether that was kept from a call before, and so is counted already."""
        self.answer: Answer | None = None
        self.error: CallError | None = None
        self.cancelled = False
        """Whether nobody wants the answer any more."""
        self.waiter: Waiter | None = None
        """What its guest waits by, where it blocks its thread."""
        self.ns = 0
        self.work_ns = 0
        """Processor time, and what it waited for in host functions: waiting for a core is not the plugin's doing."""
        self.memory = self.fuel = 0
        """Bytes that its guest had at last, and the fuel that it took."""


class Runs:
    """How one plugin's calls run elsewhere.

    ``as_call_error`` says what any exception means; ``ended`` is called on the event loop at the end of each call.
    """

    def __init__(
        self,
        entry: BundlePlugin,
        guest: Guest,
        *,
        instances: Instances,
        permits: Permits,
        as_call_error: Callable[[PluginHook, Exception], CallError],
        ended: Callable[[PluginHook, Run], None],
    ) -> None:
        self._name = entry.name
        self.waits = Waits(entry.limits.wait) if guest.waits else None
        """Where the guest may wait for somebody else."""
        self.steps = guest.waits and guest.on_fibers
        """Whether its calls go in steps."""
        if guest.waits:
            permits.allow(entry.limits.concurrency if guest.on_fibers else _MAX_WAITING_THREADS)
        self._permits = permits
        self._instances = instances
        self._last_call = instances.last_call
        self._as_call_error = as_call_error
        self._ended = ended
        self._threads: ThreadPoolExecutor | None = None

    async def go(self, hook: PluginHook, run: Run, data: bytes, *, on_loop: bool) -> None:
        """One call; where it goes in steps, they are made on the event loop or on threads.

        Raises RuntimeError where the process has no thread left to give; then nothing has begun.
        """
        if self.steps:
            await self._go_in_steps(hook, run, data, on_loop=on_loop)
        else:
            await self._go_on_thread(hook, run, data)

    def close(self) -> None:
        """Give the threads back, and let go of the plugin, which holds this."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
        del self._as_call_error, self._ended

    async def _go_on_thread(self, hook: PluginHook, run: Run, data: bytes) -> None:
        if self.waits is not None:
            run.waiter = self.waits.waiter()
        future = asyncio.get_running_loop().run_in_executor(self._executor(), self._execute, hook, run, data)
        # The call ends when the thread does, also where nobody waits for the answer any more.
        future.add_done_callback(lambda _: self._ended(hook, run))
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            if run.waiter is not None:
                run.cancelled = True
                run.waiter.end(DeadlineError("nobody waits for the answer any more"))
            raise

    async def _go_in_steps(self, hook: PluginHook, run: Run, data: bytes, *, on_loop: bool) -> None:
        waits, executor = self.waits, None if on_loop else self._executor()
        assert waits is not None  # noqa: S101 - it has steps
        begin = _now_ns()

        def first() -> Steps:
            run.instance, run.kept = self._instances.take()
            last = run.instance.calls >= self._last_call
            return cast("FiberInstance", run.instance).steps(hook.export, data, last=last)

        try:
            run.answer = hook.read(await waits.drive(first, executor))
        except asyncio.CancelledError:
            run.cancelled = True
            raise
        except Exception as error:  # noqa: BLE001 - of the guest, or our own mistake: it is an answer either way
            run.error = self._as_call_error(hook, error)
        finally:
            run.ns = _now_ns() - begin
            run.work_ns = 0 if run.instance is None else run.instance.spent_ns()
            self._put_away(run)
            self._ended(hook, run)

    def _execute(self, hook: PluginHook, run: Run, data: bytes) -> None:
        """The call itself, on a thread. Raises nothing."""
        begin, work = _now_ns(), time.thread_time_ns()
        THREAD.waiter = waiter = run.waiter
        try:
            run.instance, run.kept = self._instances.take()
            raw = run.instance.call(hook.export, data, last=run.instance.calls >= self._last_call)
            run.answer = hook.read_anew(raw)
        except Exception as error:  # noqa: BLE001 - as above
            run.error = self._as_call_error(hook, error)
        finally:
            THREAD.waiter = None
        if waiter is not None and waiter.error is not None:
            run.error = waiter.error  # whatever the guest made of it
        run.ns = _now_ns() - begin
        host_ns = 0 if run.instance is None else run.instance.waited_ns()
        passed = run.ns - (0 if waiter is None else waiter.waited_ns)
        run.work_ns = spent_ns(work_ns=time.thread_time_ns() - work, passed_ns=passed, host_ns=host_ns)
        self._put_away(run)

    def _executor(self) -> ThreadPoolExecutor:
        if self._threads is None:
            blocks = self.waits is not None and not self.steps  # a step waits for nobody
            most = min(self._permits.most, _MAX_WAITING_THREADS if blocks else MAX_THREADS)
            self._threads = ThreadPoolExecutor(most, thread_name_prefix=f"plugin-{self._name}")
        return self._threads

    def _put_away(self, run: Run) -> None:
        """Close what a call ran in, where nothing else may."""
        instance = run.instance
        if instance is not None:
            run.memory, run.fuel = instance.memory, instance.fuel
            if run.error is not None:
                instance.tell(run.error)
            if run.error is not None or run.cancelled or instance.calls > self._last_call:
                instance.close()
                run.instance = None
