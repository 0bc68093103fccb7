"""What needs nobody else: settings, metrics, log lines, time, random numbers and digests."""

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

import orjson

from hookline_api.abi import E_ARGUMENT, E_CAP, E_SIZE, MAX_LOG_LINE
from hookline_runtime.host.arguments import U32, CodeError, read, write
from hookline_runtime.host.guest_log import GuestLog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hookline_api.bundle import BundlePlugin
    from hookline_api.config import Config
    from hookline_runtime.guest.border import GuestMemory

_METRIC_NAME: Final = re.compile(rb"[a-z_][a-z0-9_]{0,63}")
_MAX_METRICS: Final = 32
_MAX_RANDOM: Final = 4096
# No deadline sees into a host function, so what one call of it can do ends well before a deadline does.
_MAX_HASHED: Final = 16 * 2**20
_MAX_PATH: Final = 1024
_SMALL_CONFIG: Final = 16 * 1024
"""Bytes of settings that are kept parsed too."""
_MAX_KNOWN_PATHS: Final = 256
_MAX_KNOWN_VALUE: Final = 4096
"""Bytes of a value deep in larger settings that is remembered: a mebibyte for all paths."""
_LEVELS: Final = (5, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)


class GuestMetric:
    """One metric that a plugin keeps."""

    __slots__ = ("count", "kind", "value")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.value = 0.0
        """Of a counter or gauge; of a summary, the sum."""
        self.count = 0


class Basics:
    """One plugin's settings, metrics and log."""

    def __init__(self, plugin: BundlePlugin) -> None:
        self.log = GuestLog(plugin)
        self._settings = _Settings(plugin.config)
        self.metrics: dict[str, GuestMetric] = {}

    def functions(self) -> Mapping[str, Callable[..., int]]:
        """By name of the import."""
        return {
            name: getattr(self, f"_{name}")
            for name in (
                "sha256_hex", "log", "get_time", "random", "get_config", "metric_inc", "metric_gauge",
                "metric_observe", "hmac_sha256",
            )
        }  # fmt: skip

    def close(self) -> None:
        """There is nothing to give back."""

    def _sha256_hex(self, memory: GuestMemory, data: int, length: int, out: int) -> int:
        write(memory, out, hashlib.sha256(read(memory, data, length, _MAX_HASHED)).hexdigest().encode())
        return 64

    def _log(self, memory: GuestMemory, level: int, text: int, length: int) -> int:
        if not 0 <= level < len(_LEVELS):
            raise CodeError(E_ARGUMENT)
        line = read(memory, text, min(length & U32, MAX_LOG_LINE))
        if not self.log.say(memory.said(), _LEVELS[level], line):
            raise CodeError(E_CAP)
        return 0

    def _get_time(self, _: GuestMemory) -> int:
        return time.time_ns() // 1_000_000

    def _random(self, memory: GuestMemory, out: int, length: int) -> int:
        if length & U32 > _MAX_RANDOM:
            raise CodeError(E_SIZE)
        write(memory, out, os.urandom(length & U32))
        return 0

    def _get_config(self, memory: GuestMemory, path: int, length: int) -> int:
        try:
            dotted = read(memory, path, length, _MAX_PATH).decode()
        except UnicodeDecodeError:
            raise CodeError(E_ARGUMENT) from None
        found = self._settings.at(dotted)
        return 0 if found is None else memory.give(found)

    def _metric_inc(self, memory: GuestMemory, name: int, length: int, by: float) -> int:
        if by < 0:
            raise CodeError(E_ARGUMENT)
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
        given = read(memory, name, length, 64)
        if not math.isfinite(value) or not _METRIC_NAME.fullmatch(given):
            raise CodeError(E_ARGUMENT)
        key = given.decode()
        metric = self.metrics.get(key)
        if metric is None:
            if len(self.metrics) >= _MAX_METRICS:
                raise CodeError(E_CAP)
            metric = self.metrics[key] = GuestMetric(kind)
        if metric.kind != kind:
            raise CodeError(E_ARGUMENT)
        return metric

    def _hmac_sha256(self, memory: GuestMemory, key: int, key_len: int, data: int, length: int, out: int) -> int:
        secret, text = read(memory, key, key_len, _MAX_HASHED), read(memory, data, length, _MAX_HASHED)
        digest = hmac.digest(secret, text, "sha256")
        write(memory, out, digest)
        return len(digest)


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


def _add(metric: GuestMetric, value: float) -> None:
    total = metric.value + value
    if not math.isfinite(total):  # no JSON and no other worker's sum could hold it
        raise CodeError(E_CAP)
    metric.value = total
