"""Distribution: the road from what the catalogue holds to the sidecars that are connected to this replica.

The protocol is ``hookline_api.distribution``. Each connection has a session with a task of its own that sends the
pod's newest bundle whenever it may have changed; a slow sidecar so delays nobody, and what it missed is not sent
late. A pod gets what its own namespace and labels select, and nothing else, whatever it asks for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import WSMsgType, web
from pydantic import ValidationError

from hookline_api import json_cost
from hookline_api.distribution import (
    BLOBS_PATH,
    DISTRIBUTION_PATH,
    MAX_REPORT,
    MAX_REPORT_VALUES,
    Commit,
    Report,
)
from hookline_operator.catalogue import SIDECAR_LABEL, Pod
from hookline_operator.fleet import Fleet, PodState, Released
from hookline_operator.identity import Caller, DeniedError
from hookline_operator.kube import KubeError, path
from hookline_runtime.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp.abc import AbstractStreamWriter

    from hookline_api.bundle import BundlePlugin
    from hookline_operator.blobs import Blob
    from hookline_operator.bundles import Bundles, PodBundle
    from hookline_operator.catalogue import Catalogue
    from hookline_operator.identity import Reviewer
    from hookline_operator.kube import Key, Kube

_HEARTBEAT_S: Final = 20.0
_SEND_S: Final = 60.0
_CLOSE_S: Final = 5.0
_MAX_SESSIONS: Final = 20_000
_MAX_SENTENCE: Final = 1024
_DOWNLOADS_AT_ONCE: Final = 8
"""Of one pod. A sidecar makes four; one that nobody reads holds some memory."""
_DOWNLOAD_S: Final = 300.0
"""For one module: as long as a sidecar waits for it."""
_PIECE: Final = 16 * 1024
"""Bytes of a module that are written at once. A connection that nobody reads holds this and asyncio's 64 KiB."""
_WASM: Final = {"Content-Type": "application/wasm"}
_REPLACED: Final = 4409
"""WebSocket close code: the same pod has connected again (private use, RFC 6455 section 7.4.2)."""
_GOING_AWAY: Final = 1001
_NOT_A_REPORT: Final = 1007
_FAILED: Final = 1011
_FORBIDDEN: Final = 403

log = logging.getLogger("hookline.distribution")

FindBlob = Callable[[str, "BundlePlugin"], Awaitable["Blob"]]
"""Finds the module of an entry of a namespace. Raises LoadError."""


class Session:
    """One connected sidecar."""

    def __init__(self, caller: Caller, pod: Pod, socket: web.WebSocketResponse, cut: Callable[[], None]) -> None:
        self.caller = caller
        self.pod = pod
        self.socket = socket
        self.cut = cut
        """Ends the connection, whatever the other side does."""
        self.report = Report()
        self.sent: PodBundle | None = None
        self.settled: PodBundle | None = None
        """What was sent, and is running, as the sidecar said."""
        self.held = False
        """Whether what was sent waits for a commit."""
        self.gone = False
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
        """Whether the sidecar said so."""
        return any(each.name == plugin and each.revision == revision for each in self.report.plugins)


class Distribution:
    """The sessions of this replica."""

    def __init__(
        self,
        kube: Kube,
        catalogue: Catalogue,
        bundles: Bundles,
        fleet: Fleet,
        reviewer: Reviewer,
        find_blob: FindBlob,
        *,
        is_peer: Callable[[Caller], bool],
    ) -> None:
        self._kube = kube
        self._catalogue = catalogue
        self._bundles = bundles
        self._fleet = fleet
        self._reviewer = reviewer
        self._find_blob = find_blob
        self._is_peer = is_peer
        self._downloads: Counter[str] = Counter()
        """Under way, by the pod's uid."""
        self._sessions: dict[str, Session] = {}
        """By the pod's uid."""
        self._by_namespace: dict[str, set[Session]] = defaultdict(set)
        catalogue.plugin_changed.append(self._plugin_changed)
        catalogue.pod_changed.append(self._pod_changed)
        fleet.newly_released.append(self._released)

    @property
    def connected(self) -> int:
        """How many sidecars are connected to this replica."""
        return len(self._sessions)

    def routes(self) -> list[web.RouteDef]:
        """For the HTTPS server."""
        return [
            web.get(DISTRIBUTION_PATH, self._connect),
            web.get(BLOBS_PATH + "{sha256}", self._blob, allow_head=False),
        ]

    async def close(self) -> None:
        """Send everybody elsewhere, and wait for nobody long."""
        sessions = list(self._sessions.values())
        await asyncio.gather(*(_let_go(each, _GOING_AWAY, b"this replica stops") for each in sessions))

    # ── connections ──

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        try:
            caller = await self._reviewer.caller(request)
            pod = await self._pod(caller)
        except DeniedError as error:
            return denied(error)
        if len(self._sessions) >= _MAX_SESSIONS:
            return denied(DeniedError(503, "this replica has as many sidecars as it can take; ask again for another"))
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=MAX_REPORT, compress=False)
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return socket  # it has gone already
        session = Session(caller, pod, socket, transport.abort)
        older = self._sessions.get(pod.uid)
        self._sessions[pod.uid] = session
        self._by_namespace[pod.namespace].add(session)
        tasks = [asyncio.create_task(self._tell(session), name=f"tell {pod.name}")]
        if older is not None:
            self._by_namespace[pod.namespace].discard(older)
            # Beside the rest: most often it is there no longer, and does not answer.
            replaced = _let_go(older, _REPLACED, b"the pod has connected again")
            tasks.append(asyncio.create_task(replaced, name=f"replace {pod.name}"))
        try:
            # What breaks off in the middle of an answer to a ping is no defect, and no stack trace for the log.
            with contextlib.suppress(ConnectionError):
                await self._listen(session)
        finally:
            for task in tasks:
                task.cancel()
            self._by_namespace[pod.namespace].discard(session)
            if self._sessions.get(pod.uid) is session:
                del self._sessions[pod.uid]
                self._fleet.drop(pod.uid)
            await asyncio.gather(*tasks, return_exceptions=True)
        return socket

    async def _pod(self, caller: Caller) -> Pod:
        """The live, labelled pod that a caller is. Raises DeniedError."""
        if caller.pod is None or caller.pod_uid is None:
            raise DeniedError(403, "the token is bound to no pod: mount it as a projected serviceAccountToken volume")
        pod = self._catalogue.pods[caller.namespace].get(caller.pod)
        if pod is None or pod.uid != caller.pod_uid:
            try:  # the watch may be behind
                found = await self._kube.get(path("v1", "pods", caller.namespace, caller.pod))
            except KubeError as error:
                if error.status == _FORBIDDEN:
                    text = f"this operator does not watch namespace '{caller.namespace}'"
                    raise DeniedError(403, text) from error
                raise DeniedError(503, f"the pod cannot be looked up now: {error}") from error
            pod = Pod.of(found) if found is not None else None
        if pod is None or pod.uid != caller.pod_uid or not pod.live:
            raise DeniedError(403, f"the token's pod '{caller.pod}' is gone")
        if pod.labels.get(SIDECAR_LABEL) != "true":
            raise DeniedError(403, f"pod '{caller.pod}' has no label {SIDECAR_LABEL}=true, by which plugins find it")
        return pod

    async def _listen(self, session: Session) -> None:
        async for message in session.socket:
            if message.type is not WSMsgType.TEXT:
                continue
            try:
                json_cost.check(message.data, what="it", max_values=MAX_REPORT_VALUES)
                data = orjson.loads(message.data)
                if not isinstance(data, dict) or data.get("type") != "report":
                    continue
                session.report = _cut(Report.model_validate(data))
            except (ValueError, ValidationError) as error:
                log.warning("pod '%s/%s' sent no report: %.200s", session.pod.namespace, session.pod.name, error)
                await _let_go(session, _NOT_A_REPORT, b"not a report")
                return
            if session.sent is not None and session.report.running == session.sent.version:
                session.settled = session.sent
            self._tell_fleet(session)
            if not session.held:  # the first, or one after which more is to come
                session.dirty.set()

    def _tell_fleet(self, session: Session) -> None:
        if self._sessions.get(session.pod.uid) is session:
            self._fleet.put(
                PodState(
                    uid=session.pod.uid,
                    namespace=session.pod.namespace,
                    name=session.pod.name,
                    report=session.report,
                    prepared=session.prepared,
                    answered=session.answered,
                )
            )

    # ── what they are told ──

    async def _tell(self, session: Session) -> None:
        """Send what is new, as often as something may be."""
        pod = session.pod
        try:
            while True:
                await session.dirty.wait()
                session.dirty.clear()
                session.pod = self._catalogue.pods[pod.namespace].get(pod.name, session.pod)
                if session.gone or session.pod.uid != pod.uid or not session.pod.live:
                    await _let_go(session, _GOING_AWAY, b"the pod is going")
                    return
                bundle = await self._bundles.of_pod(session.pod)
                async with asyncio.timeout(_SEND_S):
                    await self._send(session, bundle)
        except (ConnectionError, TimeoutError, RuntimeError) as error:
            log.info("pod '%s/%s' cannot be told: %s", pod.namespace, pod.name, str(error) or type(error).__name__)
            await _let_go(session, _FAILED, b"it does not read")
        except Exception:  # a defect of ours: without this, the pod would stay connected and never hear again
            log.exception("what pod '%s/%s' must run cannot be told", pod.namespace, pod.name)
            await _let_go(session, _FAILED, b"the operator failed")

    async def _send(self, session: Session, bundle: PodBundle) -> None:
        released, namespace = self._fleet.released, session.pod.namespace
        waiting = {
            name
            for name, revision in bundle.revisions.items()
            if released.get((namespace, name)) != revision and not session.runs(name, revision)
        }
        if waiting and session.settled is not None and bundle is not session.sent:
            # What need not wait goes first: a plugin that is taken away must not stay for another's deadline.
            meanwhile = bundle.with_older(waiting, session.settled)
            if meanwhile.version != session.settled.version:
                if session.sent is None or session.sent.version != meanwhile.version:
                    await self._hand_out(session, meanwhile, hold=False)
                return  # its report brings us back
        if bundle is not session.sent:
            # A pod that runs nothing yet has nothing to go on with meanwhile.
            await self._hand_out(session, bundle, hold=bool(waiting) and session.report.running is not None)
        elif session.held and not waiting:
            session.held = False
            await session.socket.send_str(Commit(version=bundle.version).model_dump_json(by_alias=True))

    async def _hand_out(self, session: Session, bundle: PodBundle, *, hold: bool) -> None:
        session.held, session.sent = hold, bundle
        await session.socket.send_str(bundle.message(hold=hold))
        self._tell_fleet(session)

    def _plugin_changed(self, key: Key) -> None:
        plugin = self._catalogue.plugin(key)
        if plugin is None:
            self._fleet.forget(key)
        elif self._bundles.is_known(plugin):
            return  # while two thousand pods switch, the status changes each second: no news for any of them
        for session in self._by_namespace.get(key[0], ()):
            session.dirty.set()

    def _pod_changed(self, key: Key) -> None:
        for session in self._by_namespace.get(key[0], ()):
            if session.pod.name == key[1]:
                # Of a new pod the watch may not have told yet; where it tells of a change and there is none, it went.
                session.gone = key[1] not in self._catalogue.pods[key[0]]
                session.dirty.set()

    def _released(self, released: Released) -> None:
        for session in self._by_namespace.get(released[0], ()):
            if session.held:
                session.dirty.set()

    # ── blobs ──

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        """A module, for a pod whose bundle names it, or for a peer."""
        sha256 = request.match_info["sha256"]
        try:
            caller = await self._reviewer.caller(request)
            found = await self._named(caller, sha256)
        except DeniedError as error:
            return denied(error)
        namespace, entry = found
        pod = caller.pod_uid or ""
        if self._downloads[pod] >= _DOWNLOADS_AT_ONCE and not self._is_peer(caller):
            return denied(DeniedError(503, f"this pod has {_DOWNLOADS_AT_ONCE} downloads under way; end one first"))
        self._downloads[pod] += 1
        try:
            blob = await self._find_blob(namespace, entry)
        except BaseException as error:
            self._downloaded(pod)
            if isinstance(error, LoadError):
                return denied(DeniedError(503, f"the module cannot be had now: {error}"))
            raise
        kind = _FromDisk if blob.data is None or "Range" in request.headers else _FromMemory
        return kind(blob, lambda: self._downloaded(pod))

    def _downloaded(self, pod: str) -> None:
        self._downloads[pod] -= 1
        if not self._downloads[pod]:
            del self._downloads[pod]

    async def _named(self, caller: Caller, sha256: str) -> tuple[str, BundlePlugin]:
        """The entry that names this blob, of those that the caller may have. Raises DeniedError."""
        if self._is_peer(caller):
            for plugin in self._catalogue.all_plugins():
                revision = self._catalogue.current(plugin)
                if revision is not None and sha256.encode() in revision.template:
                    standing = await self._bundles.standing(plugin)
                    if standing is not None and standing.entry.artifact is not None:
                        return plugin.namespace, standing.entry
        else:
            pod = await self._pod(caller)
            bundle = (await self._bundles.of_pod(pod)).bundle
            for entry in bundle.plugins:
                if entry.artifact is not None and entry.artifact.sha256 == sha256:
                    return pod.namespace, entry
        # Whether it exists elsewhere is nobody's business.
        raise DeniedError(404, "no plugin of this pod has such a module")


class _FromDisk(web.FileResponse):
    """A module on its way; ``done`` hears when it has arrived, or never will."""

    def __init__(self, blob: Blob, done: Callable[[], None]) -> None:
        super().__init__(blob.path, headers=_WASM)
        self._done = done

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        async with _download(request, self._done):
            return await super().prepare(request)


class _FromMemory(web.StreamResponse):
    """The same of a small one."""

    def __init__(self, blob: Blob, done: Callable[[], None]) -> None:
        super().__init__(headers=_WASM)
        self._data = blob.data or b""
        self._done = done
        self.content_length = len(self._data)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        async with _download(request, self._done):
            writer = await super().prepare(request)
            for begin in range(0, len(self._data), _PIECE):
                await self.write(self._data[begin : begin + _PIECE])
                if writer is not None:
                    await writer.drain()
            return writer


@contextlib.asynccontextmanager
async def _download(request: web.BaseRequest, done: Callable[[], None]) -> AsyncIterator[None]:
    """While a module is sent: how much of it waits for its reader at most, and for how long."""
    try:
        if request.transport is not None:
            # Of asyncio's half a megabyte, two thousand connections would take a gigabyte.
            request.transport.set_write_buffer_limits(_PIECE)
        async with asyncio.timeout(_DOWNLOAD_S):
            yield
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()  # it does not read, and so would not hear that this is the end
        raise ConnectionResetError("the download took too long") from None
    except AttributeError:
        if request.transport is not None:
            raise
        # asyncio's sendfile stumbles so where TLS is gone: whoever hangs up could fill the log with stack traces.
        raise ConnectionResetError("the other side hung up") from None
    finally:
        done()


def _cut(report: Report) -> Report:
    """With sentences of a length that is kept for twenty thousand sidecars, and may stand in a status."""
    if all(each.failure is None or len(each.failure.message) <= _MAX_SENTENCE for each in report.plugins):
        return report
    plugins = [
        each.model_copy(
            update={"failure": each.failure.model_copy(update={"message": each.failure.message[:_MAX_SENTENCE]})}
        )
        if each.failure is not None
        else each
        for each in report.plugins
    ]
    return report.model_copy(update={"plugins": plugins})


async def _let_go(session: Session, code: int, why: bytes) -> None:
    """Close a connection, and do not wait long for the other side: aiohttp would, for one that does not read."""
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
    if error.status == 503:  # noqa: PLR2004
        headers["Retry-After"] = "5"
    body = orjson.dumps({"title": str(error), "status": error.status})
    return web.Response(status=error.status, body=body, content_type="application/problem+json", headers=headers)
