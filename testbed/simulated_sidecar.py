"""A sidecar without workers: it speaks the whole protocol of ``hookline_api.distribution``, and runs nothing.

For tests of the operator, and for two thousand of them on one machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from hookline_api.bundle import Bundle, LoadFailure
from hookline_api.distribution import (
    BLOBS_PATH,
    DISTRIBUTION_PATH,
    MAX_BUNDLE,
    AuthorityMessage,
    BundleMessage,
    Commit,
    HookHealth,
    PluginReport,
    PluginState,
    Report,
    RolledBack,
    UnavailableSource,
    parse_to_sidecar,
)
from hookline_api.standing import policy_of
from waiting import PATIENCE_S

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from hookline_api.bundle import BundlePlugin


class SimulatedSidecar:
    """Connects once; ``run`` ends when the connection does.

    ``fails`` says for each plugin's name with what failure it is "not loaded"; ``stuck`` is for one that never gets
    ready; ``running`` is what it "ran" before it connected. ``knows_seals`` is not so of older versions.
    One that is ``silent`` does not even say that it is there. ``health`` is what it says of each plugin's
    hooks, ``unavailable`` what it says that they do not reach, ``rolled_back`` what it has gone back from; ``say``
    reports anew.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        token: str,
        trust: ssl.SSLContext,
        *,
        server_name: str | None = None,
        download: bool = True,
        fails: Callable[[str], LoadFailure | None] = lambda _: None,
        stuck: bool = False,
        running: BundleMessage | None = None,
        knows_seals: bool = True,
        silent: bool = False,
    ) -> None:
        self._session = session
        self._url = url
        self._token = token
        self._trust = trust
        self._server_name = server_name
        self._download = download
        self._fails = fails
        self._knows_seals = knows_seals
        self._silent = silent
        self.stuck = stuck
        self.running = running
        self.health: dict[str, list[HookHealth]] = {}
        self.unavailable: dict[str, list[UnavailableSource]] = {}
        self.rolled_back: dict[str, tuple[RolledBack, str | None]] = {}
        """By plugin: what failed on probation, and the revision that answers calls since."""
        self.held: BundleMessage | None = None
        self.blobs: dict[str, bytes] = {}
        self.bundles = 0
        """Messages with a bundle that came."""
        self.placeholders: list[tuple[str, str]] = []
        self.may_go_on: set[str] = set()
        """Placeholders in whose stead a real sidecar goes on with what it ran before."""
        """The plugins of which a bundle that came had no module, and why not: one for each time."""
        self.authority: AuthorityMessage | None = None
        """The newest authorities that it was told of."""
        self.connected = asyncio.Event()
        self.changed = asyncio.Event()
        self.closed_with: int | None = None
        self.probation = False
        """Whether it says that what it runs is on probation."""
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    def runs(self) -> dict[str, str]:
        """By plugin, the revision that "answers calls"."""
        plugins = self.running.bundle.plugins if self.running else []
        return {
            each.name: each.revision for each in plugins if each.artifact is not None and self._fails(each.name) is None
        }

    async def run(self) -> None:
        """Be connected. Raises aiohttp.WSServerHandshakeError where the operator refuses."""
        async with self._session.ws_connect(
            self._url + DISTRIBUTION_PATH,
            headers=self._headers,
            ssl=self._trust,
            server_hostname=self._server_name,
            heartbeat=20,
            max_msg_size=MAX_BUNDLE,
        ) as socket:
            self._socket = socket
            self.connected.set()
            if not self._silent:
                await self._report(socket)
            deadline: asyncio.Task[None] | None = None
            try:
                async for message in socket:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        continue
                    told = parse_to_sidecar(orjson.loads(message.data))
                    if isinstance(told, BundleMessage) and not self._knows_seals:
                        plugins = [each.model_copy(update={"seal": None}) for each in told.bundle.plugins]
                        told = told.model_copy(update={"bundle": Bundle(plugins=plugins)})
                    if isinstance(told, BundleMessage):
                        self.bundles += 1
                        empty = [each for each in told.bundle.plugins if each.artifact is None]
                        self.placeholders += [
                            (each.name, each.failure.message if each.failure is not None else "") for each in empty
                        ]
                        self.may_go_on = {
                            each.name for each in empty if policy_of(each.failure_policy, each.failure) == "LastGood"
                        }
                        if deadline is not None:
                            deadline.cancel()
                        deadline = await self._take(told, socket)
                    elif isinstance(told, AuthorityMessage):
                        self.authority = told
                    elif self.stuck or not isinstance(told, Commit):
                        continue
                    elif self.held is not None and told.version == self.held.version:
                        await self._switch(self.held, socket)
            finally:
                self.closed_with = socket.close_code
                self.connected.clear()
                if deadline is not None:
                    deadline.cancel()

    def bundle_of(self, plugin: str) -> BundlePlugin:
        """A plugin's entry in the bundle that runs. Raises StopIteration."""
        assert self.running is not None
        return next(each for each in self.running.bundle.plugins if each.name == plugin)

    async def goes_back(self, revision: str, message: str, *, plugin: str = "guard", to: str | None = "before") -> None:
        """Say that a revision has failed on probation, and what runs in its place."""
        told = RolledBack(revision=revision, calls=12, failures=5, cause="trap", message=message)
        self.rolled_back[plugin] = told, to
        assert self._socket is not None
        await self._report(self._socket)

    async def report(self) -> None:
        """Say once more what is so."""
        assert self._socket is not None
        await self._report(self._socket)

    async def take_held(self) -> None:
        """Get ready after all, for one that was stuck."""
        assert self.held is not None
        assert self._socket is not None
        await self._take(self.held, self._socket)

    async def send(self, text: str) -> None:
        """Say anything at all."""
        assert self._socket is not None
        await self._socket.send_str(text)

    async def say(self) -> None:
        """Report anew."""
        assert self._socket is not None
        await self._report(self._socket)

    async def blob(self, sha256: str) -> tuple[int, bytes]:
        """A module, as a sidecar asks for it: status and body."""
        async with self._session.get(
            self._url + BLOBS_PATH + sha256,
            headers=self._headers,
            ssl=self._trust,
            server_hostname=self._server_name,
        ) as response:
            return response.status, await response.read()

    async def until(self, wanted: Callable[[], Any], seconds: float = PATIENCE_S) -> None:
        """Wait for something to be true of this sidecar. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not wanted():
                self.changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await self.changed.wait()

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    async def _take(self, told: BundleMessage, socket: aiohttp.ClientWebSocketResponse) -> asyncio.Task[None] | None:
        self.held = told
        self.changed.set()
        if self.stuck:
            return None
        for entry in told.bundle.plugins:
            if entry.artifact is not None and self._download and entry.artifact.sha256 not in self.blobs:
                status, body = await self.blob(entry.artifact.sha256)
                if status == 200 and hashlib.sha256(body).hexdigest() == entry.artifact.sha256:
                    self.blobs[entry.artifact.sha256] = body
        if not told.hold:
            await self._switch(told, socket)
            return None
        await self._report(socket)

        async def switch_late() -> None:
            await asyncio.sleep(told.deadline / 1000)
            if self.held is told:
                await self._switch(told, socket)

        return asyncio.create_task(switch_late())

    async def _switch(self, told: BundleMessage, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.running, self.held = told, None
        await self._report(socket)
        self.changed.set()

    async def _report(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        plugins = self._plugins()
        report = Report(
            running=self.running.version if self.running else None,
            prepared=self.held.version if self.held else None,
            ready=all(each.state != "Closed" for each in plugins),
            plugins=plugins,
            sidecar="simulated",
        )
        await socket.send_str(report.model_dump_json(by_alias=True))

    def _plugins(self) -> list[PluginReport]:
        """About the newest bundle, whatever answers calls meanwhile."""
        newest, runs, reports = self.held or self.running, self.runs(), []
        for entry in newest.bundle.plugins if newest else []:
            failure = self._fails(entry.name) or (entry.failure if entry.artifact is None else None)
            revision = runs.get(entry.name)
            state: PluginState = "Running" if revision == entry.revision else "Updating" if revision else "LeftOut"
            back, instead = self.rolled_back.get(entry.name, (None, None))
            if back is not None and back.revision == entry.revision:
                revision, state = instead, "LastGood"
                failure = LoadFailure(cause="verify", message=back.message)
            else:
                back = None
            if entry.artifact is None and newest is self.running:
                state = "Closed"
            reports.append(
                PluginReport(
                    name=entry.name, state=state, revision=revision, failure=failure,
                    health=self.health.get(entry.name, []) if revision else [],
                    unavailable=self.unavailable.get(entry.name, []) if revision else [],
                    rolled_back=back, probation=self.probation and back is None,
                )
            )  # fmt: skip
        return reports
