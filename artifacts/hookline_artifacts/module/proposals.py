"""Parts of WebAssembly that Hookline does not run: their names, and how a module is built without them.

The operator sees what stands in a module's header (``inspection.py``); the engine also finds instructions, and says so
in words of its own (``named_in``). Both tell people the same sentence.

Proposals and their names: https://github.com/WebAssembly/proposals.
"""

from __future__ import annotations

import enum
import re
from typing import Final


class Proposal(enum.Enum):
    """One of them: how it is called, and what to do instead."""

    EXCEPTIONS = (
        "exceptions (exception-handling)",
        "build without them: C++ with -fno-exceptions, Rust with -C panic=abort",
    )
    MEMORY64 = ("64-bit memory (memory64)", "build for wasm32: the guest ABI is for 32-bit memory")
    GC = (
        "garbage-collected types (GC)",
        "build with a compiler that keeps its objects in linear memory; those for WasmGC (Kotlin, Dart, OCaml) do not",
    )
    REFERENCE_TYPES = (
        "references that the host would have to keep (externref and anyref, of reference-types and GC)",
        "build without them; funcref is there",
    )
    FUNCTION_REFERENCES = (
        "typed function references (function-references)",
        "build without -mgc, call_ref and (ref …) types; calls through a table do the same",
    )
    MULTI_MEMORY = (
        "multiple memories (multi-memory)",
        "build with one memory, or join them by wasm-opt --multi-memory-lowering",
    )
    THREADS = (
        "shared memory and atomics (threads)",
        "build for one thread: without -pthread, -matomics, target-feature=+atomics (Rust) or --sharedMemory",
    )
    STACK_SWITCHING = ("continuations (stack-switching)", "build without them")
    CUSTOM_PAGE_SIZES = (
        "pages of another size (custom-page-sizes)",
        "build with pages of 64 KiB, which are the linker's default",
    )
    CUSTOM_DESCRIPTORS = ("types with descriptors (custom-descriptors)", "build without them")
    WIDE_ARITHMETIC = ("128-bit arithmetic (wide-arithmetic)", "build without -mwide-arithmetic")
    RELAXED_SIMD = ("relaxed vector instructions (relaxed-simd)", "build without -mrelaxed-simd")
    TAIL_CALLS = ("tail calls (tail-call)", "build without -mtail-call")
    COMPONENT_MODEL = (
        "the component model",
        "build for WASI 0.2 (componentize-qjs: --sync), or a core module",
    )

    @property
    def sentence(self) -> str:
        """For the person whose module needs it."""
        name, instead = self.value
        return f"the module needs {name}, which Hookline does not run; {instead}"


# What wasmparser, the engine's reader, says of each; the first that fits counts.
_WORDS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), proposal)
    for pattern, proposal in (
        (r"component model|encoded as a component", Proposal.COMPONENT_MODEL),
        (r"(?:\b|_)exceptions?\b|\bexnref\b|\btags? (?:section|index)", Proposal.EXCEPTIONS),
        (r"memory64|64-bit (?:memor|table)", Proposal.MEMORY64),
        (r"stack.switching|continuation", Proposal.STACK_SWITCHING),
        (r"custom.page.sizes", Proposal.CUSTOM_PAGE_SIZES),
        (r"multiple memories|multi.memory", Proposal.MULTI_MEMORY),
        (r"\bthreads\b|\bshared\b|\batomics?\b", Proposal.THREADS),
        (r"wide.arithmetic", Proposal.WIDE_ARITHMETIC),
        (r"relaxed.simd", Proposal.RELAXED_SIMD),
        (r"tail.calls?", Proposal.TAIL_CALLS),
        (r"function.references", Proposal.FUNCTION_REFERENCES),
        (r"found type which requires gc|reference types", Proposal.REFERENCE_TYPES),
        (r"\bgc\b", Proposal.GC),
    )
)
_OFF: Final = re.compile(
    r"not enabled|must be enabled|to be enabled|disabled|not supported|\brequire[sd]?\b|disallowed|multiple memories"
)


_VALUE_TYPES: Final = {
    0x63: Proposal.FUNCTION_REFERENCES, 0x64: Proposal.FUNCTION_REFERENCES,
    0x65: Proposal.THREADS, 0x68: Proposal.STACK_SWITCHING, 0x75: Proposal.STACK_SWITCHING,
    0x69: Proposal.EXCEPTIONS, 0x74: Proposal.EXCEPTIONS, 0x6F: Proposal.REFERENCE_TYPES,
    **dict.fromkeys((0x6A, 0x6B, 0x6C, 0x6D, 0x6E, 0x71, 0x72, 0x73), Proposal.GC),
    0x62: Proposal.CUSTOM_DESCRIPTORS,
}  # fmt: skip
"""Value types by their first byte: https://webassembly.github.io/spec/core/binary/types.html and the proposals."""
_TYPE_FORMS: Final = {
    **dict.fromkeys((0x4E, 0x4F, 0x50, 0x5E, 0x5F), Proposal.GC),
    0x5D: Proposal.STACK_SWITCHING, 0x65: Proposal.THREADS,
    **dict.fromkeys((0x4C, 0x4D), Proposal.CUSTOM_DESCRIPTORS),
}  # fmt: skip
_LIMITS: Final = ((2, Proposal.THREADS), (4, Proposal.MEMORY64), (8, Proposal.CUSTOM_PAGE_SIZES))


_FUNCREF: Final = 0x70
_PLAIN: Final = frozenset(range(0x7B, 0x80))
"""Numbers, and vectors."""
_KNOWN: Final = bytes((_FUNCREF, *_PLAIN))


class UnknownTypeError(Exception):
    """No proposal has this type either."""


class ProposalError(Exception):
    """A module's bytes ask for one of them."""

    def __init__(self, proposal: Proposal) -> None:
        super().__init__(proposal.sentence)


def check_value_type(byte: int, *, reference: bool = False) -> int:
    """The first byte of a value type, as it is. Raises ProposalError, and UnknownTypeError for what is none.

    ``reference``: where only a reference may stand.
    """
    if byte in _VALUE_TYPES:
        raise ProposalError(_VALUE_TYPES[byte])
    if byte != _FUNCREF and (reference or byte not in _PLAIN):
        raise UnknownTypeError(f"there is no {'reference' if reference else 'value'} type {byte:#04x}")
    return byte


def check_value_types(types: bytes) -> bytes:
    """Many value types, as they are; raises as ``check_value_type`` does."""
    for byte in sorted(set(types.translate(None, _KNOWN))):
        check_value_type(byte)
    return types


def check_type_form(byte: int) -> int:
    """The first byte of a type, as it is. Raises ProposalError."""
    if byte in _TYPE_FORMS:
        raise ProposalError(_TYPE_FORMS[byte])
    return byte


def check_limits(flags: int) -> int:
    """The flags of a memory or a table, as they are. Raises ProposalError."""
    for flag, proposal in _LIMITS:
        if flags & flag:
            raise ProposalError(proposal)
    return flags


def named_in(reason: str) -> str | None:
    """The sentence for what the engine says it lacks; None where it is not about a part that is off."""
    if not _OFF.search(reason):
        return None
    return next((proposal.sentence for words, proposal in _WORDS if words.search(reason)), None)
