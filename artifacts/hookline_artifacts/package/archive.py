"""Archives: the files of a tar or tar.gz from a stranger, one after the other, within bounds.

Nothing is ever written under a name that an archive chose, and no link is followed: an entry is bytes with a
name. The standard library's ``tarfile`` is not used because it reads headers of any length into memory and
recurses where headers follow headers; this reader knows ustar, pax and GNU long names, and raises VerifyError
for everything that is too much or makes no sense.

Format: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html (ustar, pax) and
https://www.gnu.org/software/tar/manual/html_node/Standard.html (GNU).
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, BinaryIO, Final

from hookline_artifacts.errors import VerifyError

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK: Final = 512
_CHUNK: Final = 1 << 16
_MAX_HEADER: Final = 1 << 16
_MAX_NAME: Final = 4096
_GZIP: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
"""zlib's word for gzip: it reads its headers too, in C."""
_PIECE: Final = 4096
"""Packed bytes that are given to zlib at once: at a member's end it copies what is left of them."""
_MAX_MEMBERS: Final = 65_536
"""Of one gzip file. One tool makes a member, bgzip one for each 64 KiB, and eStargz one for each file: 256 MiB of the
first and 10,000 files of the second are far below. An empty member takes 20 bytes, and a step of ours."""
_MAX_RECORDS: Final = 16
"""Of pax headers, for each entry that an archive may have. tar writes one to six for a file."""
_REGULAR: Final = frozenset(b"07\0")
_LINKS: Final = frozenset(b"12")
_FOLDER_KIND: Final = ord("5")
_SPARSE_KIND: Final = ord("S")
_BODILESS: Final = frozenset(b"123456")  # links, devices, folders, pipes: whatever their size field says


# The first bytes of each: RFC 8878 (zstd, with its skippable frames), https://tukaani.org/xz/xz-file-format.txt,
# https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md, PKWARE's APPNOTE.TXT (zip), and file(1)'s for the rest.
_PACKERS: Final = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
    b"LZIP": "lzip",
    b"\x5d\0\0": "lzma",
    b"\x1f\x9d": "compress",
    b"\x1f\xa0": "compress",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
_SKIPPABLE: Final = b"\x2a\x4d\x18"


def is_archive(head: bytes) -> bool:
    """Whether a file that begins with these (at least 512) bytes is meant as a tar or tar.gz."""
    return head.startswith(_GZIP) or head[257:262] == b"ustar" or _is_header(head)


def packer(head: bytes) -> str | None:
    """The name of the compression or archive that begins like this, where it is one that is not read."""
    if head[1:4] == _SKIPPABLE and 0x50 <= head[0] <= 0x5F:  # noqa: PLR2004 - RFC 8878, 3.1.2
        return "zstd"
    return next((name for magic, name in _PACKERS.items() if head.startswith(magic)), None)


def is_gzipped_module(file: BinaryIO) -> bool:
    """Whether this is a module that was compressed without a tar around it."""
    file.seek(0)
    try:
        return _Gunzip(file).read(4) == b"\0asm"
    except (OSError, EOFError, zlib.error):
        return False
    finally:
        file.seek(0)


class Budget:
    """How much may be unpacked, of one archive or of several together."""

    def __init__(self, *, unpacked: int, entries: int) -> None:
        self._unpacked = self._left = unpacked
        self._entries = self._entries_left = entries
        self._records_left = entries * _MAX_RECORDS

    def take(self, count: int) -> None:
        """So many bytes; raises VerifyError where there are not so many."""
        if count > self._left:
            raise VerifyError(
                f"the archive unpacks to more than the {self._unpacked} bytes that are allowed; "
                "pack the module without other files, or raise the limit"
            )
        self._left -= count

    def take_header(self) -> None:
        """One header; raises VerifyError where there are no more."""
        if not self._entries_left:
            raise VerifyError(f"the archive holds more than {self._entries} files; pack the module without them")
        self._entries_left -= 1

    def take_record(self) -> None:
        """One record of a pax header; raises VerifyError where there are no more."""
        if not self._records_left:
            raise VerifyError("the archive says too much of its files (pax headers); pack it again with plain names")
        self._records_left -= 1


class Entry:
    """One entry; its bytes can be read once, before the next entry is asked for."""

    def __init__(self, stream: _Stream, *, name: str, size: int, kind: int) -> None:
        self.name = name
        self.size = size
        self.is_file = kind in _REGULAR
        self.is_folder = kind == _FOLDER_KIND
        self.is_link = kind in _LINKS
        self.is_sparse = kind == _SPARSE_KIND
        """Its bytes are not the file: the holes are left out. So ``is_file`` is False for it."""
        self._stream = stream
        self._left = size

    def chunks(self) -> Iterator[bytes]:
        """The entry's bytes, in pieces."""
        while self._left:
            chunk = self._stream.read(min(self._left, _CHUNK))
            self._left -= len(chunk)
            yield chunk

    def read(self) -> bytes:
        """All bytes at once. The caller has looked at ``size``."""
        return b"".join(self.chunks())


class _Gunzip:
    """The bytes in a gzip file, in bounded steps: Python's own reads a header byte by byte, and members without end.

    What follows the last member may be zeros, as from a tape, and nothing else. Raises EOFError, OSError, zlib.error.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._packed = memoryview(b"")
        self._zlib: zlib._Decompress | None = None
        self._members = 0
        self._ready = memoryview(b"")
        self._ended = False

    def read(self, count: int) -> bytes:
        """So many bytes, or fewer at the end."""
        pieces = []
        while count and self._fill():
            piece = self._ready[:count]
            self._ready = self._ready[len(piece) :]
            count -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _fill(self) -> bool:
        """Whether there are bytes to hand out."""
        while not self._ready and not self._ended:
            if not self._packed:
                self._packed = memoryview(self._file.read(_CHUNK))
            if self._zlib is None:
                self._begin()
                continue
            piece = self._packed[:_PIECE]
            self._ready = memoryview(self._zlib.decompress(piece, _CHUNK))
            if not piece and not self._ready and not self._zlib.eof:
                raise EOFError
            left = len(self._zlib.unconsumed_tail) + len(self._zlib.unused_data)
            self._packed = self._packed[len(piece) - left :]
            if self._zlib.eof:
                self._zlib = None
        return bool(self._ready)

    def _begin(self) -> None:
        """The next member, or the end."""
        if self._members and self._packed and not self._packed[0]:
            self._packed = self._packed[len(self._packed) - len(bytes(self._packed).lstrip(b"\0")) :]
            if not self._packed:
                return
        if not self._packed:
            self._ended = True
            return
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise VerifyError(f"the archive is made of more than {_MAX_MEMBERS} gzip files; pack it again")
        self._zlib = zlib.decompressobj(_GZIP_WINDOW)


class _Stream:
    """Reads exactly what it is asked for, and no more than the budget has."""

    def __init__(self, file: BinaryIO | _Gunzip, *, budget: Budget) -> None:
        self._file = file
        self._budget = budget

    def read(self, count: int, *, may_end: bool = False) -> bytes:
        self._budget.take(count)
        try:
            data = self._file.read(count)
        except (OSError, EOFError, zlib.error):
            raise VerifyError("the archive is damaged: its gzip stream cannot be read; pack it again") from None
        if len(data) < count and not (may_end and not data):
            raise VerifyError("the archive ends in the middle of a file; pack it again")
        return data


def walk(file: BinaryIO, *, budget: Budget) -> Iterator[Entry]:
    """Every entry of a tar or tar.gz, as far as the budget goes."""
    file.seek(0)
    gzipped = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    stream = _Stream(_Gunzip(file) if gzipped else file, budget=budget)
    name: str | None = None
    size: int | None = None
    sparse = False
    while True:
        budget.take_header()
        header = stream.read(_BLOCK, may_end=True)
        if not header.strip(b"\0"):
            return
        if _number(header[148:156]) != _checksum(header):
            raise VerifyError("this is not a tar archive, or it is damaged: a checksum is wrong; pack it again")
        kind = header[156]
        own_size = _number(header[124:136])
        if kind in b"xgLK":
            if own_size > _MAX_HEADER:
                raise VerifyError(f"the archive has a header of {own_size} bytes; pack it again with plain names")
            extension = stream.read(own_size)
            stream.read(-own_size % _BLOCK)
            if kind in b"L":
                name = _text(extension)
            elif kind in b"x":
                name, size, sparse = _pax(extension, name=name, size=size, budget=budget)
            continue
        if kind == _SPARSE_KIND:
            _skip_map(header, stream=stream, budget=budget)
        kind = _SPARSE_KIND if sparse else kind
        name = _name(header) if name is None else name
        entry = Entry(
            stream,
            name=_safe(name),
            size=0 if kind in _BODILESS else own_size if size is None else size,
            # a folder of the tar before ustar is a file whose name ends so
            kind=_FOLDER_KIND if kind in _REGULAR and name.endswith("/") else kind,
        )
        yield entry
        for _ in entry.chunks():
            pass
        stream.read(-entry.size % _BLOCK, may_end=True)
        name, size, sparse = None, None, False


def _skip_map(header: bytes, *, stream: _Stream, budget: Budget) -> None:
    """Pass over the blocks in which GNU tar goes on with its list of holes."""
    more = header[482]
    while more:
        budget.take_header()
        more = stream.read(_BLOCK)[504]


def _is_header(head: bytes) -> bool:
    """Whether this is a header of the tar that there was before ustar, which has nothing but its checksum."""
    try:
        return len(head) >= _BLOCK and _number(head[148:156]) == _checksum(head[:_BLOCK]) and head[0] != 0
    except VerifyError:
        return False


def _checksum(header: bytes) -> int:
    return sum(header[:148]) + 8 * 0x20 + sum(header[156:])


def _safe(name: str) -> str:
    if len(name) > _MAX_NAME:
        raise VerifyError(f"the archive holds a name of {len(name)} characters; pack it with plain names")
    parts = name.split("/")
    if name.startswith("/") or ".." in parts:
        raise VerifyError(f"the archive holds {name!r:.80}, a name that leads out of it; pack it with plain names")
    return "/".join(part for part in parts if part not in {"", "."})


def _name(header: bytes) -> str:
    name = _text(header[:100])
    # GNU tar keeps other things where ustar keeps the prefix
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode(errors="replace")


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: base 256, for sizes over 8 GiB
        return int.from_bytes(field, "big") & ~(0x80 << 8 * (len(field) - 1))
    return _digits(field.split(b"\0", 1)[0].strip() or b"0", base=8)


def _digits(text: bytes, *, base: int) -> int:
    allowed = b"01234567" if base == 8 else b"0123456789"  # noqa: PLR2004 - octal
    if len(text) > 16 or text.strip(allowed):  # noqa: PLR2004 - longer than any field
        raise VerifyError(f"the archive is damaged: {text!r:.40} is not a number; pack it again")
    return int(text or b"0", base)


def _pax(data: bytes, *, name: str | None, size: int | None, budget: Budget) -> tuple[str | None, int | None, bool]:
    """The name, the size and whether there are holes, of records ``LENGTH KEY=VALUE``.

    Each is ended by a line feed that LENGTH counts.
    """
    position, sparse, its_name = 0, False, None
    while position < len(data):
        budget.take_record()
        length, space, rest = data[position : position + 17].partition(b" ")
        end = position + _digits(length, base=10)
        record = data[position + len(length) + 1 : end - 1]
        if not space or not rest or end <= position + len(length) + 1 or end > len(data):
            raise VerifyError("the archive is damaged: a pax header makes no sense; pack it again")
        key, _, value = record.partition(b"=")
        if key == b"path":
            name = value.decode(errors="replace")
        elif key == b"size":
            size = _digits(value, base=10)
        elif key.startswith(b"GNU.sparse."):  # macOS' tar writes them too, and a path GNUSparseFile.0/NAME
            sparse = True
            its_name = value.decode(errors="replace") if key == b"GNU.sparse.name" else its_name
        position = end
    return name if its_name is None else its_name, size, sparse
