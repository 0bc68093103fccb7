"""A data source in PostgreSQL: its connections, and whether it can be reached.

A pod has ``poolSize`` connections to it, however many workers it has: they are divided among the workers, and where
there are fewer than workers, each is opened for one query by whoever has one of the pod's numbers (``ByteLocks``).

A source that cannot be reached costs no call its time: one connection is tried at growing pauses, beside all calls, and
until it is there each call is told at once. Where the server only takes no new connection, those that are open go on,
and calls wait for one of them. A call that is cancelled leaves at once too. What it asked is cancelled at
the server behind its back, then the connection is closed, and only then counts as free.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import socket
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import psycopg
from psycopg_pool import AsyncConnectionPool, AsyncNullConnectionPool, PoolTimeout

from hookline_runtime.host.backends.lookups import NeverAskedError, addresses
from hookline_runtime.host.backends.postgres_connection import CONNECT_S, Conninfo
from hookline_runtime.host.backends.postgres_statement import Broken, Caps, describe, execute
from hookline_runtime.host.backends.postgres_wire import Wire
from hookline_runtime.host.byte_locks import ByteLocks
from hookline_runtime.host.query_errors import QueryError

if TYPE_CHECKING:
    from pathlib import Path

    from psycopg.pq.abc import PGconn

    from hookline_api.outbound import PostgresSource

CANCEL_S: Final = 2.0
"""For the server to hear that a query is cancelled; the connection counts as used until then."""
_GRACE_S: Final = 1.0
"""How much longer than ``statementTimeout`` we wait for a server that does not keep it."""
_PAUSE_FIRST_S: Final = 0.2
_PAUSE_LAST_S: Final = 10.0
_POLL_S: Final = 0.005
"""How often who needs one of the pod's connections looks for it."""
_NO_CONNECTION: Final = "08001"
"""SQLSTATE sqlclient_unable_to_establish_sqlconnection."""
_IDLE_S: Final = 600.0

_Ask = Callable[["PGconn", Wire], Awaitable[tuple[bytes, bool]]]

log = logging.getLogger("hookline.host")
# It warns of each attempt, with the server's words. What matters of that is said here, once.
logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What this process has of a pod's connections: so many, or as many as others have not (``locks``)."""

    size: int
    locks: Path | None = None
    key: str = ""
    """Whoever has the same key shares them."""

    @classmethod
    def of(cls, pool_size: int, *, worker: int, workers: int, locks: Path | None, key: str) -> Share:
        """The part of one of ``workers``, numbered from 0; without ``locks`` nothing is left to be shared by them."""
        if pool_size < workers and locks is not None:
            return cls(size=pool_size, locks=locks, key=key)
        return cls(size=max(1, pool_size // workers + (worker < pool_size % workers)))


class Connection(psycopg.AsyncConnection[Any]):
    """A connection whose bytes go through our hands."""

    source: ClassVar[Postgres]
    wire: Wire

    @classmethod
    async def connect(cls, conninfo: str = "", **_: Any) -> Any:  # noqa: ARG003
        """As the source is asked; a pool knows nothing of it."""
        return await cls.source.connect(cls.made)

    @classmethod
    async def made(cls, **given: Any) -> Self:
        """By psycopg. Raises psycopg.Error."""
        return await super().connect(**given)

    async def close(self) -> None:
        """At once."""
        self.end()

    def end(self) -> None:
        """Close it, and what stands between libpq and the server."""
        self.wire.close()


class Postgres:
    """One data source of one plugin in this process.

    ``patience`` is how long, in seconds, a call waits for a connection; ``owner`` is the plugin, by its full name.
    ``unavailable`` is where others read whether the source can be reached, under ``title``. ``hide`` takes the values
    of Secrets out of a text.
    """

    def __init__(
        self,
        source: PostgresSource,
        conninfo: Conninfo,
        share: Share,
        *,
        owner: str,
        title: str,
        patience: float,
        unavailable: dict[str, str],
        hide: Callable[[str], str],
    ) -> None:
        self._source = source
        self._conninfo = conninfo
        self._share = share
        self._owner = owner
        self._title = title
        self._patience = patience
        self._unavailable = unavailable
        self._hide = hide
        self._read_only = source.access == "ReadOnly"
        self._caps = Caps(rows=source.max_rows, size=source.max_bytes)
        self._statement_s = source.statement_timeout / 1000 + _GRACE_S
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._kind: type[Connection] = type("Connection", (Connection,), {"source": self})
        self._slots = asyncio.Semaphore(share.size)
        self._down: QueryError | None = None
        self._fell = asyncio.Event()
        """Set while it is down."""
        self._numbers = None if share.locks is None else ByteLocks(share.locks, share.key, share.size, first=0)
        self._live: set[Connection] = set()
        self._taken: set[Connection] = set()
        """Those that calls have, or that are being ended."""
        self._probing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def used(self) -> int:
        """Connections that calls have, or that are being closed."""
        return self._share.size - self._slots._value  # noqa: SLF001 - a semaphore says no more of itself

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return sum(not each.closed for each in self._live)

    @property
    def _lost(self) -> QueryError | None:
        """Why nothing can be asked; None where it can."""
        return None if self.connections else self._down

    async def execute(self, sql: str, parameters: Sequence[bytes | None]) -> bytes:
        """A statement's result as JSON. Raises QueryError."""
        data = sql.encode()
        return await self._ask(
            lambda libpq, wire: execute(libpq, wire, data, parameters, read_only=self._read_only, caps=self._caps)
        )

    async def describe(self, sql: str) -> bytes:
        """A statement's parameters and columns as JSON. Raises QueryError."""
        data = sql.encode()
        return await self._ask(lambda connection, wire: describe(connection, wire, data, caps=self._caps))

    def close(self) -> None:
        """No call will come: close all connections, now."""
        self._closed = True
        self._unavailable.pop(self._title, None)
        if self._probing is not None:
            self._probing.cancel()
        for each in self._live - self._taken:
            each.end()
        if self._pool is None and not self._tasks:
            self._give_back()
            return
        task = asyncio.get_running_loop().create_task(self._close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    async def _close(self) -> None:
        """The rest of it: queries that were left behind are ended at the server first."""
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._pool is not None:
                await self._pool.close(timeout=CANCEL_S)
        finally:
            self._give_back()

    def _give_back(self) -> None:
        for each in self._live:
            each.end()
        self._conninfo.close()
        if self._numbers is not None:
            self._numbers.close()

    async def _ask(self, ask: _Ask) -> bytes:
        for _ in range(self._share.size + 1):
            connection = await self._take()
            self._taken.add(connection)
            try:
                if connection.closed or not connection.wire.is_idle():  # the server ended it while nobody looked
                    self._end(connection, cancel=False)
                    continue
                async with asyncio.timeout(self._statement_s):
                    answer, is_tidy = await ask(connection.pgconn, connection.wire)
            except QueryError:
                self._give(connection)
                raise
            except Broken as broken:
                self._end(connection, cancel=not broken.unanswered)
                if broken.unanswered and self._read_only:
                    continue
                raise broken.error from None
            except TimeoutError:
                self._end(connection)
                raise QueryError("timeout", "the server did not end the statement in time", "57014") from None
            except BaseException:
                self._end(connection)
                raise
            if is_tidy:
                self._give(connection)
            else:
                self._end(connection, cancel=False)
            return answer
        raise QueryError("failed", "the server ends each connection", "08006")

    async def _take(self) -> Connection:
        """A connection, within ``patience``. Raises QueryError."""
        if self._closed:
            raise QueryError("failed", "the plugin is being closed")
        if (lost := self._lost) is not None:
            raise lost
        if self._slots.locked() or self._numbers is not None:
            await self._wait_for_slot()
        else:
            await self._slots.acquire()  # at once
        try:
            pool = self._pool or await self._opened()
            if self.connections >= self.used:  # one of them is idle
                return await pool.getconn(timeout=self._patience)
            return await self._connected(pool)
        except psycopg.Error as error:
            self._release()
            raise self._failed(error) from None
        except BaseException:
            self._release()
            raise

    async def _wait_for_slot(self) -> None:
        """Take one of this process's connections to be, and of the pod's where these are fewer. Raises QueryError."""
        try:
            async with asyncio.timeout(self._patience):
                await self._slots.acquire()
                try:
                    # No bell tells of a process that died.
                    while self._numbers is not None and not self._numbers.take():  # noqa: ASYNC110
                        await asyncio.sleep(_POLL_S)
                except BaseException:
                    self._slots.release()
                    raise
        except TimeoutError:
            said = f"all {self._source.pool_size} connections of the data source are used"
            raise QueryError("limit", said) from None

    def _release(self) -> None:
        if self._numbers is not None and not self._closed:
            self._numbers.give()
        self._slots.release()

    async def _connected(self, pool: AsyncConnectionPool[Connection]) -> Connection:
        """A new connection, or one that is given back. Raises psycopg.Error, and QueryError where the source falls."""
        getting = asyncio.create_task(pool.getconn(timeout=self._patience))
        falling = asyncio.create_task(self._fell.wait())
        try:
            await asyncio.wait({getting, falling}, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                raise self._down or QueryError("failed", f"{self._where} does not answer", _NO_CONNECTION)
            return getting.result()
        finally:
            falling.cancel()
            if not getting.done():
                getting.cancel()
                getting.add_done_callback(self._give_late)

    def _give_late(self, getting: asyncio.Task[Connection]) -> None:
        """It came for somebody who is gone."""
        if not getting.cancelled() and getting.exception() is None:
            self._spawn(self._pool_put(getting.result()))

    def _failed(self, error: psycopg.Error) -> QueryError:
        if self._down is None:
            if self.connections:
                return QueryError("timeout", "no connection of the data source came free in time")
            self._fall(
                QueryError("failed", f"{self._where} did not answer in time", _NO_CONNECTION)
                if isinstance(error, PoolTimeout)
                else self._sentence(error)
            )
        assert self._down is not None  # noqa: S101
        return self._down

    async def _opened(self) -> AsyncConnectionPool[Connection]:
        kind = AsyncConnectionPool if self._numbers is None else AsyncNullConnectionPool
        pool = self._pool = kind(
            connection_class=self._kind,
            min_size=0,
            max_size=self._share.size,
            open=False,
            max_idle=_IDLE_S,
            reconnect_timeout=0,  # we try again, at our own pace
            num_workers=2,
        )
        await pool.open()
        return pool

    async def connect(self, make: Callable[..., Awaitable[Connection]], *, probing: bool = False) -> Connection:
        """A new connection, by psycopg's own ``connect``. Raises psycopg.Error, and says that the source is away."""
        if self._down is not None and self.connections and not probing:
            # Whoever waits gets one that is given back: a server that refuses is not asked for each of them.
            raise psycopg.OperationalError(self._down.message)
        try:
            async with asyncio.timeout(CONNECT_S):
                connection = await make(**self._conninfo.arguments() | await self._addresses())
            connection.wire = Wire(connection.pgconn)
        except TimeoutError:
            error: psycopg.Error = psycopg.OperationalError("no answer in time")
        except psycopg.Error as reason:
            error = reason
        except (OSError, ValueError) as reason:  # no descriptor is left; a host that can be no name
            error = psycopg.OperationalError(getattr(reason, "strerror", None) or str(reason) or "the system refuses")
        else:
            self._live = {each for each in self._live if not each.closed} | {connection}
            self._rise()
            return connection
        self._fall(self._sentence(error))
        raise error.with_traceback(None)

    async def _addresses(self) -> dict[str, str]:
        """Where its host is, for libpq, which tries one after the other. Raises OSError and UnicodeError."""
        host = self._source.host
        try:
            found = await addresses(host, self._source.port, owner=self._owner)
        except NeverAskedError as error:
            raise OSError(error.errno, f"{host} is not asked: {error.strerror}") from None
        except socket.gaierror as error:
            raise OSError(error.errno, f"the name {host} is not known: {error.strerror}") from None
        return {"host": ",".join([host] * len(found)), "hostaddr": ",".join(found)}

    def _fall(self, error: QueryError) -> None:
        """There is no new connection. Without any that is open, all who wait are told, and who comes.

        A server may refuse new ones and answer on the others: it has another password and we do not know it yet, or
        no more connections for anybody.
        """
        self._unavailable[self._title] = error.message
        if self._down is None and not self._closed:
            log.warning("%s cannot be reached: %s", self._title, error.message)
            self._probing = self._spawn(self._probe())
        self._down = error
        self._tell()

    def _tell(self) -> None:
        if self._lost is not None:
            self._fell.set()

    def _rise(self) -> None:
        """It can be reached."""
        if self._down is not None:
            log.info("%s can be reached again", self._title)
        self._down = None
        self._fell.clear()
        self._unavailable.pop(self._title, None)

    async def _probe(self) -> None:
        """Try one connection at growing pauses, until there is one."""
        pause = _PAUSE_FIRST_S
        while self._down is not None:
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - so that not all pods come at once
            pause = min(2 * pause, _PAUSE_LAST_S)
            with contextlib.suppress(QueryError):
                await self._wait_for_slot()
                try:
                    await self._try()
                finally:
                    self._release()

    async def _try(self) -> None:
        with contextlib.suppress(psycopg.Error):
            (await self.connect(self._kind.made, probing=True)).end()

    @property
    def _where(self) -> str:
        return f"{self._source.host}:{self._source.port}"

    def _sentence(self, error: psycopg.Error) -> QueryError:
        """Why there is no connection: the server's words, or libpq's, without what leads to them."""
        line = str(error).strip().split("\n", 1)[0]
        message = self._hide(f"{self._where}: {line.rpartition(' failed: ')[2]}")
        return QueryError("failed", message, error.sqlstate or _NO_CONNECTION)

    def _give(self, connection: Connection) -> None:
        """Back to the pool: at once as a rule, and else without the caller, who may be cancelled."""
        putting = self._put(connection)
        try:
            waits_for = putting.send(None)
        except StopIteration:
            return
        self._spawn(_rest(putting, waits_for))

    async def _put(self, connection: Connection) -> None:
        self._taken.discard(connection)
        try:
            await self._pool_put(connection)
        finally:
            self._release()

    async def _pool_put(self, connection: Connection) -> None:
        if self._closed:
            connection.end()
        elif self._pool is not None:
            await self._pool.putconn(connection)

    def _end(self, connection: Connection, *, cancel: bool = True) -> None:
        """Close a connection behind the caller's back, and end what it asked for at the server."""
        self._spawn(self._finish(connection, cancel=cancel))

    async def _finish(self, connection: Connection, *, cancel: bool) -> None:
        try:
            if cancel:
                with contextlib.suppress(psycopg.Error, OSError, TimeoutError):
                    async with asyncio.timeout(CANCEL_S):
                        await connection.cancel_safe(timeout=CANCEL_S)
        finally:
            connection.end()
            self._tell()
            await self._put(connection)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _rest(begun: Coroutine[Any, Any, None], waits_for: Any) -> None:
    """What is left of a coroutine that was begun without a task."""
    await _Rest(begun, waits_for)


class _Rest:
    def __init__(self, begun: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._begun = begun
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        while True:
            try:
                yield self._waits_for
            except asyncio.CancelledError as error:
                step = functools.partial(self._begun.throw, error)
            else:
                step = functools.partial(self._begun.send, None)
            try:
                self._waits_for = step()
            except StopIteration:
                return


_closing: Final[set[asyncio.Task[None]]] = set()
"""Sources that end: their tasks belong to nobody else."""
