"""What a module asks for and offers, read from its bytes without a WebAssembly engine.

The operator judges a module before any pod is told, and has no engine; the sidecar judges it again before it
compiles. ``sections`` reads the bytes and refuses what the engine would: its limits, the order of sections, indices
that name nothing, and what Hookline does not run, in the code too (``instructions``). What is left to the compiler is
whether the instructions of a function fit together.

Memory does not grow with the module: it is read where it lies, and kept of it is what crosses the border.
"""

from __future__ import annotations

import difflib
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hookline_api.abi import (
    HOOK_TYPES,
    HOST_FUNCTIONS,
    OPTIONAL_EXPORTS,
    REQUIRED_EXPORTS,
    WASI_FUNCTIONS,
    WASI_MODULE,
)
from hookline_api.cases import SECTION
from hookline_api.hooks import Hook
from hookline_api.text import did_you_mean, listed, readable
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.component import ComponentBorder, ComponentReader
from hookline_artifacts.module.component_judge import as_imports, declared, judge_border
from hookline_artifacts.module.proposals import Proposal, ProposalError, UnknownTypeError
from hookline_artifacts.module.reader import COMPONENT_HEADER, Buffer, MalformedError
from hookline_artifacts.module.sections import Import, Sections, Signature

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MAGIC: Final = b"\0asm"
_MODULE: Final = b"\x01\0\0\0"
_NAME_SHOWN: Final = 80
"""Characters of an import's name that an error tells."""
_LISTED: Final = 12
"""Exports that an error tells."""
_COMPARED: Final = 256
"""Exports that are compared with the names of hooks."""
_AGAIN: Final = "build it again, or copy it again as a binary file"
_SHOWN: Final = 16
"""Parameters that an error tells; no function of the guest ABI has as many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleInfo:
    """What crosses a module's border."""

    hooks: tuple[Hook, ...]
    """The hooks that it exports with a right type, in the order of the enumeration."""
    imports: tuple[Import, ...]
    exports: dict[str, tuple[str, Signature | None]]
    """Name → kind and, for functions, type."""
    memory_pages: int
    """What the module's memory starts with, in pages of 64 KiB."""
    description: bytes | None
    """The custom section ``hookline.plugin``, unparsed."""
    cases: bytes | None = None
    """The custom section ``hookline.cases``, unparsed; of one that is too long, a byte more than it may have."""
    case_sections: int = 0
    """How many sections of that name there are."""
    is_component: bool = False
    """Whether it is a component: then its hooks are those that it declares."""

    @property
    def needs_wasi(self) -> bool:
        """Whether a store needs a WASI context."""
        return any(entry.module == WASI_MODULE for entry in self.imports)

    @property
    def functions(self) -> tuple[str, ...]:
        """What it imports, each once, as ``module.name``."""
        return tuple(sorted({f"{entry.module}.{entry.name}" for entry in self.imports}))

    @property
    def permissions(self) -> frozenset[str]:
        """The permissions that its imports are about."""
        functions = (HOST_FUNCTIONS.get((entry.module, entry.name)) for entry in self.imports)
        return frozenset(f.permission.value for f in functions if f and f.permission)


def inspect_file(path: Path) -> ModuleInfo:
    """As ``inspect_module``, of a file that is mapped and not read. Raises OSError too.

    DANGER: a file that is cut while it is mapped ends the process. Those of the store are written once, under another
    name, and never again.
    """
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return inspect_module(b"")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return inspect_module(mapped)


def inspect_module(wasm: Buffer) -> ModuleInfo:
    """Read a module's border and check it against the guest ABI. Linear in its bytes, and slow: not for an event loop.

    Raises VerifyError with the first thing that is wrong: not wasm, a truncated section, a proposal that Hookline does
    not run, an unknown import, a required export that is missing or has another type, no hook at all.
    """
    begin = bytes(wasm[:8])
    if begin[:4] != _MAGIC:
        raise VerifyError(
            "this is not a WebAssembly module: it does not begin with \\0asm; name the .wasm that was built"
        )
    if begin == COMPONENT_HEADER:
        return _inspect_component(wasm)
    if begin[4:] != _MODULE:
        raise VerifyError(f"this is WebAssembly of an unknown version ({begin[4:].hex()})")
    sections = Sections()
    try:
        sections.read(wasm)
    except (IndexError, UnicodeDecodeError, MalformedError, UnknownTypeError) as error:
        raise VerifyError(f"this WebAssembly module is truncated or damaged: {error}; {_AGAIN}") from None
    except ProposalError as error:
        raise VerifyError(str(error)) from None
    return judge_module(
        imports=sections.imports,
        exports=sections.exports,
        memory_pages=sections.memory_pages,
        description=sections.description,
        cases=sections.cases,
        case_sections=sections.case_sections,
    )


def read_component(wasm: Buffer) -> ComponentBorder:
    """What crosses a component's border. Raises VerifyError."""
    try:
        return ComponentReader().read(wasm)
    except (IndexError, UnicodeDecodeError, MalformedError, UnknownTypeError) as error:
        raise VerifyError(f"this WebAssembly component is truncated or damaged: {error}; {_AGAIN}") from None
    except ProposalError as error:
        raise VerifyError(f"in the component, {error}") from None


def _inspect_component(wasm: Buffer) -> ModuleInfo:
    found = read_component(wasm)
    functions = judge_border(found.imports, found.exports)
    description = found.custom.get("hookline.plugin")
    hooks, permissions = declared(description)
    return ModuleInfo(
        hooks=hooks,
        imports=as_imports(functions, permissions),
        exports={name: (sort, None) for name, (sort, _) in found.exports.items()},
        memory_pages=found.memory_pages,
        description=description,
        cases=found.custom.get(SECTION),
        case_sections=found.case_sections,
        is_component=True,
    )


def judge_module(
    *,
    imports: Sequence[Import],
    exports: dict[str, tuple[str, Signature | None]],
    memory_pages: int,
    memory64: bool = False,
    description: bytes | None = None,
    cases: bytes | None = None,
    case_sections: int = 0,
) -> ModuleInfo:
    """Check a module's border, however it was read, against the guest ABI. Raises VerifyError."""
    for entry in imports:
        _judge_import(entry)
    memory = exports.get("memory")
    if memory is None or memory[0] != "memory":
        raise VerifyError(
            f"the module does not export its linear memory as 'memory'; {_exported(exports)}; link it with "
            "--export-memory, or build it with an SDK ('hookline new')"
        )
    if memory64:
        raise VerifyError(Proposal.MEMORY64.sentence)
    _judge_start(exports)
    for name, wanted in (REQUIRED_EXPORTS | OPTIONAL_EXPORTS).items():
        found = exports.get(name)
        if found is None:
            if name in REQUIRED_EXPORTS:
                raise VerifyError(
                    f"the module does not export '{name}': {_show(wanted)}; {_exported(exports)}; build it with an SDK "
                    f"('hookline new'), or export '{name}' as docs/author/guest-abi.md has it"
                )
        elif found != ("function", wanted):
            raise VerifyError(f"the module's export '{name}' is {_describe(found)}, and must be {_show(wanted)}")
    hooks = []
    for hook in Hook:
        found = exports.get(hook.value)
        if found is None:
            continue
        if found[0] != "function" or found[1] not in HOOK_TYPES:
            shapes = " or ".join(_show(shape) for shape in HOOK_TYPES)
            raise VerifyError(f"the module's hook '{hook}' is {_describe(found)}, and must be {shapes}")
        hooks.append(hook)
    if not hooks:
        meant = next(filter(None, (did_you_mean(name, Hook) for name in sorted(exports)[:_COMPARED])), "")
        raise VerifyError(f"the module exports no hook; {_exported(exports)}{meant}; the hooks are {', '.join(Hook)}")
    return ModuleInfo(
        hooks=tuple(hooks),
        imports=tuple(imports),
        exports=exports,
        memory_pages=memory_pages,
        description=description,
        cases=cases,
        case_sections=case_sections,
    )


def _exported(exports: dict[str, tuple[str, Signature | None]]) -> str:
    return f"it exports {listed(exports, _LISTED)}" if exports else "it exports nothing"


def _judge_start(exports: dict[str, tuple[str, Signature | None]]) -> None:
    """A program that has to be started is never set up: its hooks would run without what its ``main`` does first.

    ``_start`` beside ``_initialize`` is another way in, which is not taken. A start section runs in each instance.
    """
    if exports.get("_start", ("", None))[0] == "function" and "_initialize" not in exports:
        raise VerifyError(
            "the module exports '_start' and no '_initialize': it is a program to be run once (a WASI command), and "
            "nothing would set it up for its hooks; build a reactor: C with -mexec-model=reactor, Go with "
            "-buildmode=c-shared, Rust with crate-type cdylib, TinyGo with -buildmode=c-shared, "
            "AssemblyScript with --exportStart _initialize, or without --exportStart"
        )


def _judge_import(entry: Import) -> None:
    # Escaped: it is an artifact's text, on its way into a log.
    label = repr(f"{readable(entry.module, _NAME_SHOWN)}.{readable(entry.name, _NAME_SHOWN)}")
    if entry.kind != "function":
        raise VerifyError(f"the module imports the {entry.kind} {label}; Hookline offers functions only")
    if entry.module == WASI_MODULE:
        if entry.name not in WASI_FUNCTIONS:
            raise VerifyError(f"the module imports {label}, which WASI preview 1 does not have")
        return
    function = HOST_FUNCTIONS.get((entry.module, entry.name))
    if function is None:
        near = difflib.get_close_matches(entry.name[:_NAME_SHOWN], [name for _, name in HOST_FUNCTIONS], n=1)
        meant = next((f"; did you mean '{module}.{name}'?" for module, name in HOST_FUNCTIONS if name in near), "")
        meant = meant or "; docs/host-functions.md has those that it does"
        raise VerifyError(f"the module imports {label}, which this version of Hookline does not offer{meant}")
    wanted = (function.params, function.results)
    if entry.signature != wanted:
        raise VerifyError(
            f"the module imports {label} as {_show(entry.signature)}, and it is {_show(wanted)}: declare it so"
        )


def _show(signature: Signature | None) -> str:
    if signature is None or "?" in signature[0] + signature[1]:
        return "a function of another type"
    names = {"i": "i32", "I": "i64", "f": "f32", "F": "f64"}
    params, results = (
        ", ".join([names[letter] for letter in part[:_SHOWN]] + [f"{len(part) - _SHOWN} more"] * (len(part) > _SHOWN))
        for part in signature
    )
    return f"({params}) -> {f'({results})' if len(signature[1]) != 1 else results}"


def _describe(export: tuple[str, Signature | None]) -> str:
    return _show(export[1]) if export[0] == "function" else f"a {export[0]}"
