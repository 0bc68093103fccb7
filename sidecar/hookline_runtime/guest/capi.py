"""wasmtime's C API with prototypes of our own: what a call costs is decided here.

wasmtime-py derives types and builds objects on every call; that is most of what a call costs it. These prototypes
take and give plain integers for pointers, and nothing is built. What they cannot do is check: a wrong type, a
wrong size or a pointer to something that is gone ends the process. So they are used in few rooms only (``engine.py``,
``program.py``, ``traps.py``, ``native.py``, ``accelerator.c`` and this one), and only where ``unfit`` finds no fault.

Names and types are those of the headers at https://docs.wasmtime.dev/c-api/ for wasmtime 50 (wasmtime.h,
wasmtime/{store,instance,func,memory,trap,error,config,linker}.h). Functions that may run a guest, or take long,
release Python's lock while they do, so that the engine's clock can tick; for the others that would cost more
than they do.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import sys
from typing import Any, Final

import wasmtime
from wasmtime import _bindings as _official
from wasmtime import _ffi

from hookline_runtime.guest import backtrace

WRITTEN_FOR: Final = "50."
"""The versions of wasmtime that these prototypes were written for and are tested with begin like this."""

# Sizes in bytes of what is kept in our own memory. wasmtime.h calls all of them plain data.
FUNC: Final = 16
MEMORY: Final = 24
EXTERN: Final = 32
EXTERN_OF: Final = 8
"""Where in an extern the function or memory begins."""
INSTANCE: Final = 16
VAL_RAW: Final = 16

_POINTER: Final = ctypes.c_void_p
_SIZE: Final = ctypes.c_size_t
_I64: Final = ctypes.c_int64
_U64: Final = ctypes.c_uint64

# Handles of our own on the library that wasmtime-py has loaded: prototypes belong to a handle, and ours must not
# change wasmtime-py's.
_releasing: Final = ctypes.CDLL(str(_ffi.filename))
_holding: Final = ctypes.PyDLL(str(_ffi.filename))
_faults: Final[list[str]] = []
_fiber_faults: Final[list[str]] = []


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any, faults: list[str] = _faults) -> Any:
    try:
        function = library[name]
    except AttributeError:
        faults.append(f"it has no {name}")
        return None
    function.restype = result
    function.argtypes = arguments
    # wasmtime-py's bindings are generated from the headers of the very library that it brings.
    official = getattr(_official, f"_{name}", None)
    if official is None or _widths(official) != _widths(function):
        faults.append(f"{name} is called otherwise there")
    return function


def _widths(function: Any) -> list[int]:
    return [0 if kind is None else ctypes.sizeof(kind) for kind in (function.restype, *function.argtypes)]


DeadlineCallback: Final = ctypes.CFUNCTYPE(_SIZE, _POINTER, _POINTER, _POINTER, _POINTER)
"""``(context, data, out uint64 delta, out uint8 kind) -> error*``, wasmtime/store.h."""
HostCallback: Final = ctypes.CFUNCTYPE(_SIZE, _POINTER, _POINTER, _POINTER, _SIZE)
"""``(env, caller, args and results, their number) -> trap*``, wasmtime/func.h, unchecked."""
_Finalizer: Final = ctypes.CFUNCTYPE(None, _POINTER)
NO_FINALIZER: Final = _Finalizer()
CONTINUE: Final = 0
"""WASMTIME_UPDATE_DEADLINE_CONTINUE, wasmtime/store.h."""

# Guests run in these, or memory is given back.
func_call_unchecked: Final = _function(
    _releasing, "wasmtime_func_call_unchecked", _POINTER, _POINTER, _POINTER, _POINTER, _SIZE, _POINTER
)
instance_pre_instantiate: Final = _function(
    _releasing, "wasmtime_instance_pre_instantiate", _POINTER, _POINTER, _POINTER, _POINTER, _POINTER
)
store_delete: Final = _function(_releasing, "wasmtime_store_delete", None, _POINTER)

store_new: Final = _function(_holding, "wasmtime_store_new", _POINTER, _POINTER, _POINTER, _POINTER)
store_context: Final = _function(_holding, "wasmtime_store_context", _POINTER, _POINTER)
store_limiter: Final = _function(_holding, "wasmtime_store_limiter", None, _POINTER, _I64, _I64, _I64, _I64, _I64)
store_epoch_deadline_callback: Final = _function(
    _holding, "wasmtime_store_epoch_deadline_callback", None, _POINTER, DeadlineCallback, _POINTER, _Finalizer
)
context_set_epoch_deadline: Final = _function(_holding, "wasmtime_context_set_epoch_deadline", None, _POINTER, _U64)
context_set_fuel: Final = _function(_holding, "wasmtime_context_set_fuel", _POINTER, _POINTER, _U64)
context_get_fuel: Final = _function(_holding, "wasmtime_context_get_fuel", _POINTER, _POINTER, _POINTER)
wasi_config_new: Final = _function(_holding, "wasi_config_new", _POINTER)
context_set_wasi: Final = _function(_holding, "wasmtime_context_set_wasi", _POINTER, _POINTER, _POINTER)
instance_export_get: Final = _function(
    _holding, "wasmtime_instance_export_get", ctypes.c_bool, _POINTER, _POINTER, ctypes.c_char_p, _SIZE, _POINTER
)
caller_export_get: Final = _function(
    _holding, "wasmtime_caller_export_get", ctypes.c_bool, _POINTER, ctypes.c_char_p, _SIZE, _POINTER
)
memory_data: Final = _function(_holding, "wasmtime_memory_data", _POINTER, _POINTER, _POINTER)
memory_data_size: Final = _function(_holding, "wasmtime_memory_data_size", _SIZE, _POINTER, _POINTER)
linker_define_func_unchecked: Final = _function(
    _holding, "wasmtime_linker_define_func_unchecked", _POINTER,
    _POINTER, ctypes.c_char_p, _SIZE, ctypes.c_char_p, _SIZE, _POINTER, HostCallback, _POINTER, _Finalizer,
)  # fmt: skip
# Calls on a stack of their own, which a host function may leave and come back to: wasmtime/async.h.
AsyncCallback: Final = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _POINTER, _SIZE, _POINTER, _SIZE, _POINTER, _POINTER)
"""``(env, caller, args, their number, results, their number, out trap*, out continuation)``."""
Continuation: Final = ctypes.CFUNCTYPE(ctypes.c_bool, _POINTER)
"""``(env) -> whether the results are written``; asked each time that the future is polled."""
CONTINUATION: Final = 24
"""Bytes of a continuation: the callback, its env, a finalizer."""
VAL: Final = 32
"""Bytes of a ``wasmtime_val_t``: its kind first, and the value at ``VAL_OF``."""
VAL_OF: Final = 8
I32, I64, F32, F64 = range(4)
"""Kinds of values."""


def _fiber_function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    return _function(library, name, result, *arguments, faults=_fiber_faults)


func_call_async: Final = _fiber_function(
    _holding, "wasmtime_func_call_async", _POINTER,
    _POINTER, _POINTER, _POINTER, _SIZE, _POINTER, _SIZE, _POINTER, _POINTER,
)  # fmt: skip
instance_pre_instantiate_async: Final = _fiber_function(
    _holding, "wasmtime_instance_pre_instantiate_async", _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER
)
linker_define_async_func: Final = _fiber_function(
    _holding, "wasmtime_linker_define_async_func", _POINTER,
    _POINTER, ctypes.c_char_p, _SIZE, ctypes.c_char_p, _SIZE, _POINTER, AsyncCallback, _POINTER, _Finalizer,
)  # fmt: skip
call_future_poll: Final = _fiber_function(_releasing, "wasmtime_call_future_poll", ctypes.c_bool, _POINTER)
call_future_delete: Final = _fiber_function(_releasing, "wasmtime_call_future_delete", None, _POINTER)
_async_stack_size_set = _fiber_function(_holding, "wasmtime_config_async_stack_size_set", None, _POINTER, _SIZE)
_total_stacks_set = _fiber_function(
    _holding, "wasmtime_pooling_allocation_config_total_stacks_set", None, _POINTER, ctypes.c_uint32
)

trap_code: Final = _function(_holding, "wasmtime_trap_code", ctypes.c_bool, _POINTER, _POINTER)
trap_delete: Final = _function(_holding, "wasm_trap_delete", None, _POINTER)
error_new: Final = _function(_holding, "wasmtime_error_new", _POINTER, ctypes.c_char_p)
_trap_message = _function(_holding, "wasm_trap_message", None, _POINTER, _POINTER)
_error_message = _function(_holding, "wasmtime_error_message", None, _POINTER, _POINTER)
_error_exit_status = _function(_holding, "wasmtime_error_exit_status", ctypes.c_bool, _POINTER, _POINTER)
_error_delete = _function(_holding, "wasmtime_error_delete", None, _POINTER)
_byte_vec_delete = _function(_holding, "wasm_byte_vec_delete", None, _POINTER)

_trap_frames = _function(_holding, "wasm_trap_trace", None, _POINTER, _POINTER)
_error_frames = _function(_holding, "wasmtime_error_wasm_trace", None, _POINTER, _POINTER)
_frames_delete = _function(_holding, "wasm_frame_vec_delete", None, _POINTER)
_frame_function = _function(_holding, "wasm_frame_func_index", ctypes.c_uint32, _POINTER)
_frame_name = _function(_holding, "wasmtime_frame_func_name", _POINTER, _POINTER)

_pooling_new = _function(_holding, "wasmtime_pooling_allocation_config_new", _POINTER)
_pooling_delete = _function(_holding, "wasmtime_pooling_allocation_config_delete", None, _POINTER)
_pooling_set = {
    name: _function(_holding, f"wasmtime_pooling_allocation_config_{name}_set", None, _POINTER, kind)
    for kind, names in (
        (ctypes.c_uint32, ("total_core_instances", "total_memories", "total_tables", "max_tables_per_module")),
        (_SIZE, (
            "max_memory_size", "table_elements", "max_core_instance_size", "linear_memory_keep_resident",
            "table_keep_resident",
        )),
    )
    for name in names
}  # fmt: skip
_pooling_strategy_set = _function(_holding, "wasmtime_pooling_allocation_strategy_set", None, _POINTER, _POINTER)


def _unfit() -> str | None:
    version = importlib.metadata.version("wasmtime")
    if not version.startswith(WRITTEN_FOR):
        return f"this is wasmtime {version}, and the prototypes are for {WRITTEN_FOR}x"
    if _faults:
        return f"of this wasmtime, {_faults[0]}"
    sizes = {
        "func": (_official.wasmtime_func_t, FUNC),
        "memory": (_official.wasmtime_memory_t, MEMORY),
        "extern": (_official.wasmtime_extern_t, EXTERN),
        "instance": (_official.wasmtime_instance_t, INSTANCE),
        "val_raw": (_official.wasmtime_val_raw_t, VAL_RAW),
    }
    for name, (kind, size) in sizes.items():
        if ctypes.sizeof(kind) != size:
            return f"wasmtime_{name}_t has {ctypes.sizeof(kind)} bytes here, and not {size}"
    if _official.wasmtime_extern_t.of.offset != EXTERN_OF:
        return "wasmtime_extern_t is laid out otherwise here"
    owned: tuple[Any, ...] = (_official.wasmtime_func_t, _official.wasmtime_instance_t)
    if any(kind.store_id.offset for kind in owned):
        return "the number of a store is elsewhere here"
    return None


def _fibers_unfit() -> str | None:
    if _fiber_faults:
        return f"of this wasmtime, {_fiber_faults[0]}"
    if sys.version_info >= (3, 14):
        # It looks at the address of the native stack, and takes another one than the thread's for an overflow.
        return "this version of Python does not run on a stack of the engine's"
    value, continuation = _official.wasmtime_val_t, _official.wasmtime_async_continuation_t
    if (ctypes.sizeof(value), value.of.offset, ctypes.sizeof(continuation)) != (VAL, VAL_OF, CONTINUATION):
        return "values or continuations are laid out otherwise here"
    return None


FOR_ACCELERATOR: Final = (
    func_call_unchecked, store_new, store_context, store_limiter, store_epoch_deadline_callback, store_delete,
    context_set_epoch_deadline, instance_pre_instantiate, instance_export_get, memory_data, memory_data_size,
)  # fmt: skip
"""What ``accelerator.c`` calls, in its order."""

unfit: Final = _unfit()
"""Why these prototypes must not be used with the installed library; None where they fit."""


fibers_unfit: Final = unfit or _fibers_unfit()
"""Why calls must not run on stacks of their own; None where they may."""


def address(managed: Any) -> int:
    """The address that one of wasmtime-py's objects owns. DANGER: good for as long as that object lives."""
    found = ctypes.cast(managed.ptr(), _POINTER).value
    assert found is not None  # noqa: S101 - a closed object has no pointer, and ``ptr`` raises
    return found


def function_address(function: Any) -> int:
    """Of a function of the library, or of a callback, which has to be kept for as long as it is called."""
    return ctypes.cast(function, _POINTER).value or 0


def bytes_address(data: bytes) -> int:
    """Where these bytes are. DANGER: good for as long as that object lives."""
    return ctypes.cast(ctypes.c_char_p(data), _POINTER).value or 0


def use_fibers(config: wasmtime.Config, stack: int) -> None:
    """Give each call on a stack of its own so many bytes of it. DANGER: ``max_wasm_stack`` has to be smaller."""
    _async_stack_size_set(address(config), stack)


def use_pool(config: wasmtime.Config, *, stacks: int, **settings: int) -> None:
    """Let an engine take instances from a pool: memory that is reserved once, and cleaned instead of mapped anew.

    ``stacks`` are those of calls on fibers; 0 leaves the library's number. ``settings`` are those of wasmtime/config.h,
    ``wasmtime_pooling_allocation_config_*_set``, in bytes or numbers.
    """
    pool = _pooling_new()
    for name, value in settings.items():
        _pooling_set[name](pool, value)
    if stacks:
        _total_stacks_set(pool, stacks)
    _pooling_strategy_set(address(config), pool)
    _pooling_delete(pool)


def take_trap_message(trap: int) -> str:
    """What a trap says; the trap is given back."""
    text = _message(_trap_message, trap)
    trap_delete(trap)
    return text.rstrip("\0")


def take_error(error: int) -> tuple[str, int | None]:
    """What an error says, and the guest's exit code where it ended the program; the error is given back."""
    status = ctypes.c_int(0)
    ended = _error_exit_status(error, ctypes.addressof(status))
    text = _message(_error_message, error)
    _error_delete(error)
    return text, status.value if ended else None


def frames(*, trap: int | None, error: int | None, known: backtrace.Functions) -> list[int]:
    """The functions that were under way, by index and innermost first; names that are not ``known`` are put there."""
    owner = trap if error is None else error
    if owner is None:
        return []
    known.make_room()
    names = known.names
    vector = (_SIZE * 2)()  # wasm_frame_vec_t: size, data
    (_trap_frames if error is None else _error_frames)(owner, ctypes.addressof(vector))
    try:
        functions = []
        for frame in (_SIZE * vector[0]).from_address(vector[1]) if vector[0] else ():
            index = _frame_function(frame)
            functions.append(index)
            if index not in names:
                names[index] = backtrace.name_of(_name_at(_frame_name(frame)))
        return functions
    finally:
        _frames_delete(ctypes.addressof(vector))


def _name_at(address: int | None) -> bytes | None:
    """The beginning of a wasm_name_t, which belongs to its frame."""
    if not address:
        return None
    size, data = (_SIZE * 2).from_address(address)
    return ctypes.string_at(data, min(size, backtrace.MAX_RAW)) if size else None


def _message(read: Any, owner: int) -> str:
    vector = (_SIZE * 2)()  # wasm_byte_vec_t: size, data
    read(owner, ctypes.addressof(vector))
    try:
        return ctypes.string_at(vector[1], vector[0]).decode(errors="replace")
    finally:
        _byte_vec_delete(ctypes.addressof(vector))
