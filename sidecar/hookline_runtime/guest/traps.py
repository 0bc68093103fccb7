"""What the library's traps and errors mean for a plugin's failure policy."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Final

from hookline_runtime.errors import CallError, DeadlineError, OverloadError, TrapError
from hookline_runtime.guest import capi
from hookline_runtime.guest.border import NO_PLACE, trap_reason
from hookline_runtime.guest.engine import first_line

if TYPE_CHECKING:
    from hookline_api.resources import Limits
    from hookline_runtime.guest import backtrace

# TrapCode of the wasmtime crate, as it writes them.
TRAPS: Final = (
    "call stack exhausted", "out of bounds memory access", "unaligned atomic",
    "undefined element: out of bounds table access", "uninitialized element", "indirect call type mismatch",
    "integer overflow", "integer divide by zero", "invalid conversion to integer",
    "wasm `unreachable` instruction executed", "interrupt", "all fuel consumed by WebAssembly",
)  # fmt: skip
_TRAP_INTERRUPT: Final = 10
_TRAP_OUT_OF_FUEL: Final = 11


def call_error(
    where: str,
    *,
    trap: int | None,
    failure: int | None,
    code_at: int,
    expired: bool,
    limits: Limits,
    timeout_ms: int | None,
    known: backtrace.Functions,
) -> CallError:
    """Why a call into the guest failed; trap and failure, the library's, are given back.

    ``code_at`` is the address of a word for a trap's code. ``timeout_ms`` is the time that the call had, where it is
    another than ``limits.timeout``. ``known`` are the guest's functions that were in a backtrace.
    """
    functions = capi.frames(trap=trap, error=failure, known=known)
    error = _call_error(
        where, trap=trap, failure=failure, code_at=code_at, expired=expired, limits=limits, timeout_ms=timeout_ms
    )
    error.backtrace = known.backtrace(functions, where)
    return error


def _call_error(
    where: str,
    *,
    trap: int | None,
    failure: int | None,
    code_at: int,
    expired: bool,
    limits: Limits,
    timeout_ms: int | None,
) -> CallError:
    code, message, status = None, "", None
    if trap is not None:
        word = ctypes.c_uint64.from_address(code_at)
        word.value = 0
        if capi.trap_code(trap, code_at):
            code = word.value & 0xFF
        if code is not None and code < len(TRAPS):
            capi.trap_delete(trap)
        else:
            message = capi.take_trap_message(trap)
    if failure is not None:
        message, status = capi.take_error(failure)
    if expired or code == _TRAP_INTERRUPT:
        limit = f"limits.timeout ({limits.timeout} ms)" if timeout_ms is None else f"{timeout_ms} ms"
        return DeadlineError(f"{where} took longer than {limit}")
    if code == _TRAP_OUT_OF_FUEL:
        return DeadlineError(f"{where} used up limits.fuel ({limits.fuel})")
    if status is not None:
        return TrapError(f"{where} ended the program with exit code {status}")
    if code is not None and code < len(TRAPS):
        return TrapError(f"{where} trapped: {TRAPS[code]}")
    if trap is not None:
        return TrapError(f"{where} trapped: {trap_reason(message)}")
    if "maximum concurrent" in message:
        return OverloadError(NO_PLACE)
    return TrapError(f"{where} failed: {first_line(message)}")
