"""One statement of a guest on one connection: in a transaction of its own, capped while its rows come.

All of it is one flight to the server and back, in libpq's pipeline mode: ``BEGIN``, the statement, the end of the
transaction, ``DISCARD ALL``. The statement is sent by the extended protocol, which takes one and refuses several. So
whatever it does to the session (``COMMIT``, ``SET``, ``LISTEN``, ``PREPARE``, a session's locks) ends before another
one is sent, and it cannot write in a read-only transaction: PostgreSQL lets nobody make it writable after its first
query, and a ``DO`` block is one.

What libpq is given of the server's bytes is bounded too (``postgres_wire``): of a row of 100 MB it sees four.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson
from psycopg import OperationalError, pq

from hookline_runtime.host.backends import postgres_values as values
from hookline_runtime.host.query_errors import Cause, QueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.pq.abc import PGconn, PGresult

    from hookline_runtime.host.backends.postgres_wire import Wire

_ROWS_AT_ONCE: Final = 64
_CHUNKS_SINCE: Final = 170_000
"""libpq's version."""
_WIRE_FACTOR: Final = 4
_WIRE_MORE: Final = 64 * 1024
"""What a result may take on the wire, TLS and headers included. A column of one digit takes 5 bytes there and 2 as
JSON, a row 7 and 3; all else takes less than twice as much."""
_TURN_S: Final = 0.002
"""How long the event loop belongs to one result at the most."""

_BLANK: Final = re.compile(rb"(?:[ \t\n\r\f\v;]++|--[^\r\n]*+)*+")
_COMMENT: Final = re.compile(rb"/\*|\*/")
_MAX_MARKS: Final = 2000
"""Beginnings and ends of comments in front of a statement: they are read on the event loop."""
_PREPARE: Final = re.compile(rb"prepare(?![\w$\x80-\xff])", re.IGNORECASE)
"""Of a transaction: it would stay, with its locks, for somebody who ends it. PostgreSQL takes it for no writing."""

_OK: Final = frozenset({pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.EMPTY_QUERY})
_ROWS: Final = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.TUPLES_CHUNK, pq.ExecStatus.SINGLE_TUPLE})
_COPY: Final = frozenset({pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH})

_CAUSES: Final[dict[str, Cause]] = {
    "57014": "timeout",  # query_canceled, which statement_timeout is
    "55P03": "timeout",  # lock_not_available
    "25006": "denied",  # read_only_sql_transaction
    "42501": "denied",  # insufficient_privilege
}
_CAUSES_OF_CLASSES: Final[dict[str, Cause]] = {"53": "limit", "54": "limit"}  # no resources, a server's own limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Caps:
    """What one result may have."""

    rows: int
    size: int
    """Bytes as JSON."""


class Broken(Exception):  # noqa: N818 - a state, which its callers turn into an error
    """The connection is of no more use; ``error`` is what a guest is told."""

    def __init__(self, error: QueryError, *, unanswered: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.unanswered = unanswered
        """Whether the server said nothing at all: it was gone already."""


async def execute(
    connection: PGconn, wire: Wire, sql: bytes, parameters: Sequence[bytes | None], *, read_only: bool, caps: Caps
) -> tuple[bytes, bool]:
    """The result of one statement as JSON, and whether the session is as new afterwards.

    Raises QueryError where it is, and Broken where the connection is of no more use.
    """
    _refuse_prepare(sql)
    flight = _Flight(connection, wire, caps)
    flight.begin(read_only=read_only)
    connection.send_query_params(sql, parameters)
    flight.end(read_only=read_only)
    rows = _Rows(caps)
    is_tidy = await flight.finish(rows)
    return rows.json(), is_tidy


async def describe(connection: PGconn, wire: Wire, sql: bytes, *, caps: Caps) -> tuple[bytes, bool]:
    """A statement's parameters and columns as JSON; it is not run. Answers and raises as ``execute`` does."""
    flight = _Flight(connection, wire, caps)
    flight.begin(read_only=True)
    connection.send_prepare(b"", sql)
    connection.send_describe_prepared(b"")
    flight.end(read_only=True, statements=2)
    description = _Description()
    is_tidy = await flight.finish(description)
    return orjson.dumps({"parameters": description.parameters, "columns": description.columns}), is_tidy


def _refuse_prepare(sql: bytes) -> None:
    """Raises QueryError where a statement's first word is PREPARE; comments in front of it may be nested."""
    at, depth, marks = _BLANK.match(sql).end(), 0, 0  # type: ignore[union-attr] # it matches nothing, too
    while sql.startswith(b"/*", at):
        for mark in _COMMENT.finditer(sql, at):
            depth += 1 if mark[0] == b"/*" else -1
            marks += 1
            if not depth:
                break
            if marks > _MAX_MARKS:
                raise QueryError("limit", f"the statement begins with more than {_MAX_MARKS // 2} comments")
        if depth:
            return  # it does not end, which the server will say
        at = _BLANK.match(sql, mark.end()).end()  # type: ignore[union-attr]
    if _PREPARE.match(sql, at):
        raise QueryError("denied", "PREPARE is not offered: nothing of a statement outlives it", "0A000")


class _Description:
    """What the server says of a prepared statement."""

    def __init__(self) -> None:
        self.parameters: list[str] = []
        self.columns: list[dict[str, str]] = []

    def take(self, result: PGresult) -> None:
        """Read it."""
        self.parameters = [values.type_name(result.param_type(at)) for at in range(result.nparams)]
        self.columns = _columns(result)


class _Rows:
    """A result as it comes."""

    def __init__(self, caps: Caps) -> None:
        self._caps = caps
        self._columns: bytes | None = None
        self._encoders: list[values.Encoder] = []
        self._rows: list[bytes] = []
        self._size = 64
        self._affected: int | None = None

    def take(self, result: PGresult) -> None:
        """Add what came. Raises QueryError where that is too much."""
        if self._columns is None and result.status in _ROWS:
            self._columns = orjson.dumps(_columns(result))
            self._encoders = [values.encoder(result.ftype(at)) for at in range(result.nfields)]
            self._grow(len(self._columns))
        if result.ntuples + len(self._rows) > self._caps.rows:
            raise QueryError("limit", f"the result has more than {self._caps.rows} rows, which maxRows allows")
        for row in range(result.ntuples):
            texts = [
                values.NULL if (value := result.get_value(row, at)) is None else encode(value)
                for at, encode in enumerate(self._encoders)
            ]
            made = b"[" + b",".join(texts) + b"]"
            self._grow(len(made) + 1)
            self._rows.append(made)
            values.breathe()
        if result.status not in _ROWS:
            self._affected = result.command_tuples

    def json(self) -> bytes:
        """``{"columns": …, "rows": …, "rowCount": …}``."""
        count = len(self._rows) if self._columns is not None else self._affected or 0
        rows = self._rows or [b""]
        rows[0] = b'{"columns":%b,"rows":[%b' % (self._columns or b"[]", rows[0])
        rows[-1] += b'],"rowCount":%d}' % count
        return b",".join(rows)  # in one piece at once: it may be large

    def _grow(self, by: int) -> None:
        self._size += by
        if self._size > self._caps.size:
            raise too_large(self._caps)


def _read(taker: _Rows | _Description, result: PGresult, given_up: threading.Event) -> None:
    with values.beside(given_up):
        taker.take(result)


@functools.cache
def _threads() -> concurrent.futures.ThreadPoolExecutor:
    """For what takes long to read: few, and none of the event loop's own, which reloads and others' keys need."""
    return concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="hookline-rows")


def too_large(caps: Caps) -> QueryError:
    """A result has too many bytes."""
    return QueryError("limit", f"the result has more than {caps.size} bytes, which maxBytes allows")


def _columns(result: PGresult) -> list[dict[str, str]]:
    return [
        {"name": (result.fname(at) or b"").decode("utf-8", "replace"), "type": values.type_name(result.ftype(at))}
        for at in range(result.nfields)
    ]


class _Flight:
    """Several statements on their way, and what comes back."""

    def __init__(self, connection: PGconn, wire: Wire, caps: Caps) -> None:
        self._connection = connection
        self._caps = caps
        self._wire = wire
        self._statements = 1
        self._begin = self._taken = wire.begin()
        self._most = wire.received + caps.size * _WIRE_FACTOR + _WIRE_MORE
        self._error: QueryError | None = None

    def begin(self, *, read_only: bool) -> None:
        try:
            self._connection.enter_pipeline_mode()
        except OperationalError as error:
            raise self._broken(str(error)) from None
        self._connection.send_query_params(b"BEGIN READ ONLY" if read_only else b"BEGIN READ WRITE", None)

    def end(self, *, read_only: bool, statements: int = 1) -> None:
        """The statement was sent: add what ends its transaction, and tidies the session."""
        self._statements = statements
        self._connection.send_query_params(b"ROLLBACK" if read_only else b"COMMIT", None)
        self._connection.pipeline_sync()
        self._connection.send_query_params(b"DISCARD ALL", None)
        self._connection.pipeline_sync()

    async def finish(self, taker: _Rows | _Description) -> bool:
        """Take what comes back, to the last byte; whether the session is as new. Raises as ``execute`` does."""
        try:
            await self._results(None)  # BEGIN
            for at in range(self._statements):
                await self._results(taker if at == self._statements - 1 else None)
            await self._results(None)  # the end of the transaction
            await self._sync()
            is_tidy = await self._discarded()
            if not is_tidy and self._error is not None:
                # A server skips what stands behind a mistake, up to the next sync.
                self._connection.send_query_params(b"ROLLBACK", None)
                self._connection.pipeline_sync()
                self._connection.send_query_params(b"DISCARD ALL", None)
                self._connection.pipeline_sync()
                await self._results(None)
                await self._sync()
                is_tidy = await self._discarded()
            self._connection.exit_pipeline_mode()
        except (OperationalError, OSError) as error:
            raise self._broken(str(error)) from None
        while self._connection.notifies() is not None:
            pass  # of a channel that the statement listened to: libpq would keep them
        is_tidy = is_tidy and self._connection.transaction_status == pq.TransactionStatus.IDLE
        if self._error is not None:
            raise self._error if is_tidy else Broken(self._error)
        return is_tidy

    async def _discarded(self) -> bool:
        is_done = False
        while (result := await self._next()) is not None:
            is_done = result.status == pq.ExecStatus.COMMAND_OK
        await self._sync()
        return is_done

    def _broken(self, message: str) -> Broken:
        first = message.strip().split("\n", 1)[0]
        error = self._error or QueryError("failed", f"the connection was lost: {first}", "08006")
        return Broken(error, unanswered=self._wire.received == self._begin)

    async def _results(self, taker: _Rows | _Description | None) -> None:
        """All results of one statement."""
        if isinstance(taker, _Rows):
            if pq.version() >= _CHUNKS_SINCE:
                self._connection.set_chunked_rows_mode(_ROWS_AT_ONCE)
            else:
                self._connection.set_single_row_mode()
        turn = time.monotonic()
        while (result := await self._next()) is not None:
            status = result.status
            if status in _COPY:
                raise Broken(QueryError("failed", "COPY from or to the client is not offered", "0A000"))
            if status == pq.ExecStatus.FATAL_ERROR:
                self._take_error(result)
            elif status == pq.ExecStatus.EMPTY_QUERY and self._error is None:
                self._error = QueryError("failed", "the statement is empty", "42601")
            elif taker is not None and (status in _OK or status in _ROWS):
                await self._take(taker, result)
            if time.monotonic() - turn > _TURN_S:
                await asyncio.sleep(0)
                turn = time.monotonic()

    async def _take(self, taker: _Rows | _Description, result: PGresult) -> None:
        is_large, self._taken = self._wire.received - self._taken > values.LARGE, self._wire.received
        try:
            if is_large:  # many items of arrays take long, wherever they are read
                given_up = threading.Event()
                try:
                    await asyncio.get_running_loop().run_in_executor(_threads(), _read, taker, result, given_up)
                finally:
                    given_up.set()
            else:
                taker.take(result)
        except QueryError as error:
            raise Broken(error) from None

    async def _sync(self) -> None:
        result = await self._next()
        if result is None or result.status != pq.ExecStatus.PIPELINE_SYNC:
            raise self._broken("the server answered out of turn")

    async def _next(self) -> PGresult | None:
        connection, wire = self._connection, self._wire
        while connection.is_busy():
            if wire.read_rest():
                continue
            await wire.receive(writing=not wire.send())
            if wire.received > self._most:
                raise Broken(too_large(self._caps))
        return connection.get_result()

    def _take_error(self, result: PGresult) -> None:
        if self._error is not None:
            return
        field = pq.DiagnosticField
        sqlstate = (result.error_field(field.SQLSTATE) or b"").decode("ascii", "replace")
        message = (result.error_field(field.MESSAGE_PRIMARY) or result.error_message or b"").decode("utf-8", "replace")
        cause = _CAUSES.get(sqlstate) or _CAUSES_OF_CLASSES.get(sqlstate[:2], "failed")
        self._error = QueryError(cause, message, sqlstate or None)
