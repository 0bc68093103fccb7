"""The guest ABI as data: what a module exports and may import (``docs/author/guest-abi.md``).

Types are written as in the text format's shorthand: ``"iiI"`` is ``(i32, i32, i64)``, ``"F"`` an f64.
Operator and sidecar judge modules by these tables, so that a plugin the operator accepts is one that the
sidecar can load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from hookline_api.permissions import Permission, grants

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

MAX_LOG_LINE: Final = 4096


class HostFunction(NamedTuple):
    """One function that a guest may import."""

    params: str
    results: str
    permission: Permission | None
    """What the resource must grant; None where everybody may."""


HOST_FUNCTIONS: Final[dict[tuple[str, str], HostFunction]] = {
    # HeliosDB-Proxy, exact.
    ("env", "kv_get"): HostFunction("iiii", "i", Permission.KV_READ),
    ("env", "kv_set"): HostFunction("iiii", "i", Permission.KV_WRITE),
    ("env", "kv_delete"): HostFunction("ii", "i", Permission.KV_WRITE),
    ("env", "sha256_hex"): HostFunction("iii", "i", Permission.CRYPTO),
    # Hookline's own.
    ("hookline", "log"): HostFunction("iii", "i", None),
    ("hookline", "get_time"): HostFunction("", "I", None),
    ("hookline", "random"): HostFunction("ii", "i", None),
    ("hookline", "get_config"): HostFunction("ii", "I", Permission.CONFIG_READ),
    ("hookline", "metric_inc"): HostFunction("iiF", "i", Permission.METRICS),
    ("hookline", "metric_gauge"): HostFunction("iiF", "i", Permission.METRICS),
    ("hookline", "metric_observe"): HostFunction("iiF", "i", Permission.METRICS),
    ("hookline", "hmac_sha256"): HostFunction("iiiii", "i", Permission.CRYPTO),
    ("hookline", "kv_list"): HostFunction("ii", "I", Permission.KV_READ),
    ("hookline", "kv_incr"): HostFunction("iiI", "I", Permission.KV_WRITE),
    ("hookline", "kv_compare_and_set"): HostFunction("iiiiii", "i", Permission.KV_WRITE),
    ("hookline", "kv_set_ttl"): HostFunction("iiI", "i", Permission.KV_WRITE),
    # Texts and bytes are pairs of pointer and length, in the order that the names say.
    ("hookline", "query_execute"): HostFunction("iiiiii", "I", Permission.QUERY_EXECUTE),  # source, sql, parameters
    ("hookline", "query_prepare"): HostFunction("iiii", "I", Permission.QUERY_EXECUTE),  # source, sql
    ("hookline", "query_get_tables"): HostFunction("ii", "I", Permission.QUERY_EXECUTE),  # sql
    ("hookline", "query_normalize"): HostFunction("ii", "I", Permission.QUERY_EXECUTE),  # sql
    ("hookline", "cache_get"): HostFunction("iiii", "I", Permission.CACHE_READ),  # cache, key
    ("hookline", "cache_exists"): HostFunction("iiii", "i", Permission.CACHE_READ),  # cache, key
    ("hookline", "cache_set"): HostFunction("iiiiiiI", "i", Permission.CACHE_WRITE),  # cache, key, value, ttl in ms
    ("hookline", "cache_delete"): HostFunction("iiii", "i", Permission.CACHE_WRITE),  # cache, key
    ("hookline", "http_fetch"): HostFunction("ii", "I", Permission.HTTP_FETCH),  # request
    ("hookline", "http_post"): HostFunction("iiiiii", "I", Permission.HTTP_FETCH),  # url, content type, body
}

_PERMISSIONS: Final = {
    f"{module}.{name}": function.permission.value
    for (module, name), function in HOST_FUNCTIONS.items()
    if function.permission is not None
}


def ungranted_imports(imports: Iterable[str], granted: Collection[str]) -> dict[str, str]:
    """Of a module's imports, written ``module.name``: those whose permission is not granted, with that permission."""
    needed = {each: _PERMISSIONS[each] for each in sorted(set(imports)) if each in _PERMISSIONS}
    return {function: permission for function, permission in needed.items() if not grants(granted, permission)}


def permission_refusal(ungranted: dict[str, str]) -> str:
    """Why a module with such imports is not loaded, and what to write: one sentence."""
    permissions = sorted(set(ungranted.values()))
    add = "it" if len(permissions) == 1 else f"them ({', '.join(permissions)})"
    functions = "function" if len(ungranted) == 1 else "functions"
    return (
        f"{_needs(ungranted)}; add {add} to spec.permissions, or set spec.permissionsPolicy: Lenient "
        f"to let the {functions} answer 'denied'"
    )


def permission_warning(ungranted: dict[str, str]) -> str:
    """What a module with such imports cannot do: one sentence."""
    return f"{_needs(ungranted)}; without it, the call is denied (spec.permissionsPolicy is Lenient)"


def _needs(ungranted: dict[str, str]) -> str:
    by_permission: dict[str, list[str]] = {}
    for function, permission in ungranted.items():
        by_permission.setdefault(permission, []).append(function)
    needs = [
        f"{_and(functions)}, which {'needs' if len(functions) == 1 else 'need'} the permission {permission}"
        for permission, functions in sorted(by_permission.items())
    ]
    return f"the module imports {', and '.join(needs)}"


def _and(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


WASI_MODULE: Final = "wasi_snapshot_preview1"

# https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md, without the sockets: guests get no network.
WASI_FUNCTIONS: Final = frozenset({
    "args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "clock_res_get", "clock_time_get",
    "fd_advise", "fd_allocate", "fd_close", "fd_datasync", "fd_fdstat_get", "fd_fdstat_set_flags",
    "fd_fdstat_set_rights", "fd_filestat_get", "fd_filestat_set_size", "fd_filestat_set_times", "fd_pread",
    "fd_prestat_get", "fd_prestat_dir_name", "fd_pwrite", "fd_read", "fd_readdir", "fd_renumber", "fd_seek",
    "fd_sync", "fd_tell", "fd_write", "path_create_directory", "path_filestat_get", "path_filestat_set_times",
    "path_link", "path_open", "path_readlink", "path_remove_directory", "path_rename", "path_symlink",
    "path_unlink_file", "poll_oneoff", "proc_exit", "proc_raise", "sched_yield", "random_get", "sock_accept",
    "sock_recv", "sock_send", "sock_shutdown",
})  # fmt: skip

HOOK_TYPES: Final = (("ii", "I"), ("ii", ""))
"""A hook takes a pointer and a length, and answers a packed pointer and length, or nothing."""

REQUIRED_EXPORTS: Final = {"alloc": ("i", "i")}
INPUT_REGION: Final = "hookline_input"
"""Answers, packed, where in its memory a module wants inputs up to some size, so that nobody asks ``alloc``."""

OPTIONAL_EXPORTS: Final = {"dealloc": ("ii", ""), "_initialize": ("", ""), INPUT_REGION: ("", "I")}

# Errors of host functions, docs/author/guest-abi.md.
E_MEMORY: Final = -1
E_SIZE: Final = -2
E_DENIED: Final = -3
E_ARGUMENT: Final = -4
E_CAP: Final = -5
E_UNAVAILABLE: Final = -6
