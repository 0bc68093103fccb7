"""Threads for what strangers sent: unpacking, hashing, inspecting. Few, of their own, and shared out.

The event loop's default executor looks up names and reads tokens; what works on an artifact never takes its threads, so
a hostile one can delay others of its kind and nothing else. A *share* (the namespace whose plugin it is) has half of
the threads at the most, and what waits is bounded too. Names of hosts are looked up on other threads (``look_up``),
where a silent name server keeps no artifact waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import Counter, OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from hookline_artifacts.errors import FetchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THREADS: Final = 4
"""Of a process. Python runs one at a time; what hashes, unpacks or reads a disk lets others run meanwhile."""
OF_ONE_SHARE: Final = 2
"""Threads that work for one share at a time."""
LOOKUPS: Final = 8
"""Threads that look up names. They only wait, but the C library opens a socket in each."""
MAX_WAITING: Final = 4096
"""Jobs of a process that wait or run, of each kind; a resource has one at a time. Half of that may wait for one share:
a lookup that was given up stays until its turn comes."""

_AT_ONCE: Final = 16 * 1024
"""Bytes of JSON that are parsed at once: half a millisecond at the most."""

P = ParamSpec("P")
T = TypeVar("T")

_share: ContextVar[str] = ContextVar("share", default="")


class _Pool:
    """The threads, and who waits for one. Of any number of event loops."""

    def __init__(self, threads: int = THREADS, of_one_share: int = OF_ONE_SHARE, name: str = "artifacts") -> None:
        self._most = threads
        self._of_one_share = of_one_share
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = OrderedDict()
        """By share; who was served last stands last."""
        self._jobs = 0

    def submit(self, share: str, work: Callable[[], T]) -> Future[T]:
        """Have it done when there is a thread. Raises FetchError where too much waits already."""
        done: Future[T] = Future()
        with self._lock:
            if self._jobs >= MAX_WAITING or len(self._waiting.get(share, ())) >= max(MAX_WAITING // 2, 1):
                raise FetchError("too many artifacts are being looked into at the moment; it is tried again")
            self._jobs += 1
            self._waiting.setdefault(share, deque()).append((done, work))
            self._start()
        return done

    def _start(self) -> None:
        """Give threads to who waits and may have one. Called with the lock held."""
        while self._running.total() < self._most:
            share = next((each for each in self._waiting if self._running[each] < self._of_one_share), None)
            if share is None:
                return
            jobs = self._waiting[share]
            done, work = jobs.popleft()
            if jobs:
                self._waiting.move_to_end(share)
            else:
                del self._waiting[share]
            self._running[share] += 1
            self._threads.submit(self._run, share, done, work)

    def _run(self, share: str, done: Future[Any], work: Callable[[], Any]) -> None:
        try:
            if done.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:  # noqa: BLE001 - whoever waits gets it
                    done.set_exception(error)
                else:
                    done.set_result(result)
        finally:
            with self._lock:
                self._jobs -= 1
                self._running[share] -= 1
                if not self._running[share]:
                    del self._running[share]
                self._start()


_pool: _Pool | None = None
_lookups: _Pool | None = None
_making: Final = threading.Lock()


def _forget() -> None:
    """In a process that was forked: its parent's threads are not there."""
    global _pool, _lookups  # noqa: PLW0603 - one for each process
    _pool = _lookups = None


os.register_at_fork(after_in_child=_forget)


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function gives that blocks, on a thread for artifacts. Raises FetchError where too much waits already."""
    global _pool  # noqa: PLW0603
    with _making:
        if _pool is None:
            _pool = _Pool()
        pool = _pool
    return await asyncio.wrap_future(pool.submit(_share.get(), partial(function, *args, **kwargs)))


async def in_thread_if_large(function: Callable[[bytes], T], data: bytes) -> T:
    """What a function makes of a document: on a thread, unless it is done sooner than one begins.

    A manifest may have megabytes, and to parse them takes a tenth of a second in which nobody else's turn comes.
    """
    return function(data) if len(data) <= _AT_ONCE else await in_thread(function, data)


async def look_up(function: Callable[[], T]) -> T:
    """What a function gives that waits for a name server. Raises FetchError where too much waits already."""
    global _lookups  # noqa: PLW0603
    with _making:
        if _lookups is None:
            _lookups = _Pool(LOOKUPS, LOOKUPS // 2, "names")
        pool = _lookups
    return await asyncio.wrap_future(pool.submit(_share.get(), function))


@contextlib.contextmanager
def on_behalf_of(share: str) -> Iterator[None]:
    """Count what is done meanwhile, in this task and in those that it starts, as this share's."""
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)


def open_at_once(path: str, flags: int) -> int:
    """An ``opener`` that does not wait for ever at a pipe that nobody writes to."""
    return os.open(path, flags | os.O_NONBLOCK)
