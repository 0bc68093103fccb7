"""WASI 0.2 for components, with nothing granted. It is ours, and not the engine's.

The engine's own waits for a clock for as long as the guest likes, which no deadline cuts, and keeps a table of
resources that no limit counts. Here there are clocks, random numbers, an empty environment, no folders, and two streams
whose lines go into the plugin's log; every other function ends the call when it is called.
https://github.com/WebAssembly/WASI/tree/main/wasip2.
"""

from __future__ import annotations

import ctypes
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from wasmtime import _bindings as ffi

from hookline_api.abi import WASI_MODULE
from hookline_runtime.errors import TrapError
from hookline_runtime.guest.component_caller import EndedError
from hookline_runtime.guest.component_values import (
    list_of,
    number,
    ok_of,
    option_of,
    record_of,
    tuple_of,
    write_resource,
    write_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_runtime.guest.component_caller import Caller

STREAM: Final = 1
"""The number of the resource type of output streams."""
STREAMS: Final = "wasi:io/streams"
STREAM_WRITE: Final = (WASI_MODULE, "write")
"""Among what a host gives: into the plugin's log, from standard output (1) or standard error (2)."""
_STANDARD: Final = (1, 2)
_MAX_RANDOM: Final = 4096
_MAX_STREAMS: Final = 1000
"""Handles of streams that an instance may have."""
_MAX_WRITE: Final = 4096
_RESOLUTION_NS: Final = 1000


def _nothing(*_: object) -> list[object]:
    return []


def _none(*_: object) -> None:
    return None


def _stream(descriptor: int, instance: Caller, _: list[Any]) -> Any:
    instance.streams += 1
    if instance.streams > _MAX_STREAMS:
        raise EndedError(TrapError(f"it has more than {_MAX_STREAMS} handles of streams"))
    made = ffi.wasmtime_component_resource_host_new(True, descriptor, STREAM)  # noqa: FBT003 - the library's
    found = ctypes.POINTER(ffi.wasmtime_component_resource_any_t)()
    failure = ffi.wasmtime_component_resource_host_to_any(instance.context, made, ctypes.byref(found))
    ffi.wasmtime_component_resource_host_delete(made)
    if failure:
        ffi.wasmtime_error_delete(failure)
        raise EndedError(TrapError("no stream can be made"))
    return found


def _exit(_: Caller, values: list[Any]) -> None:
    given = values[0] if values else None
    code = given if isinstance(given, int) and not isinstance(given, bool) else int(not given)
    raise EndedError(TrapError(f"the call ended the program with exit code {code}"))


def _write(instance: Caller, values: list[Any]) -> None:
    # A component chooses the types that it imports a function with: nothing here is sure to be what WASI has.
    stream, data = values[:2] if len(values) > 1 else (None, None)
    if stream not in _STANDARD or not isinstance(data, bytes):
        raise EndedError(TrapError("it wrote to a stream that it was not given, or what is not bytes"))
    instance.say(stream, data)


def _random(_: Caller, values: list[Any]) -> bytes:
    size = values[0] if values else None
    if not isinstance(size, int) or not 0 <= size <= _MAX_RANDOM:
        raise EndedError(TrapError(f"it asked for {size!r:.40} random bytes, and {_MAX_RANDOM} are the most"))
    return os.urandom(size)


def _word(*_: object) -> int:
    return int.from_bytes(os.urandom(8), "little")


def _words(*_: object) -> tuple[int, int]:
    return _word(), _word()


def _wall(*_: object) -> tuple[int, int]:
    return divmod(time.time_ns(), 1_000_000_000)


_u64: Final = number("u64")
_texts: Final = list_of(tuple_of(write_text, write_text))
_bytes: Final = list_of(number("u8"))
_datetime: Final = record_of(seconds=_u64, nanoseconds=number("u32"))
_done: Final = ok_of(None)

WASI: Final[dict[str, dict[str, tuple[Callable[..., Any], Callable[[Any, Any], None] | None]]]] = {
    "wasi:cli/environment": {
        "get-environment": (_nothing, _texts),
        "get-arguments": (_nothing, list_of(write_text)),
        "initial-cwd": (_none, option_of(write_text)),
    },
    "wasi:cli/exit": {"exit": (_exit, None), "exit-with-code": (_exit, None)},
    "wasi:cli/stdout": {"get-stdout": (partial(_stream, 1), write_resource)},
    "wasi:cli/stderr": {"get-stderr": (partial(_stream, 2), write_resource)},
    "wasi:cli/terminal-stdin": {"get-terminal-stdin": (_none, option_of(write_resource))},
    "wasi:cli/terminal-stdout": {"get-terminal-stdout": (_none, option_of(write_resource))},
    "wasi:cli/terminal-stderr": {"get-terminal-stderr": (_none, option_of(write_resource))},
    STREAMS: {
        "[method]output-stream.check-write": (lambda *_: _MAX_WRITE, ok_of(_u64)),
        "[method]output-stream.write": (_write, _done),
        "[method]output-stream.blocking-write-and-flush": (_write, _done),
        "[method]output-stream.flush": (_none, _done),
        "[method]output-stream.blocking-flush": (_none, _done),
    },
    "wasi:clocks/monotonic-clock": {
        "now": (lambda *_: time.monotonic_ns(), _u64),
        "resolution": (lambda *_: _RESOLUTION_NS, _u64),
    },
    "wasi:clocks/wall-clock": {
        "now": (_wall, _datetime),
        "resolution": (lambda *_: (0, _RESOLUTION_NS), _datetime),
    },
    "wasi:random/random": {"get-random-bytes": (_random, _bytes), "get-random-u64": (_word, _u64)},
    "wasi:random/insecure": {"get-insecure-random-bytes": (_random, _bytes), "get-insecure-random-u64": (_word, _u64)},
    "wasi:random/insecure-seed": {
        "insecure-seed": (_words, tuple_of(_u64, _u64)),
        "get-insecure-seed": (_words, tuple_of(_u64, _u64)),
    },
    "wasi:filesystem/preopens": {"get-directories": (_nothing, list_of(write_text))},
}
"""By interface and function: what answers, and how the answer is written. It is empty lists that are of other types."""
