"""Whether a component is of the world ``hookline:plugin``, however its border was read. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hookline_api.abi import HOST_FUNCTIONS
from hookline_api.component import CALL_TYPE, EXPORT, FUNCTIONS, INTERFACE
from hookline_api.permissions import grants
from hookline_api.text import readable
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.module.sections import Import

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hookline_api.hooks import Hook

WASI: Final = re.compile(r"wasi:[a-z][a-z-]{0,30}/[a-z][a-z-]{0,40}@0\.2\.\d{1,4}")
"""Interfaces of WASI 0.2: they may be imported, and nothing is granted by them."""
_SHOWN: Final = 80
_UNKNOWN: Final = "?"


def judge_border(
    imports: Mapping[str, Mapping[str, str] | None], exports: Mapping[str, tuple[str, str | None]]
) -> tuple[str, ...]:
    """The host functions that it imports, by their names here. Raises VerifyError."""
    for name, functions in imports.items():
        label = repr(readable(name, _SHOWN))
        if WASI.fullmatch(name):
            continue
        if name != INTERFACE:
            raise VerifyError(
                f"the component imports {label}, which this version of Hookline does not offer; it may import "
                f"{INTERFACE} and interfaces of WASI 0.2"
            )
        if functions is None:
            raise VerifyError(f"the component imports {label}, which is an interface, as something else")
        for function, kind in functions.items():
            known = FUNCTIONS.get(function)
            told = repr(readable(f"{INTERFACE}.{function}", _SHOWN))
            if known is None:
                raise VerifyError(f"the component imports {told}, which this version of Hookline does not offer")
            if kind != known.type:
                raise VerifyError(f"the component imports {told} as {readable(kind, 200)}, and it is {known.type}")
    found = exports.get(EXPORT)
    if found is None:
        raise VerifyError(
            f"the component does not export '{EXPORT}': {CALL_TYPE}; it is not of the world hookline:plugin"
        )
    sort, exported = found
    if sort != "function" or (exported is not None and exported != CALL_TYPE):
        told = f"a {sort}" if sort != "function" else "another function" if exported == _UNKNOWN else str(exported)
        raise VerifyError(f"the component's export '{EXPORT}' is {readable(told, 200)}, and must be {CALL_TYPE}")
    return tuple((imports.get(INTERFACE) or {}).keys())


def declared(description: bytes | None) -> tuple[tuple[Hook, ...], frozenset[str]]:
    """The hooks and the permissions that a component's description declares. Raises VerifyError for no hooks.

    Its border says neither: one function answers all hooks, and a toolchain imports the whole interface whatever the
    plugin uses of it.
    """
    if description is None:
        raise VerifyError(
            "the component does not say which hooks it answers: it lacks the custom section hookline.plugin; build it "
            "by 'hookline build', with its hooks in plugin.json"
        )
    found = PluginDescription.from_json(description)
    if not found.hooks:
        why = f" ({found.notes[0]})" if found.notes else ""
        raise VerifyError(
            f"the component does not say which hooks it answers: its section hookline.plugin names none{why}; name "
            "them in plugin.json"
        )
    return found.hooks, frozenset(found.permissions)


def as_imports(functions: Collection[str], permissions: Collection[str]) -> tuple[Import, ...]:
    """The host functions as imports of the core ABI: those that the plugin may use by what it declares."""
    keys = (FUNCTIONS[name].stands_for for name in functions)
    return tuple(
        Import(module=key[0], name=key[1], kind="function", signature=None)
        for key in keys
        if key is not None and ((needed := HOST_FUNCTIONS[key].permission) is None or grants(permissions, needed))
    )
