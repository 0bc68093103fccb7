"""One connected sidecar, and how a connection to one ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from hookline_api.distribution import Report
from hookline_operator.rations import Ration

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_operator.cluster.pods import Pod
    from hookline_operator.serve.bundles import PodBundle
    from hookline_operator.serve.identity import Caller, DeniedError

_CLOSE_S: Final = 5.0
_REPORT_BYTES: Final = 256 * 1024
"""Bytes of reports that are read at once: the two of a switch (prepared, and running) with the largest bundle."""
_REPORT_BYTES_EACH_SECOND: Final = 64 * 1024
"""Some half a millisecond of the event loop."""


class Session:
    """One connected sidecar."""

    def __init__(self, caller: Caller, pod: Pod, socket: web.WebSocketResponse, cut: Callable[[], None]) -> None:
        self.caller = caller
        self.pod = pod
        self.socket = socket
        self.cut = cut
        """Ends the connection, whatever the other side does."""
        self.report = Report()
        self.unread: dict[bool, str] = {}
        """The last message that was not read yet; apart from it, the last one that cannot be a report."""
        self.has_unread = asyncio.Event()
        self.reading = Ration(burst=_REPORT_BYTES, each_second=_REPORT_BYTES_EACH_SECOND)
        self.most_plugins = 0
        """How many plugins the largest bundle had that this sidecar was sent."""
        self.sent: PodBundle | None = None
        self.settled: PodBundle | None = None
        """What was sent, and is running, as the sidecar said."""
        self.held = False
        """Whether what was sent waits for a commit."""
        self.authority: str | None = None
        """The version of the authorities that it was told of last."""
        self.gone = False
        self.going: asyncio.Task[None] | None = None
        """Tells the other side that it ends, and why."""
        self.dirty = asyncio.Event()

    @property
    def prepared(self) -> dict[str, str]:
        """By plugin, the revision that the sidecar could switch to at once."""
        if self.sent is not None and self.report.prepared == self.sent.version:
            return dict(self.sent.revisions)
        return {}

    @property
    def answered(self) -> dict[str, str]:
        """By plugin, the revision that the last report is about."""
        if self.sent is not None and self.sent.version in {self.report.running, self.report.prepared}:
            return dict(self.sent.revisions)
        return {}

    def runs(self, plugin: str, revision: str) -> bool:
        """Whether the sidecar has said that it runs this revision."""
        return any(each.name == plugin and each.revision == revision for each in self.report.plugins)


async def end(session: Session, code: int, why: bytes) -> None:
    """Close a session's connection, once, and wait for that."""
    await asyncio.shield(begin_end(session, code, why))


def begin_end(session: Session, code: int, why: bytes) -> asyncio.Task[None]:
    """Begin to close it. Returns the task that does so."""
    if session.going is None:
        session.going = asyncio.create_task(let_go(session, code, why), name="let go")
    return session.going


async def let_go(session: Session, code: int, why: bytes) -> None:
    """Close a connection, and cut it where the other side does not answer in time: aiohttp would wait for longer."""
    try:
        async with asyncio.timeout(_CLOSE_S):
            if await session.socket.close(code=code, message=why):
                return
    except (ConnectionError, RuntimeError, TimeoutError):
        pass
    session.cut()


def denied(error: DeniedError) -> web.Response:
    """An answer that says why, in RFC 9457's form."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}  # noqa: PLR2004
    if error.status in {429, 503}:
        headers["Retry-After"] = "5"
    body = orjson.dumps({"title": str(error), "status": error.status})
    answer = web.Response(status=error.status, body=body, content_type="application/problem+json", headers=headers)
    if error.status in {401, 429}:
        answer.force_close()  # whoever is refused does not keep a connection for the next try
    return answer
