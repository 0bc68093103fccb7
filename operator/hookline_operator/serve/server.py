"""Distribution: each sidecar that is connected to this replica gets its pod's bundle.

The protocol is ``hookline_api.distribution``. Each connection has a session with its own task, which sends the newest
bundle whenever it may have changed. So a slow sidecar delays nobody, and skips what it missed. A pod gets what its
namespace and its labels select, whatever it asks for.

Reports are rationed, since whoever has one pod has its token. Of several reports the newest is read, with a limit on
the bytes in each second, and what concerns other plugins is left out. A connection that sends more than any sidecar
would is closed, and a pod may connect only so often.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from aiohttp import WSMsgType, web
from pydantic import ValidationError

from hookline_api import sentences
from hookline_api.distribution import (
    DISTRIBUTION_PATH,
    MAX_REPORT,
    REPORT_BASE,
    REPORT_OF_PLUGIN,
    Commit,
)
from hookline_api.json_cost import CostError
from hookline_artifacts.net import failures
from hookline_operator.rations import Rations
from hookline_operator.serve import reports, trust
from hookline_operator.serve.fleet import Fleet, PodState, Released
from hookline_operator.serve.frames import FrameGate
from hookline_operator.serve.identity import DeniedError
from hookline_operator.serve.sessions import Session, begin_end, denied, end
from hookline_serving import vouch

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_operator.cluster.catalogue import Catalogue
    from hookline_operator.cluster.kube import Key
    from hookline_operator.serve.bundles import Bundles, PodBundle
    from hookline_operator.serve.callers import Callers
    from hookline_operator.serve.identity import Reviewer

_HEARTBEAT_S: Final = 20.0
_SEND_S: Final = 60.0
_LAST_WORD_S: Final = 2.0
_MAX_SESSIONS: Final = 20_000
_HELLO_S: Final = 30.0
"""For a sidecar's first report, which it sends at once."""
_REPORT: Final = '"report"'
_REPORT_LEAST: Final = 4 * 1024
"""Bytes that a report counts for at least, since small ones cost time, too: 16 of them in each second."""
_REPORT_COST_OF_PLUGIN: Final = 64
"""Bytes that a report counts for with each plugin of its bundle, as each is looked at again. Of a thousand: one report
a second."""
_CONNECTS: Final = 20
_CONNECTS_EACH_SECOND: Final = 0.5
"""Connections of one pod. A sidecar comes again after a pause that grows to half a minute."""
_REPLACED: Final = 4409
"""WebSocket close code: the same pod has connected again (private use, RFC 6455 section 7.4.2)."""
_GOING_AWAY: Final = 1001
_NOT_A_REPORT: Final = 1007
_FAILED: Final = 1011
_POLICY: Final = 1008

log = logging.getLogger("hookline.distribution")


class Distribution:
    """The sessions of this replica."""

    def __init__(
        self,
        catalogue: Catalogue,
        bundles: Bundles,
        fleet: Fleet,
        reviewer: Reviewer,
        callers: Callers,
        *,
        authority: Callable[[], str],
        reported: Callable[[str], None] = lambda _: None,
        cut: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``authority`` gives the certificate authorities, PEM, that sidecars are told of.

        ``reported`` is called for each report: ``read``, ``passed`` over for a newer one, or too ``large``. ``cut`` is
        called for each connection that is ended for what it sent: ``flood``, ``unfinished``, ``silent``,
        ``not_a_report``; and with ``again`` where a pod connects too often.
        """
        self._reported = reported
        self._cut = cut
        self._connects: Rations[str] = Rations(burst=_CONNECTS, each_second=_CONNECTS_EACH_SECOND)
        """By the pod's uid."""
        self._catalogue = catalogue
        self._bundles = bundles
        self._fleet = fleet
        self._reviewer = reviewer
        self._callers = callers
        self._authority = authority
        self._sessions: dict[str, Session] = {}
        """By the pod's uid."""
        self._by_namespace: dict[str, set[Session]] = defaultdict(set)

    @property
    def connected(self) -> int:
        """How many sidecars are connected to this replica."""
        return len(self._sessions)

    def routes(self) -> list[web.RouteDef]:
        """For the HTTPS server."""
        return [web.get(DISTRIBUTION_PATH, self._connect)]

    def authority_changed(self) -> None:
        """There are other certificate authorities: tell everybody while they are connected."""
        for session in self._sessions.values():
            session.dirty.set()

    async def close(self) -> None:
        """End all sessions, so that the sidecars connect to another replica, which they are told how to know."""
        await asyncio.gather(*(self._leave(each) for each in list(self._sessions.values())))

    async def _leave(self, session: Session) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, RuntimeError):
            async with asyncio.timeout(_LAST_WORD_S):
                await self._introduce(session)
        await end(session, _GOING_AWAY, b"this replica stops")

    # ── connections ──

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        try:
            caller = await self._reviewer.identify(request)
            pod = await self._callers.look_up(caller)
        except DeniedError as error:
            return denied(error)
        if len(self._sessions) >= _MAX_SESSIONS:
            return denied(DeniedError(503, "this replica has as many sidecars as it can take; ask again for another"))
        if not self._connects.of(pod.uid).take():
            self._cut("again")
            return denied(DeniedError(429, "this pod connects too often; try again later"))
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=MAX_REPORT, compress=False)
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            return socket  # it has gone already
        vouch(request)
        session = Session(caller, pod, socket, transport.abort)
        gate = FrameGate.install(request, lambda why: self._refuse(session, why))
        older = self._sessions.get(pod.uid)
        self._sessions[pod.uid] = session
        self._by_namespace[pod.namespace].add(session)
        tasks = [
            asyncio.create_task(self._tell(session), name=f"tell {pod.name}"),
            asyncio.create_task(self._read(session), name=f"read {pod.name}"),
        ]
        if older is not None:
            self._by_namespace[pod.namespace].discard(older)
            # Beside the rest: most often it is there no longer, and does not answer.
            replaced = end(older, _REPLACED, b"the pod has connected again")
            tasks.append(asyncio.create_task(replaced, name=f"replace {pod.name}"))
        try:
            # A connection may break off in the middle of an answer to a ping: that needs no stack trace in the log.
            with contextlib.suppress(ConnectionError):
                await self._listen(session)
        finally:
            if gate is not None:
                gate.close()
            for task in tasks:
                task.cancel()
            self._by_namespace[pod.namespace].discard(session)
            if self._sessions.get(pod.uid) is session:
                del self._sessions[pod.uid]
                self._fleet.drop(pod.uid)
            await asyncio.gather(*tasks, return_exceptions=True)
            if session.going is not None:
                await asyncio.wait({session.going})  # the library closes the connection at once, and nobody hears why
        return socket

    async def _listen(self, session: Session) -> None:
        async for message in session.socket:
            if message.type is WSMsgType.TEXT:
                kind = _REPORT in message.data
                if kind in session.unread:
                    self._reported("passed")  # each says all: only the newest counts
                session.unread[kind] = message.data
                session.has_unread.set()

    async def _read(self, session: Session) -> None:
        """Read the newest report, as often as this session may."""
        pod = session.pod
        try:
            async with asyncio.timeout(_HELLO_S):
                await session.has_unread.wait()
            while True:
                await session.has_unread.wait()
                await asyncio.sleep(session.reading.owed)
                session.has_unread.clear()
                unread, session.unread = session.unread, {}
                for text in unread.values():
                    session.reading.spend(max(len(text), _REPORT_LEAST, session.most_plugins * _REPORT_COST_OF_PLUGIN))
                    await self._take(session, text)
        except TimeoutError:
            self._cut("silent")
            await end(session, _POLICY, b"no report came")
        except ValidationError as error:
            self._cut("not_a_report")
            why = sentences.without_values(error)
            log.warning("pod '%s/%s' sent no report: %s", pod.namespace, pod.name, why)
            await end(session, _NOT_A_REPORT, b"not a report")
        except CostError as error:
            self._cut("not_a_report")
            log.warning("pod '%s/%s' sent no report: %s", pod.namespace, pod.name, error)
            await end(session, _NOT_A_REPORT, b"not a report")
        except Exception:  # a defect of ours: without this, the pod would stay connected and never be heard again
            log.exception("what pod '%s/%s' reports cannot be read", pod.namespace, pod.name)
            await end(session, _FAILED, b"the operator failed")

    async def _take(self, session: Session, text: str) -> None:
        """Take in one report. Raises ValidationError where it cannot be read."""
        bundle = session.sent or await self._bundles.of_pod(session.pod)
        session.most_plugins = max(session.most_plugins, len(bundle.bundle.plugins))
        if len(text) > REPORT_BASE + REPORT_OF_PLUGIN * session.most_plugins:
            # Not the end: a sidecar that ran hundreds of plugins, and is to run one, has to hear of that.
            self._reported("large")
            report = session.report
        else:
            read = reports.read(text)
            if read is None:
                return
            self._reported("read")
            known = (bundle, session.settled or bundle)
            unsealed: dict[tuple[str, str], str] = {}
            if reports.revisions(read) - {
                None,
                *known[0].revisions.values(),
                *known[1].revisions.values(),
            }:
                unsealed = known[1].unsealed | known[0].unsealed  # perhaps it is older, and calls them by other names
            report = reports.about(read, {each.name for each in bundle.bundle.plugins}, unsealed=unsealed)
        session.report = report
        if session.sent is not None and session.report.running == session.sent.version:
            session.settled = session.sent
        self._tell_fleet(session)
        if not session.held:  # the first, or one after which more is to come
            session.dirty.set()

    def _refuse(self, session: Session, why: str) -> None:
        """Close a connection of which nothing more is read."""
        self._cut(why)
        pod = session.pod
        log.warning("pod '%s/%s' is disconnected (%s): it does not behave like a sidecar", pod.namespace, pod.name, why)
        begin_end(session, _POLICY, why.encode())

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
                session.pod = self._catalogue.pod((pod.namespace, pod.name)) or session.pod
                if session.gone or session.pod.uid != pod.uid or not session.pod.live:
                    await end(session, _GOING_AWAY, b"the pod is going")
                    return
                bundle = await self._bundles.of_pod(session.pod)
                async with asyncio.timeout(_SEND_S):
                    await self._introduce(session)
                    await self._send(session, bundle)
        except (ConnectionError, TimeoutError, RuntimeError) as error:
            why = failures.why(error, trust="")
            log.info("pod '%s/%s' cannot be told what to run: %s", pod.namespace, pod.name, why)
            await end(session, _FAILED, b"it does not read")
        except Exception:  # a defect of ours: without this, the pod would stay connected and never hear again
            log.exception("pod '%s/%s' could not be told what to run", pod.namespace, pod.name)
            await end(session, _FAILED, b"the operator failed")

    async def _introduce(self, session: Session) -> None:
        """Tell it by whom this operator will be known, where it does not know."""
        told = trust.message(self._authority())
        if told.version not in {session.authority, session.report.authority}:
            session.authority = told.version
            await session.socket.send_str(told.model_dump_json(by_alias=True))

    async def _send(self, session: Session, bundle: PodBundle) -> None:
        released, namespace = self._fleet.released, session.pod.namespace
        waiting = {
            name
            for name, revision in bundle.revisions.items()
            if released.get((namespace, name)) != revision and not session.runs(name, revision)
        }
        # What a policy forbids by now is nothing to go on with until the others are prepared.
        older = session.settled.bundle.plugins if session.settled is not None and waiting else []
        for each in older:
            if each.name in waiting and await self._bundles.forbids(namespace, each):
                waiting.discard(each.name)
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

    def plugin_changed(self, key: Key) -> None:
        """Send the pods of its namespace what may have changed."""
        plugin = self._catalogue.plugin(key)
        if plugin is None:
            self._fleet.forget(key)
        elif self._bundles.is_known(plugin):
            return  # while two thousand pods switch, the status changes each second: no news for any of them
        for session in self._by_namespace.get(key[0], ()):
            session.dirty.set()

    def pod_changed(self, key: Key) -> None:
        """A pod has other labels, or is gone: send what that changes, or end its session."""
        for session in self._by_namespace.get(key[0], ()):
            if session.pod.name == key[1]:
                # The watch may be late with a new pod. Here it tells of a change: a pod that is missing has gone.
                session.gone = self._catalogue.pod(key) is None
                session.dirty.set()

    def released(self, released: Released) -> None:
        """Pods may switch to this revision: tell those that wait."""
        for session in self._by_namespace.get(released[0], ()):
            if session.held:
                session.dirty.set()
