"""What the supervisor and its workers say to each other: JSON objects, each behind its length in four bytes.

Supervisor to worker::

    {"prepare": VERSION, "before": [{…}], "bundle": {…}, "numbers": {plugin: row}, "memory": {…} | null}
    {"commit": VERSION} | {"discard": VERSION} | {"proven": {plugin: revision}}

Worker to supervisor::

    {"hello": INDEX, "pid": PID}
    {"prepared": VERSION, "guests": BYTES, "alone": {plugin: why}}
    {"refused": VERSION, "plugin": NAME, "cause": …, "message": …, "damaged": BOOL, "passing": BOOL}
    {"committed": VERSION}
    {"report": {plugin: {…}}}

``before`` are the versions before those plugins that are on probation, and ``alone`` says which of them cannot be had.
``memory`` is a ``budget.Plan``, and ``guests`` what the worker's guests may have of it.

Both ends are ours and the socket is mode 0600 in a 0700 folder; lengths are bounded all the same.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any, Final

import orjson

from hookline_api import bundle as bundle_json

_LENGTH: Final = struct.Struct(">I")
_MAX_MESSAGE: Final = 512 * 2**20
_SMALL: Final = 256 * 1024
"""Bytes up to which a message is parsed in one piece; a larger one has a bundle in it."""

Message = dict[str, Any]


async def receive(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None where the other end is gone."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > _MAX_MESSAGE:
            return None
        data = await reader.readexactly(length)
        message: Message = orjson.loads(data) if length <= _SMALL else bundle_json.read(data.decode(), orjson.loads)
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        return None
    return message


def send(writer: asyncio.StreamWriter, message: Message) -> None:
    """Put a message on its way. A message to a peer that is gone is lost; the peer's reader notices."""
    data = orjson.dumps(message)
    writer.write(_LENGTH.pack(len(data)) + data)
