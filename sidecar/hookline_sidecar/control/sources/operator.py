"""The operator as a source: the sidecar's end of ``hookline_api.distribution``.

One WebSocket over which the operator says what this pod must run, and is told what it does run. It may break at any
moment and mean nothing: what runs goes on, what was wanted is still wanted, and the next connection begins with the
whole state of both sides. Modules come over requests of their own (``blobs``).

What the operator sends is checked like anybody's word: it is bounded, and what is not well formed is ignored as a
whole, because half of a bundle might be the half without the guard.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson
from pydantic import ValidationError

from hookline_api import bundle as bundle_json
from hookline_api import json_cost, sentences
from hookline_api.bundle import BundlePlugin, LoadFailure
from hookline_api.distribution import (
    DISTRIBUTION_PATH,
    MAX_BUNDLE,
    MAX_BUNDLE_VALUES,
    MAX_PLUGINS,
    AuthorityMessage,
    BundleMessage,
    Commit,
    ToSidecar,
    parse_to_sidecar,
)
from hookline_api.standing import placeholder_of
from hookline_sidecar.control.sources.blobs import Blobs
from hookline_sidecar.control.sources.operator_client import OperatorClient, OperatorError
from hookline_sidecar.control.sources.source import Link, Problem, Wanted, Wants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from hookline_artifacts.resolve import Resolved
    from hookline_artifacts.store import ArtifactStore
    from hookline_sidecar.control.authorities import Authorities
    from hookline_sidecar.control.sources.trust import Trust
    from hookline_sidecar.settings import OperatorSettings

_HEARTBEAT_S: Final = 15.0
_SETTLE_S: Final = 0.02
_TOLD_EACH_SECOND: Final = 256 * 1024
"""Bytes of reports: after one of a thousand plugins it rests for half a second, in which more of them get ready. The
operator reads a quarter of that, and of what comes faster the newest."""
_TELL_S: Final = 5.0
"""How often it is looked whether there is something to report that nobody said."""
_PAUSE_FIRST_S: Final = 0.25
_PAUSE_LAST_S: Final = 30.0
_PAUSE_ASKED_S: Final = 300.0
"""The longest pause that the operator may ask for."""
_AT_ONCE_S: Final = 1.5
"""After an operator that went away in order, all its sidecars come within this time."""
_STEADY_S: Final = 10.0
"""A connection that lasted so long was a good one."""
_MAX_HOLD_MS: Final = 3_600_000
_MAX_VERSION: Final = 64
_GOING_AWAY: Final = frozenset({aiohttp.WSCloseCode.GOING_AWAY, aiohttp.WSCloseCode.SERVICE_RESTART})

log = logging.getLogger("hookline.operator")


class _GoneError(Exception):
    """The connection ended."""

    def __init__(self, message: str, *, away: bool = False) -> None:
        super().__init__(message)
        self.away = away
        """Whether the operator said that it goes."""


class OperatorSource:
    """Wants what the operator last said.

    ``report`` makes the message that says what is true of this sidecar now, with the version of the authorities by
    which it knows the operator.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        store: ArtifactStore,
        *,
        report: Callable[[str | None], str],
        trust: Trust,
        authorities: Authorities | None = None,
    ) -> None:
        """``authorities`` keeps by whom it may be known; without it, the file of the settings says so alone."""
        self.changed = asyncio.Event()
        self.wants: Wants | None = None
        self.connected = False
        self.connections = 0
        """Connections that were made, ever."""
        self._since = time.time()
        self._error: str | None = "it is being connected to"
        """The reason that there is no connection."""
        self._unusable: str | None = None
        """Why the last message was ignored."""
        self._url = settings.url
        self._client = OperatorClient(settings, authorities)
        self._blobs = Blobs(self._client, store, trust, settings.images)
        self._report = report
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._message: BundleMessage | None = None
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Why there is no connection, and which message was ignored."""
        return tuple(
            Problem(file=self._url, field="", message=message, hides=False)
            for message in (self._error, self._unusable)
            if message is not None
        )

    @property
    def failure(self) -> LoadFailure | None:
        """Why nothing newer is known, while there is no connection."""
        return LoadFailure(cause="fetch", message=self.waiting) if self._error is not None else None

    @property
    def waiting(self) -> str:
        """Why nothing is wanted yet."""
        if self._error is not None:
            return f"the operator has not been reached yet: {self._error}"
        return f"the operator has not said yet what to run{': ' + self._unusable if self._unusable else ''}"

    @property
    def link(self) -> Link:
        """The connection."""
        return Link(connected=self.connected, connections=self.connections)

    def reread(self) -> None:
        """Connect now, and try again what failed."""
        self._hurry.set()
        self.changed.set()

    def tell(self) -> None:
        """Something may have to be reported."""
        self._news.set()

    def describe(self) -> dict[str, Any]:
        """Whether there is a connection, since when, and if not, why."""
        return {
            "kind": "operator",
            "operator": self._url,
            "connected": self.connected,
            "since": round(self._since, 3),
            "connections": self.connections,
            "error": self._error,
            "version": self.wants.version if self.wants else None,
            "held": bool(self.wants and self.wants.held),
        }

    async def close(self) -> None:
        """Close every connection."""
        if self._deadline is not None:
            self._deadline.cancel()
        await self._client.close()

    # ── connections ──

    async def run(self) -> None:
        """Stay connected for ever."""
        attempts = 0
        while True:
            begun = time.monotonic()
            asked: float | None = None
            went = False
            self._hurry.clear()
            try:
                await self._converse()
            except _GoneError as error:
                self._lost(str(error))
                went = error.away
            except OperatorError as error:
                self._lost(str(error))
                asked = error.retry_after
            lasted = time.monotonic() - begun
            attempts = 0 if lasted > _STEADY_S else attempts + 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause(attempts, asked=asked, went=went and lasted > _AT_ONCE_S)):
                    await self._hurry.wait()

    async def _converse(self) -> None:
        """One connection from its beginning to its end. Raises _GoneError or OperatorError, always."""
        async with self._connection() as socket:
            telling = asyncio.create_task(self._tell(socket), name="report")
            try:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        await self._take(message.data)
                    elif message.type is aiohttp.WSMsgType.BINARY:
                        self._ignore("it is not text")
            finally:
                telling.cancel()
                ended = await asyncio.gather(telling, return_exceptions=True)
            if isinstance(ended[0], Exception):
                raise ended[0]  # a defect of ours: let the supervisor end loudly
            code, error = socket.close_code, socket.exception()
        if code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
            raise _GoneError(f"it sent more than {MAX_BUNDLE} bytes in one message")
        if code in _GOING_AWAY:
            raise _GoneError("it is going away, perhaps for a restart", away=True)
        why = f" ({type(error).__name__})" if error is not None else f" with {code}" if code is not None else ""
        raise _GoneError(f"the connection ended{why}")

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        socket = await self._client.open(DISTRIBUTION_PATH, heartbeat=_HEARTBEAT_S, max_message=MAX_BUNDLE)
        try:
            self.connected, self._since, self._error = True, time.time(), None
            self.connections += 1
            log.info("connected to the operator %s", self._url)
            self.changed.set()
            yield socket
        finally:
            await socket.close()

    def _lost(self, why: str) -> None:
        if self.connected:
            self._since = time.time()
        if why != self._error:
            log.warning("no connection to the operator %s: %s; what runs goes on", self._url, why)
        self.connected, self._error = False, why
        self.changed.set()

    async def _tell(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Report the whole state first of all, and each time that it is another."""
        last = None
        try:
            while True:
                self._news.clear()
                text, rest = self._report(self._client.authority), _SETTLE_S
                if text != last:
                    await socket.send_str(text)
                    last, rest = text, max(_SETTLE_S, len(text) / _TOLD_EACH_SECOND)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TELL_S):
                        await self._news.wait()
                await asyncio.sleep(rest)
        except ConnectionError:
            pass  # whoever reads notices too
        finally:
            await socket.close()  # without reports, the operator would wait for nothing

    # ── messages ──

    async def _take(self, text: str) -> None:
        try:
            message = await asyncio.to_thread(_read, text)
        except ValueError as error:
            self._ignore(str(error))
            return
        if isinstance(message, BundleMessage):
            self._unusable = None
            self._want(message)
        elif isinstance(message, AuthorityMessage):
            await self._trust(message)
        elif isinstance(message, Commit) and self._message is not None and message.version == self._message.version:
            self._release()

    async def _trust(self, message: AuthorityMessage) -> None:
        try:
            if await asyncio.to_thread(self._client.trust, message):
                log.info("the operator %s announced the certificate authorities that it will use", self._url)
        except ValueError as error:
            self._ignore(f"bundle: {error}")
        except OSError as error:
            log.warning("the operator's certificate authorities cannot be kept (%s)", error.strerror)
        self.tell()

    def _ignore(self, why: str) -> None:
        """A message that cannot be used: said once."""
        why = f"one of its messages is ignored: {why}"
        if why != self._unusable:
            log.warning("the operator %s: %s; what runs goes on", self._url, why)
        self._unusable = why
        self.changed.set()

    def _want(self, message: BundleMessage) -> None:
        before = self._message.bundle.plugins if self._message else ()
        known = {entry.name: entry.failure for entry in before}
        for entry in message.bundle.plugins:
            if entry.failure is not None and entry.failure != known.get(entry.name):
                log.warning(
                    "plugin '%s' is not what was asked for (%s): %.500s",
                    entry.name, entry.failure.cause, entry.failure.message,
                )  # fmt: skip
        self._message = message
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if message.hold:
            pause = min(message.deadline, _MAX_HOLD_MS) / 1000
            self._deadline = asyncio.get_running_loop().call_later(pause, self._release)
        self.wants = Wants(
            plugins={entry.name: self._wanted(entry) for entry in message.bundle.plugins},
            version=message.version,
            held=message.hold,
        )
        self.changed.set()

    def _release(self) -> None:
        """What is held may run: the operator says so, or its deadline is over."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self.wants is not None and self.wants.held:
            self.wants = Wants(plugins=self.wants.plugins, version=self.wants.version)
            self.changed.set()

    def _wanted(self, entry: BundlePlugin) -> Wanted:
        common: dict[str, Any] = {
            "placeholder": placeholder_of(entry),
            "failure_policy": entry.failure_policy,
        }
        if entry.artifact is None:
            failure = entry.failure or LoadFailure(cause="fetch", message="the operator has no module for it")
            return Wanted(key=f"{entry.revision} {failure}", failure=failure, **common)
        evidence, revision = entry.artifact.evidence, entry.full_revision
        return Wanted(
            # Other signatures of the same artifact have to be verified again, and change nothing of what runs.
            key=revision if evidence is None else f"{revision} {evidence.sha256}",
            resolve=functools.partial(self._resolve, entry),
            failure=entry.failure,
            checked=True,
            **common,
        )

    async def _resolve(self, entry: BundlePlugin, **_: object) -> Resolved:
        # What it is now, and whether it is asked again, is nothing to a digest.
        return await self._blobs.resolve(entry)


def pause(attempts: int, *, asked: float | None = None, went: bool = False) -> float:
    """Seconds before the next connection, after so many that were none for long.

    ``asked`` is what the operator asks for; ``went`` says that it goes in order, and another takes its place.
    """
    if went:
        return random.uniform(0.05, _AT_ONCE_S)  # noqa: S311 - spreads load, keeps no secret
    longest: float = min(_PAUSE_FIRST_S * 2 ** min(attempts, 16), _PAUSE_LAST_S)
    # What is asked for is asked of all: none comes earlier, and they do not come together.
    return max(
        longest * random.uniform(0.5, 1.0),  # noqa: S311
        min(asked or 0.0, _PAUSE_ASKED_S) * random.uniform(1.0, 1.25),  # noqa: S311
    )


def _read(text: str) -> ToSidecar | None:
    """A message; None for a type that this version does not know. Raises ValueError in one sentence without values."""
    try:
        json_cost.check(text, what="it", max_values=MAX_BUNDLE_VALUES)
        data = bundle_json.read(text, orjson.loads)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error.msg})") from None
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise ValueError("it is not a JSON object with a type")  # noqa: TRY004 - of what was sent
    try:
        message = parse_to_sidecar(data)
    except ValidationError as error:
        raise ValueError(sentences.without_values(error)) from None
    if message is not None and not 0 < len(message.version) <= _MAX_VERSION:
        raise ValueError(f"version: is not of 1 to {_MAX_VERSION} characters")
    if isinstance(message, BundleMessage):
        _check(message)
    return message


def _check(message: BundleMessage) -> None:
    """What the models leave open, and the sidecar relies on. Raises ValueError."""
    names = [entry.name for entry in message.bundle.plugins]
    if len(names) > MAX_PLUGINS:
        raise ValueError(f"bundle.plugins: has more than {MAX_PLUGINS} entries")
    if len(set(names)) != len(names):
        raise ValueError("bundle.plugins: has two of one name")
    try:
        # What is nested too deep to be written or hashed must not get as far as where that is taken for granted.
        for entry in message.bundle.plugins:
            orjson.dumps(entry.model_dump(mode="json", by_alias=True))
        _ = message.bundle.version, message.bundle.redacted()
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"bundle: cannot be written as JSON ({type(error).__name__})") from None
