"""Host functions: what a guest may ask of its host, if its permissions say so (``docs/author/guest-abi.md``).

Each is a method of ``PluginHost`` named after its import and taking the guest's memory and plain numbers; the
table in ``hookline_api.abi`` says types and permissions, and ``functions`` puts the permission in front. None of
them raises: they answer a code. A call without its permission is counted and answered, and runs nothing.

Some of them may wait (``border.may_wait``): that is their guest's time.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import math
import os
import re
import time
from typing import TYPE_CHECKING, Any, Final

import lmdb
import orjson

from hookline_api.abi import (
    E_ARGUMENT,
    E_CAP,
    E_DENIED,
    E_MEMORY,
    E_SIZE,
    E_UNAVAILABLE,
    HOST_FUNCTIONS,
    MAX_LOG_LINE,
)
from hookline_api.bundle import REDACTED
from hookline_runtime.errors import without_words
from hookline_runtime.host.kv import MAX_KEY, MAX_VALUE, KvError, KvStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_api.bundle import BundlePlugin
    from hookline_api.config import Config
    from hookline_runtime.guest.border import GuestMemory, HostCallable

_METRIC_NAME: Final = re.compile(rb"[a-z_][a-z0-9_]{0,63}")
_MAX_METRICS: Final = 32
_MAX_RANDOM: Final = 4096
# No deadline sees into a host function, so what one call of it can do ends well before a deadline does.
_MAX_HASHED: Final = 16 * 2**20
_MAX_LISTED: Final = 2**20
_MAX_PATH: Final = 1024
_LINES_PER_SECOND: Final = 20
_MOST_PATIENT_S: Final = 1.0
"""How long one of them waits at the most for others who write to the store, whatever the plugin's time-out."""
_SMALL_CONFIG: Final = 16 * 1024
"""Bytes of settings that are kept parsed too."""
_MAX_KNOWN_PATHS: Final = 256
_MAX_KNOWN_VALUE: Final = 4096
"""Bytes of a value deep in larger settings that is remembered: a mebibyte for all paths."""
_LEVELS: Final = (5, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
_NO_NUMBER: Final = -(2**63)
_ABSENT: Final = -1
_U32: Final = 0xFFFFFFFF

log = logging.getLogger("hookline.host")
guest_log = logging.getLogger("hookline.guest")


class GuestMetric:
    """One metric that a plugin keeps."""

    __slots__ = ("count", "kind", "value")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.value = 0.0
        """Of a counter or gauge; of a summary, the sum."""
        self.count = 0


class _CodeError(Exception):
    """A host function says no; the wrapper turns the code into the function's own way to say so."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class PluginHost:
    """One plugin's view of its host. One per process and plugin, used by all of its instances."""

    def __init__(self, plugin: BundlePlugin, kv: KvStore | None) -> None:
        self._name = plugin.name
        self._granted = frozenset(plugin.permissions)
        self._secrets = plugin.secrets()
        self._has_secrets = bool(plugin.secret_paths)
        self._settings = _Settings(plugin.config)
        self._store = kv
        self._patience = min(plugin.limits.timeout / 1000, _MOST_PATIENT_S)
        """Seconds that one call of it may wait to write: no longer than a call may take."""
        self._second = 0
        self._lines = 0
        self.metrics: dict[str, GuestMetric] = {}
        self.denied: dict[str, int] = {}
        """Calls without their permission, by function."""
        self.refused: dict[str, int] = {}
        """Calls that a cap, a bad argument or a failing store stopped, by function."""

    def functions(self) -> Mapping[tuple[str, str], HostCallable]:
        """Every host function, with its permission in front and its errors turned into codes."""
        return {key: self._guarded(*key) for key in HOST_FUNCTIONS}

    def _guarded(self, module: str, name: str) -> HostCallable:
        function = HOST_FUNCTIONS[module, name]
        method: HostCallable = getattr(self, f"_{name}")

        def answer(code: int) -> int:
            # HeliosDB's functions know one error, a sum any number but one, and packed results no sign.
            if module == "env":
                return E_SIZE if code == E_SIZE and name == "kv_get" else _ABSENT
            if name == "kv_incr":
                return _NO_NUMBER
            return -code if function.results == "I" else code

        if function.permission is not None and function.permission not in self._granted:

            def denied(*_: object) -> int:
                self.denied[name] = self.denied.get(name, 0) + 1
                return answer(E_DENIED)

            return denied

        def guarded(memory: GuestMemory, *numbers: Any) -> int:
            try:
                return method(memory, *numbers)
            except (_CodeError, KvError) as error:
                code = error.code
            except lmdb.Error:
                code = E_UNAVAILABLE
            except (
                Exception
            ) as error:  # our own mistake; the guest gets a code, in the way that the function has for it
                if name not in self.refused:
                    shown = without_words(error, secrets=self._has_secrets)
                    log.error("plugin '%s': the host function %s failed", self._name, name, exc_info=shown)  # noqa: TRY400
                code = E_UNAVAILABLE
            self.refused[name] = self.refused.get(name, 0) + 1
            return answer(code)

        return guarded

    @property
    def _kv(self) -> KvStore:
        if self._store is None:  # embedded without a state folder
            raise _CodeError(E_UNAVAILABLE)
        return self._store

    # ── env: HeliosDB's four ──

    def _kv_get(self, memory: GuestMemory, key: int, key_len: int, out: int, out_max: int) -> int:
        value = self._kv.get(self._name, _read(memory, key, key_len, MAX_KEY))
        if value is None:
            return _ABSENT  # an answer, not a refusal
        if len(value) > out_max & _U32:
            raise _CodeError(E_SIZE)
        _write(memory, out, value)
        return len(value)

    def _kv_set(self, memory: GuestMemory, key: int, key_len: int, value: int, value_len: int) -> int:
        name, data = _read(memory, key, key_len, MAX_KEY), _read(memory, value, value_len, MAX_VALUE)
        self._kv.put(self._name, name, data, patience=self._patience)
        return 0

    def _kv_delete(self, memory: GuestMemory, key: int, key_len: int) -> int:
        self._kv.delete(self._name, _read(memory, key, key_len, MAX_KEY), patience=self._patience)
        return 0

    def _sha256_hex(self, memory: GuestMemory, data: int, length: int, out: int) -> int:
        _write(memory, out, hashlib.sha256(_read(memory, data, length, _MAX_HASHED)).hexdigest().encode())
        return 64

    # ── hookline ──

    def _log(self, memory: GuestMemory, level: int, text: int, length: int) -> int:
        if not 0 <= level < len(_LEVELS):
            raise _CodeError(E_ARGUMENT)
        line = _read(memory, text, min(length & _U32, MAX_LOG_LINE))
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > _LINES_PER_SECOND:
            raise _CodeError(E_CAP)
        told = line.decode(errors="replace")
        for secret in self._secrets:  # by mistake; a guest that means to can write them in another way
            told = told.replace(secret, REDACTED)
        # Through repr's eyes: a guest writes no line of its own choosing into our log.
        printable = told.encode("unicode_escape").decode("ascii")
        guest_log.log(_LEVELS[level], "%s: %s", self._name, printable[:MAX_LOG_LINE])
        return 0

    def _get_time(self, _: GuestMemory) -> int:
        return time.time_ns() // 1_000_000

    def _random(self, memory: GuestMemory, out: int, length: int) -> int:
        if length & _U32 > _MAX_RANDOM:
            raise _CodeError(E_SIZE)
        _write(memory, out, os.urandom(length & _U32))
        return 0

    def _get_config(self, memory: GuestMemory, path: int, length: int) -> int:
        try:
            dotted = _read(memory, path, length, _MAX_PATH).decode()
        except UnicodeDecodeError:
            raise _CodeError(E_ARGUMENT) from None
        found = self._settings.at(dotted)
        return 0 if found is None else memory.give(found)

    def _metric_inc(self, memory: GuestMemory, name: int, length: int, by: float) -> int:
        if by < 0:
            raise _CodeError(E_ARGUMENT)
        _add(self._metric(memory, name, length, "counter", by), by)
        return 0

    def _metric_gauge(self, memory: GuestMemory, name: int, length: int, value: float) -> int:
        self._metric(memory, name, length, "gauge", value).value = value
        return 0

    def _metric_observe(self, memory: GuestMemory, name: int, length: int, value: float) -> int:
        metric = self._metric(memory, name, length, "summary", value)
        _add(metric, value)
        metric.count += 1
        return 0

    def _metric(self, memory: GuestMemory, name: int, length: int, kind: str, value: float) -> GuestMetric:
        given = _read(memory, name, length, 64)
        if not math.isfinite(value) or not _METRIC_NAME.fullmatch(given):
            raise _CodeError(E_ARGUMENT)
        key = given.decode()
        metric = self.metrics.get(key)
        if metric is None:
            if len(self.metrics) >= _MAX_METRICS:
                raise _CodeError(E_CAP)
            metric = self.metrics[key] = GuestMetric(kind)
        if metric.kind != kind:
            raise _CodeError(E_ARGUMENT)
        return metric

    def _hmac_sha256(self, memory: GuestMemory, key: int, key_len: int, data: int, length: int, out: int) -> int:
        secret, text = _read(memory, key, key_len, _MAX_HASHED), _read(memory, data, length, _MAX_HASHED)
        digest = hmac.digest(secret, text, "sha256")
        _write(memory, out, digest)
        return len(digest)

    def _kv_list(self, memory: GuestMemory, prefix: int, length: int) -> int:
        names = []
        prefixed = _read(memory, prefix, length, MAX_KEY)
        for key in self._kv.list_keys(self._name, prefixed, at_most=_MAX_LISTED):
            with contextlib.suppress(UnicodeDecodeError):
                names.append(key.decode())
        return memory.give(orjson.dumps(names))

    def _kv_incr(self, memory: GuestMemory, key: int, key_len: int, by: int) -> int:
        return self._kv.increment(self._name, _read(memory, key, key_len, MAX_KEY), by, patience=self._patience)

    def _kv_compare_and_set(
        self, memory: GuestMemory, key: int, key_len: int, old: int, old_len: int, new: int, new_len: int
    ) -> int:
        expected = None if old_len == _ABSENT else _read(memory, old, old_len, MAX_VALUE)
        name, value = _read(memory, key, key_len, MAX_KEY), _read(memory, new, new_len, MAX_VALUE)
        return int(self._kv.compare_and_set(self._name, name, expected, value, patience=self._patience))

    def _kv_set_ttl(self, memory: GuestMemory, key: int, key_len: int, ttl_ms: int) -> int:
        name = _read(memory, key, key_len, MAX_KEY)
        return int(self._kv.set_ttl(self._name, name, ttl_ms, patience=self._patience))


class _Settings:
    """A plugin's settings as a guest asks for them, by dotted paths: kept as JSON, in one piece for each name."""

    def __init__(self, config: Config) -> None:
        parsed = config.parsed()
        self._parts: dict[str, bytes] = {}
        self._small: dict[str, Any] | None = parsed
        self._known: dict[str, bytes | None] = {}
        """What was found deep in a large one: most guests ask for the same few."""
        if len(config.data) > _SMALL_CONFIG:
            with contextlib.suppress(TypeError):  # what cannot be written is told to the guest that asks for it
                self._parts = {name: orjson.dumps(value) for name, value in parsed.items()}
                self._small = None

    def at(self, dotted: str) -> bytes | None:
        """The JSON at a path, of the whole at an empty one; None where there is nothing. Raises TypeError."""
        if self._small is not None:
            return _at(self._small, dotted.split(".") if dotted else [])
        if not dotted:
            pieces = (orjson.dumps(name) + b":" + value for name, value in self._parts.items())
            return b"{" + b",".join(pieces) + b"}"
        first, dot, rest = dotted.partition(".")
        if not dot:
            return self._parts.get(first)
        if dotted in self._known:
            return self._known[dotted]
        part = self._parts.get(first)
        found = None if part is None or part[:1] != b"{" else _at(orjson.loads(part), rest.split("."))
        if found is None or len(found) <= _MAX_KNOWN_VALUE:
            if len(self._known) >= _MAX_KNOWN_PATHS:
                self._known.clear()
            self._known[dotted] = found
        return found


def _at(found: Any, path: list[str]) -> bytes | None:
    for part in path:
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return orjson.dumps(found)


def _read(memory: GuestMemory, pointer: int, length: int, at_most: int = _U32) -> bytes:
    if length & _U32 > at_most:
        raise _CodeError(E_SIZE)
    data = memory.read(pointer, length)
    if data is None:
        raise _CodeError(E_MEMORY)
    return data


def _add(metric: GuestMetric, value: float) -> None:
    total = metric.value + value
    if not math.isfinite(total):  # no JSON and no other worker's sum could hold it
        raise _CodeError(E_CAP)
    metric.value = total


def _write(memory: GuestMemory, pointer: int, data: bytes) -> None:
    if not memory.write(pointer, data):
        raise _CodeError(E_MEMORY)
