"""Answers of a server to the client, and servers that behave."""

from __future__ import annotations

import json

from waiting import until_true


def answer(body=None, *, status="200 OK", head="", length=None):
    """The bytes of an answer."""
    body = {"action": "continue"} if body is None else body
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\n{head}Content-Length: {length or len(raw)}\r\n\r\n".encode() + raw


def echo(call):
    """The bytes of an answer that says what the call was."""
    return answer({"action": "answered", "value": json.loads(call)})


async def well(peer):
    """Go on as a sidecar would."""
    while True:
        await peer.send(echo(await peer.call()))


async def settled(condition):
    """Return once this is so."""
    await until_true(condition, "what this test waits for", pause=0.005)
