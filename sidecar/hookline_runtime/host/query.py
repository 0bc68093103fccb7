"""Databases: ``query_execute`` and ``query_prepare`` ask one, ``query_get_tables`` and ``query_normalize`` read a text.

Their results are JSON, and so is what was wrong (``query_errors``). Only arguments outside of the guest's memory are
answered by a code.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_api import json_cost
from hookline_api.bundle import REDACTED
from hookline_api.outbound import DATA_SOURCE
from hookline_api.permissions import Permission, grants
from hookline_artifacts.errors import ConfigError
from hookline_runtime.host.arguments import U32, read
from hookline_runtime.host.query_errors import BAD_PARAMETER, BAD_TEXT, NotGrantedError, QueryError
from hookline_runtime.host.recursion import application_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from types import ModuleType

    from hookline_api.bundle import BundlePlugin
    from hookline_api.outbound import DataSource
    from hookline_runtime.guest.border import GuestMemory
    from hookline_runtime.host.backends.postgres import Postgres
    from hookline_runtime.host.context import HostContext

MAX_SQL: Final = 2**20
"""Bytes of a statement."""
MAX_PARAMETERS: Final = 2**20
"""Bytes of a statement's parameters."""
_MAX_VALUES: Final = 2**13
"""Of parameters: they are made into texts on the event loop."""
_MAX_NAME: Final = 256
_MOST_PATIENT_S: Final = 5.0
_NEEDS_EXTRA: Final = "the extra hookline[query], which is not installed here"


class QueryFunctions:
    """The data sources of one plugin.

    ``unavailable`` is where others read which of them cannot be reached, and ``count`` is told of each error: function
    and cause. Raises ConfigError where a source cannot be what the resource says.
    """

    def __init__(
        self,
        plugin: BundlePlugin,
        context: HostContext,
        *,
        unavailable: dict[str, str],
        count: Callable[..., None] = lambda _function, **_: None,
    ) -> None:
        self._permissions = frozenset(plugin.permissions)
        self._count = count
        self._sources: dict[str, Postgres] = {}
        self._text: ModuleType | None = None
        if grants(self._permissions, Permission.QUERY_EXECUTE):
            self._text = _load_text()
            make = functools.partial(_database, plugin=plugin, context=context, unavailable=unavailable)
            self._sources = {source.name: make(source) for source in plugin.data_sources}

    def functions(self) -> Mapping[str, Callable[..., Any]]:
        """By name of the import."""
        return {
            name: getattr(self, f"_{name}")
            for name in ("query_execute", "query_prepare", "query_get_tables", "query_normalize")
        }

    def close(self) -> None:
        """Close all connections."""
        for source in self._sources.values():
            source.close()

    async def _query_execute(
        self, memory: GuestMemory, source: int, source_len: int, sql: int, sql_len: int, given: int, given_len: int
    ) -> bytes:
        async def ask() -> bytes:
            name = _text(memory, source, source_len, _MAX_NAME, "name of the data source")
            statement = _text(memory, sql, sql_len, MAX_SQL, "statement")
            parameters = _bytes(memory, given, given_len, MAX_PARAMETERS, "list of parameters")
            return await self._source(name).execute(statement, _parameters(parameters))

        return await self._answer("query_execute", ask())

    async def _query_prepare(self, memory: GuestMemory, source: int, source_len: int, sql: int, sql_len: int) -> bytes:
        async def ask() -> bytes:
            name = _text(memory, source, source_len, _MAX_NAME, "name of the data source")
            return await self._source(name).describe(_text(memory, sql, sql_len, MAX_SQL, "statement"))

        return await self._answer("query_prepare", ask())

    async def _query_get_tables(self, memory: GuestMemory, sql: int, sql_len: int) -> bytes:
        async def ask() -> bytes:
            text = self._parser
            return orjson.dumps(await _apart(text, text.tables, _text(memory, sql, sql_len, MAX_SQL, "statement")))

        return await self._answer("query_get_tables", ask())

    async def _query_normalize(self, memory: GuestMemory, sql: int, sql_len: int) -> bytes:
        async def ask() -> bytes:
            text = self._parser
            made = await _apart(text, text.normalized, _text(memory, sql, sql_len, MAX_SQL, "statement"))
            return orjson.dumps({"sql": made})

        return await self._answer("query_normalize", ask())

    async def _answer(self, function: str, asked: Awaitable[bytes]) -> bytes:
        try:
            return await asked
        except QueryError as error:
            self._count(function, denied=isinstance(error, NotGrantedError))
            return error.json()

    def _source(self, name: str) -> Postgres:
        if not {Permission.QUERY_EXECUTE.value, f"{Permission.QUERY_EXECUTE.value}:{name}"} & self._permissions:
            raise NotGrantedError(name)
        found = self._sources.get(name)
        if found is None:
            raise QueryError("denied", f"spec.dataSources has no '{name}'")
        return found

    @property
    def _parser(self) -> ModuleType:
        if self._text is None:
            raise QueryError("failed", f"this function needs {_NEEDS_EXTRA}")
        return self._text


def _load_text() -> ModuleType | None:
    try:
        from hookline_runtime.host.backends import sql_text  # noqa: PLC0415 - an extra, and megabytes
    except ImportError:
        return None
    return sql_text


def _database(
    source: DataSource, *, plugin: BundlePlugin, context: HostContext, unavailable: dict[str, str]
) -> Postgres:
    try:
        from hookline_runtime.host.backends.postgres import Postgres, Share  # noqa: PLC0415 - an extra, and megabytes
        from hookline_runtime.host.backends.postgres_connection import Conninfo  # noqa: PLC0415
    except ImportError:
        raise ConfigError(f"spec.dataSources needs {_NEEDS_EXTRA}") from None
    conninfo = Conninfo(source.postgres, plugin.credentials, application=application_name(plugin, source))
    missing = conninfo.missing()
    if missing is not None:
        raise ConfigError(f"spec.dataSources: '{source.name}' needs the key {missing} of a Secret, which is not there")
    secrets = plugin.secrets()

    def hide(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, REDACTED)
        return text

    return Postgres(
        source.postgres,
        conninfo,
        Share.of(
            source.postgres.pool_size,
            worker=context.worker,
            workers=context.workers,
            locks=context.locks,
            key=f"connections\0{plugin.namespace or ''}\0{plugin.name}\0{source.name}",
        ),
        owner=f"{plugin.namespace or ''}/{plugin.name}",
        title=DATA_SOURCE.format(source.name),
        patience=min(plugin.limits.wait / 2000, _MOST_PATIENT_S),
        unavailable=unavailable,
        hide=hide,
    )


def _bytes(memory: GuestMemory, at: int, length: int, most: int, what: str) -> bytes:
    if length & U32 > most:
        raise QueryError("limit", f"the {what} has more than {most} bytes")
    return read(memory, at, length)


def _text(memory: GuestMemory, at: int, length: int, most: int, what: str) -> str:
    try:
        text = _bytes(memory, at, length, most, what).decode()
    except UnicodeDecodeError:
        raise QueryError("failed", f"the {what} is not UTF-8", BAD_TEXT) from None
    if "\0" in text:
        raise QueryError("failed", f"the {what} has a NUL in it", BAD_TEXT)
    return text


def _parameters(data: bytes) -> list[bytes | None]:
    if not data:
        return []
    from hookline_runtime.host.backends.postgres_values import parameters  # noqa: PLC0415 - there is a source

    try:
        json_cost.check(data, what="the list of parameters", max_values=_MAX_VALUES)
        given: Any = orjson.loads(data)
    except json_cost.CostError as error:
        raise QueryError("limit", str(error)) from None
    except ValueError:
        raise QueryError("failed", "the parameters are no JSON", BAD_PARAMETER) from None
    return parameters(given)


async def _apart(text: ModuleType, work: Callable[[str], Any], sql: str) -> Any:
    """What a text comes to: now, or where it is long beside the event loop; one at a time, for each takes memory."""
    text.check(sql)
    if text.is_short(sql):
        return work(sql)
    return await asyncio.get_running_loop().run_in_executor(_thread(), work, sql)


@functools.cache
def _thread() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="hookline-sql")
