"""``/admin/kv``: an administrator reads, writes, lists and deletes keys of plugins, beside the guests that use them.

The paths, and the fields ``plugin``, ``key``, ``keys``, ``value`` and ``ok`` of the answers, are HeliosDB-Proxy's
(https://github.com/HeliosDatabase/HeliosDB-Proxy, docs/admin-api.md), so that scripts for it go on working. More than
there: keys are percent-decoded, values may be any bytes, lists come in pages, and If-Match and If-None-Match make a
change depend on what is there. Every operation is one transaction of the store, on a thread; each change is logged.

They are the pod's keys. A plugin whose keys all pods share (``kv.scope: Cluster``) has none in here: who asks for them
is told where they are, with 409.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http
import logging
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import quote, unquote_to_bytes

import lmdb
import orjson
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from hookline_api.abi import E_CAP, E_UNAVAILABLE
from hookline_api.base import NAME_PATTERN
from hookline_runtime.host.kv import MAX_KEY, MAX_VALUE, KvError, KvStore
from hookline_sidecar.replies import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from hookline_sidecar.control.admin.access import Caller

ROOT: Final = "/admin/kv"
MAX_REQUEST_LINE: Final = len(ROOT) + 3 * (MAX_KEY + 512)
"""Bytes of a request's first line: of the longest key, each byte may take three."""

_AT_ONCE: Final = 8
_THREADS: Final = 2
_STORE_S: Final = 10.0
_PAGE: Final = 100
_LARGEST_PAGE: Final = 1024
_PAGE_BYTES: Final = 2**18
_SHOWN: Final = 128
_NAMED: Final = 20
_RAW: Final = "application/octet-stream"
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_TAG: Final = re.compile(r'"([!#-~]*)"')

audit = logging.getLogger("hookline.audit")
audit.setLevel(logging.INFO)  # whatever --log-level says

_T = TypeVar("_T")


class Target(NamedTuple):
    """What a request is about."""

    plugin: str | None
    """None for all plugins."""
    key: bytes | None
    """None for all keys of the plugin."""
    query: Mapping[str, bytes]


class _Condition(NamedTuple):
    """If-Match and If-None-Match (RFC 9110, 13.1): entity tags, ``*``, or nothing."""

    match: frozenset[str] | None
    none_match: frozenset[str] | None

    def holds(self, value: bytes | None) -> bool:
        tag = None if value is None else tag_of(value)
        return (self.match is None or _among(tag, self.match)) and (
            self.none_match is None or not _among(tag, self.none_match)
        )


def parse_target(raw_path: str) -> Target:
    """Read a request's target as it came; dots in it are a key's. Raises Problem with 400, 404 or 413."""
    path, _, query = raw_path.partition("?")
    root, rest = path[: len(ROOT)], path[len(ROOT) :]
    if root != ROOT or not (rest == "" or rest.startswith("/")):
        raise Problem(404, f"there is nothing at {path:.100}; the keys of plugins are at {ROOT}/PLUGIN/KEY")
    name, slash, key = rest[1:].partition("/")
    if slash and not name:
        raise Problem(400, f"the name of the plugin is empty; write {ROOT}/PLUGIN/KEY")
    plugin = _decoded(name).decode("utf-8", "backslashreplace")
    data = _decoded(key)
    if len(data) > MAX_KEY:
        raise Problem(413, f"a key has at most {MAX_KEY} bytes, and this one has {len(data)}", field="key")
    pairs = (part.partition("=") for part in query.split("&") if part)
    return Target(plugin or None, data or None, {name: _decoded(value) for name, _, value in pairs})


def tag_of(value: bytes) -> str:
    """The entity tag of a value, without its quotes."""
    return hashlib.sha256(value).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class _Change:
    plugin: str
    key: bytes
    value: bytes | None
    """None to delete."""
    condition: _Condition
    caller: Caller


class KvAdmin:
    """Answers requests below ``/admin/kv``.

    ``plugins`` tells the names that are asked for or run. ``elsewhere`` tells, of those whose keys are on a server, the
    name of the hash there.
    """

    def __init__(
        self,
        store: KvStore,
        *,
        plugins: Callable[[], Collection[str]],
        elsewhere: Callable[[], Mapping[str, str]],
        body_timeout: float,
    ) -> None:
        self._store = store
        self._plugins = plugins
        self._elsewhere = elsewhere
        self._body_timeout = body_timeout
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="kv")
        self._under_way = 0
        self.requests: Counter[tuple[str, int]] = Counter()
        """Answers by method and status."""

    async def answer(self, request: web.Request, caller: Caller) -> web.Response:
        """The answer to a caller who may ask."""
        method = request.method if request.method in {"GET", "PUT", "DELETE"} else "other"
        self._under_way += 1
        try:
            response = await self._answer(request, caller)
        except Problem as error:
            response = error.reply().response()
        finally:
            self._under_way -= 1
        self.requests[method, response.status] += 1
        return response

    async def _answer(self, request: web.Request, caller: Caller) -> web.Response:
        if self._under_way > _AT_ONCE:
            raise Problem(503, "too many such requests are under way", headers=(("Retry-After", "1"),))
        target = parse_target(request.raw_path)
        elsewhere = self._elsewhere()
        if target.plugin is not None and target.plugin in elsewhere:
            raise Problem(
                409,
                f"the keys of plugin '{target.plugin}' are not in this pod but on the server of its spec.kv.valkey "
                f"(kv.scope: Cluster), for all pods; ask there: HKEYS '{elsewhere[target.plugin]}'",
                field="plugin",
            )
        if target.plugin is None or target.key is None:
            if request.method != "GET":
                raise Problem(405, f"{request.method} is for one key: {ROOT}/PLUGIN/KEY", allow="GET")
            names = self._plugins()
            return _json(await self._in_store(lambda: self._listed(target, names, elsewhere)))
        plugin, key = target.plugin, target.key
        if request.method == "GET":
            return await self._get(request, plugin, key)
        if request.method not in {"PUT", "DELETE"}:
            raise Problem(405, f"{request.method} is not answered here", allow="GET, PUT, DELETE")
        condition = _condition(request)
        value = await self._body(request) if request.method == "PUT" else None
        prepare = value is not None and target.query.get("prepare") == b"true"
        change = _Change(plugin, key, value, condition, caller)
        known = None if prepare else self._plugins()
        return await self._in_store(lambda: self._change(change, known))

    async def _get(self, request: web.Request, plugin: str, key: bytes) -> web.Response:
        found = await self._in_store(lambda: self._store.look(plugin, key))
        if found is None:
            names = self._plugins()
            await self._in_store(lambda: self._check_known(plugin, names))
            raise Problem(404, f"plugin '{plugin:.{_SHOWN}}' has no key {shown(key)}")
        if _RAW in request.headers.get("Accept", ""):
            response = web.Response(body=found.value, content_type=_RAW)
        else:
            body = {"plugin": plugin, **_written(key, "key"), **_written(found.value, "value"), "ttl_ms": found.ttl_ms}
            response = _json(body)
        response.headers["ETag"] = f'"{tag_of(found.value)}"'
        return response

    async def _body(self, request: web.Request) -> bytes:
        too_large = Problem(413, f"a value has at most {MAX_VALUE} bytes", field="value")
        if (request.content_length or 0) > MAX_VALUE:
            raise too_large
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Problem(415, "a value is stored as it comes: send it without Content-Encoding")
        body = bytearray()
        try:
            async with asyncio.timeout(self._body_timeout):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > MAX_VALUE:
                        raise too_large
        except TimeoutError:
            raise Problem(408, f"the value did not come within {self._body_timeout:g} s; nothing is stored") from None
        except (OSError, web.RequestPayloadError, HttpProcessingError) as error:
            raise Problem(400, f"the value did not come whole, and nothing is stored: {error!s:.100}") from None
        return bytes(body)

    # ── on a thread ──

    def _change(self, change: _Change, names: Collection[str] | None) -> web.Response:
        """``names`` are the plugins that there are; None where any may be meant."""
        plugin, key, value = change.plugin, change.key, change.value
        if names is not None:
            self._check_known(plugin, names)
        elif not re.fullmatch(NAME_PATTERN, plugin):
            raise Problem(400, f"no plugin can have the name '{plugin:.{_SHOWN}}'", field="plugin")
        held, done = self._store.change(plugin, key, value, when=change.condition.holds)
        if not done:
            state = "is not there" if held is None else f'is "{tag_of(held)}"'
            raise Problem(
                412, f"nothing is changed: the key {shown(key)} {state}, and If-Match or If-None-Match differs"
            )
        if value is not None:
            audit.info("kv: %s put %s of plugin '%s', %d bytes", change.caller.name, shown(key), plugin, len(value))
        elif held is not None:
            audit.info("kv: %s deleted %s of plugin '%s'", change.caller.name, shown(key), plugin)
        response = _json({"ok": True, "existed": held is not None})
        if value is not None:
            response.headers["ETag"] = f'"{tag_of(value)}"'
        return response

    def _listed(self, target: Target, names: Collection[str], elsewhere: Collection[str]) -> dict[str, Any]:
        if target.plugin is None:
            usage = self._store.usage()
            found = [(name, *usage.get(name, (0, 0))) for name in sorted({*usage, *names})]
            return {
                "plugins": [
                    {"plugin": name, "loaded": name in names, "keys": keys, "bytes": size}
                    | ({"scope": "Cluster"} if name in elsewhere else {})
                    for name, keys, size in found
                ]
            }
        self._check_known(target.plugin, names)
        prefix, after = target.query.get("prefix", b""), target.query.get("after")
        at_most = _number(target.query.get("limit"), _PAGE, _LARGEST_PAGE)
        page, more = self._store.page(target.plugin, prefix, after=after, at_most=at_most, most_bytes=_PAGE_BYTES)
        here = f"{ROOT}/{quote(target.plugin, safe='')}"
        entries = [
            {**_written(key, "key"), "path": f"{here}/{_quoted(key)}", "size": size, "ttl_ms": ttl_ms}
            for key, size, ttl_ms in page
        ]
        rest = None
        if more:
            queried = f"prefix={quote(prefix, safe='')}&limit={at_most}&after={quote(page[-1].key, safe='')}"
            rest = f"{here}?{queried}"
        keys = [each.key.decode("utf-8", "replace") for each in page]
        return {"plugin": target.plugin, "keys": keys, "entries": entries, "next": rest}

    def _check_known(self, plugin: str, wanted: Collection[str]) -> None:
        """Raises Problem where no plugin has this name: a typing error would be a key that nobody reads."""
        if plugin in wanted or plugin in self._store.usage():
            return
        names = sorted(wanted)
        told = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        raise Problem(
            404,
            f"there is no plugin '{plugin:.{_SHOWN}}', but {told or 'none at all'}; a plugin's keys go by its "
            "metadata.name. To write keys of one that comes later, PUT with ?prepare=true",
            field="plugin",
        )

    async def _in_store(self, operation: Callable[[], _T]) -> _T:
        """Run an operation on a thread; raises Problem for what goes wrong in it."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, operation)
        try:
            async with asyncio.timeout(_STORE_S):
                return await asyncio.shield(future)
        except TimeoutError:
            self._under_way += 1  # nobody waits for it any more, and it takes a thread all the same
            future.add_done_callback(self._ended)
            raise Problem(503, f"the store did not answer within {_STORE_S:g} s; a change may still be made") from None
        except KvError as error:
            status = {E_CAP: 507, E_UNAVAILABLE: 503}.get(error.code, 413)
            raise Problem(status, f"nothing is stored: {error}") from None
        except lmdb.Error as error:
            raise Problem(507 if isinstance(error, lmdb.MapFullError) else 503, f"the store fails: {error}") from None

    def _ended(self, future: asyncio.Future[Any]) -> None:
        self._under_way -= 1
        if not future.cancelled():
            future.exception()  # so that nobody misses it

    def close(self) -> None:
        """Take no more operations."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def shown(key: bytes) -> str:
    """A key for one line of a log: printable, and not for long."""
    text = repr(key[: 4 * _SHOWN].decode("utf-8", "backslashreplace")[:_SHOWN])
    return text if len(key) <= _SHOWN else f"{text}… ({len(key)} bytes)"


def _quoted(key: bytes) -> str:
    """A key in a path that no client makes shorter."""
    return quote(key, safe="" if {b".", b".."} & {*key.split(b"/")} else "/")


def _decoded(part: str) -> bytes:
    raw = part.encode("utf-8", "surrogateescape")
    if _BAD_ESCAPE.search(raw):
        raise Problem(400, "a % in the path begins two hexadecimal digits; write %25 for the sign itself")
    return unquote_to_bytes(raw)


def _condition(request: web.Request) -> _Condition:
    return _Condition(_tags(request, "If-Match"), _tags(request, "If-None-Match"))


def _tags(request: web.Request, header: str) -> frozenset[str] | None:
    given = request.headers.getall(header, None)
    if given is None:
        return None
    parts = [part.strip() for part in ",".join(given).split(",")]
    tags = [_TAG.fullmatch(part) for part in parts]
    if parts == ["*"]:
        return frozenset("*")
    if not all(tags):
        raise Problem(400, f'{header} is neither * nor entity tags such as "{tag_of(b"")}"')
    return frozenset(tag[1] for tag in tags if tag is not None)


def _among(tag: str | None, tags: frozenset[str]) -> bool:
    return tag is not None and (tag in tags or "*" in tags)


def _number(given: bytes | None, default: int, most: int) -> int:
    if given is None:
        return default
    if not given.isdigit() or len(given) > 10 or not 1 <= int(given) <= most:  # noqa: PLR2004 - more than any limit has
        raise Problem(400, f"limit is a number from 1 to {most}")
    return int(given)


def _written(data: bytes, name: str) -> dict[str, str]:
    """Bytes for JSON: text as it is, other bytes in base64 under a name that says so."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _json(body: object) -> web.Response:
    return web.Response(
        status=http.HTTPStatus.OK,
        body=orjson.dumps(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
