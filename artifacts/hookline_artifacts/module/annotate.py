"""Custom sections of a module, read and written without looking at anything else of it. For people's own files.

Core modules and components are made of sections of the same form: an id, a size, and for a custom one (id 0) a name.
https://webassembly.github.io/spec/core/binary/modules.html#custom-section
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.reader import MalformedError, Reader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_HEADER: Final = 8
_MAGIC: Final = b"\0asm"
_MAX_SECTIONS: Final = 100_000


def custom_sections(wasm: bytes) -> dict[str, bytes]:
    """The custom sections by name; of several of one name, the first. Raises VerifyError where it is no module."""
    found: dict[str, bytes] = {}
    for _, _, name, content in _sections(wasm):
        if name is not None:
            found.setdefault(name, content)
    return found


def with_sections(wasm: bytes, sections: Mapping[str, bytes]) -> bytes:
    """The module with these custom sections at its end, in place of those that it has of these names.

    An empty one is taken away. Raises VerifyError.
    """
    kept = [wasm[:_HEADER]]
    kept += [wasm[begin:end] for begin, end, name, _ in _sections(wasm) if name is None or name not in sections]
    for name, content in sections.items():
        if content:
            body = _number(len(name.encode())) + name.encode() + content
            kept.append(b"\0" + _number(len(body)) + body)
    return b"".join(kept)


def _sections(wasm: bytes) -> Iterator[tuple[int, int, str | None, bytes]]:
    """Begin and end of each section, and of a custom one the name and the content."""
    if wasm[:4] != _MAGIC:
        raise VerifyError("this is not a WebAssembly module: it does not begin with \\0asm")
    reader = Reader(wasm, _HEADER, len(wasm))
    try:
        for _ in range(_MAX_SECTIONS):
            if reader.at >= len(wasm):
                return
            begin = reader.at
            kind = reader.byte()
            size = reader.number()
            start, end = reader.at, reader.at + size
            if end > len(wasm):
                raise MalformedError("a section ends behind the file")  # noqa: TRY301 - told below, as the reader's are
            name, content = None, b""
            if kind == 0:
                inner = Reader(wasm, start, end)
                length = inner.number()
                name = bytes(wasm[inner.at : inner.at + length]).decode()
                content = bytes(wasm[inner.at + length : end])
            yield begin, end, name, content
            reader.at = end
    except (IndexError, UnicodeDecodeError, MalformedError) as error:
        raise VerifyError(f"this WebAssembly module is truncated or damaged: {error}") from None
    raise VerifyError(f"this WebAssembly module has more than {_MAX_SECTIONS} sections")


def _number(value: int) -> bytes:
    """An unsigned number in LEB128."""
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
