"""Between replicas: followers tell the leader what their sidecars report, and hear which revisions are released.

A follower keeps one WebSocket to the leader. It shows its own service account's token, which is checked as a sidecar's
is. A new connection begins with all of the state. Without a leader, sidecars switch at their deadline, and what they
run goes on.

A follower has read no more of each sidecar than a session's ration, and sends the newest of each pod. It sends in
pieces, and the leader reads pod by pod with room for other work between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Final

import aiohttp
import orjson
from aiohttp import WSMsgType, web
from pydantic import ValidationError

from hookline_api import sentences
from hookline_api.base import Resource
from hookline_api.distribution import BLOBS_PATH, MAX_BUNDLE
from hookline_artifacts.errors import FetchError
from hookline_artifacts.net import failures
from hookline_operator.serve.fleet import Fleet, PodState, Released
from hookline_operator.serve.identity import Caller, DeniedError, Reviewer
from hookline_operator.serve.sessions import denied
from hookline_serving import vouch

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hookline_operator.cluster.replica import Replica

_PATH: Final = "/v1/peers"
_PIECE: Final = 256 * 1024
"""Bytes of what is told at once. One pod's state may be more, and then it is alone."""
_MAX_STATES: Final = 8 * 2**20
"""Bytes of a follower's message. One pod with a thousand plugins and the longest sentences takes 7 MiB."""
_MAX_FOLLOWERS: Final = 32
"""Connections of replicas. A chart has two or three, and a dead one is noticed after some seconds."""
_GROUP: Final = 20
"""Pods of which is read before others have their turn."""
_HEARTBEAT_S: Final = 5.0
_GATHER_S: Final = 0.02
_AGAIN_S: Final = 2.0
_LOOK_S: Final = 1.0
_CONNECT_S: Final = 5.0
_BLOB_S: Final = 120.0
_BLOB_QUIET_S: Final = 10.0
_DISTRUST: Final = "it goes by another Secret; see that all replicas are of one release"

log = logging.getLogger("hookline.peers")


class Peers:
    """This replica among the others."""

    def __init__(
        self,
        fleet: Fleet,
        reviewer: Reviewer,
        *,
        own_name: str,
        leader: Callable[[], Replica | None],
        leading: Callable[[], bool],
        is_peer: Callable[[Caller], bool],
        client_context: Callable[[], ssl.SSLContext],
        server_name: str,
        token: Path,
    ) -> None:
        """``client_context`` trusts the replicas' authorities. ``server_name`` is in every replica's certificate."""
        self._fleet = fleet
        self._reviewer = reviewer
        self._own_name = own_name
        self._leader = leader
        self._leading = leading
        self._is_peer = is_peer
        self._client_context = client_context
        self._server_name = server_name
        self._token = token
        self._changed: set[str] = set()
        self._news = asyncio.Event()
        self._followers: set[web.WebSocketResponse] = set()
        self._telling: set[asyncio.Task[None]] = set()

    @property
    def followed(self) -> bool:
        """Whether another replica is connected, which would lead next."""
        return bool(self._followers)

    def routes(self) -> list[web.RouteDef]:
        """For the HTTPS server."""
        return [web.get(_PATH, self._meet)]

    # ── the follower ──

    async def run(self) -> None:
        """Stay connected to the leader, for as long as that is another replica."""
        said = ""
        while True:
            leader = self._leader()
            if leader is None or self._leading() or leader.name == self._own_name:
                await asyncio.sleep(_LOOK_S)
                continue
            try:
                await self._follow(leader)
                said = ""
            except (ValueError, KeyError, TypeError) as error:  # of another version of ours, in an upgrade
                log.warning("the leader %s sent a message that cannot be read: %.200r", leader.name, error)
            except (aiohttp.ClientError, OSError, TimeoutError, RuntimeError) as error:
                why = failures.why(error, trust=_DISTRUST)
                if said != why:
                    log.info("the leader %s cannot be reached: %s", leader.name, why)
                said = why
            await asyncio.sleep(_AGAIN_S * random.uniform(0.5, 1.0))  # noqa: S311

    async def _follow(self, leader: Replica) -> None:
        async with aiohttp.ClientSession() as session:
            # A machine that hangs answers nothing at all, and meanwhile there may be another leader.
            async with asyncio.timeout(_CONNECT_S):
                socket = await session.ws_connect(
                    f"wss://{leader.address}{_PATH}",
                    headers={"Authorization": f"Bearer {await self._own_token()}"},
                    params={"name": self._own_name},
                    ssl=self._client_context(),
                    server_hostname=self._server_name,
                    heartbeat=_HEARTBEAT_S,
                    max_msg_size=MAX_BUNDLE,
                )
            log.info("connected to the leader %s", leader.name)
            self._changed = set(self._fleet.of_replica(""))
            self._news.set()
            telling = asyncio.create_task(self._tell_leader(socket, leader), name="tell the leader")
            try:
                await self._hear_leader(socket)
            finally:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)
                await socket.close()

    async def _hear_leader(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Take what it says is released. Raises ValueError, KeyError and TypeError where that cannot be read."""
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                for namespace, plugin, revision in orjson.loads(message.data)["released"]:
                    self._fleet.release((namespace, plugin, revision))

    async def _tell_leader(self, socket: aiohttp.ClientWebSocketResponse, leader: Replica) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._news.wait()
            if self._leader() != leader:
                await socket.close()
                return
            await asyncio.sleep(_GATHER_S)
            self._news.clear()
            changed, self._changed = self._changed, set()
            mine = self._fleet.of_replica("")
            for piece in _pieces({uid: mine.get(uid) for uid in changed}):
                await socket.send_bytes(piece)

    def sidecar_changed(self, uid: str, _state: PodState | None, _namespace: str, replica: str) -> None:
        """Tell the leader of a sidecar that is connected here."""
        if not replica:
            self._changed.add(uid)
            self._news.set()

    # ── the leader ──

    async def _meet(self, request: web.Request) -> web.StreamResponse:
        try:
            caller = await self._reviewer.identify(request)
        except DeniedError as error:
            return denied(error)
        if not self._is_peer(caller):
            return denied(DeniedError(403, "this is for replicas of the operator"))
        if len(self._followers) >= _MAX_FOLLOWERS:
            return denied(DeniedError(503, f"{_MAX_FOLLOWERS} replicas are connected already"))
        vouch(request)
        replica = f"{caller.pod}/{id(request)}"
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=_MAX_STATES, compress=False)
        await socket.prepare(request)
        self._followers.add(socket)
        try:
            await socket.send_bytes(
                orjson.dumps({"released": [[*key, revision] for key, revision in self._fleet.released.items()]})
            )
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    await self._take(message.data, replica)
        except ValidationError as error:
            why = sentences.without_values(error)
            log.warning("the replica %s sent a message that cannot be read: %s", caller.pod, why)
        except ConnectionError:  # in the middle of an answer to its ping; the library would log a stack trace
            pass
        finally:
            self._followers.discard(socket)
            self._fleet.drop_replica(replica)
        return socket

    async def _take(self, message: bytes, replica: str) -> None:
        """What a follower tells. Raises ValidationError."""
        for number, (uid, state) in enumerate(_States.model_validate_json(message).pods.items(), 1):
            if state is None:
                self._fleet.drop(uid, replica=replica)
            else:
                self._fleet.put(state, replica=replica)
            if not number % _GROUP:
                await asyncio.sleep(0)

    def released(self, released: Released) -> None:
        """Tell the followers what pods may switch to."""
        told = orjson.dumps({"released": [released]})
        for socket in self._followers:
            task = asyncio.create_task(self._send(socket, told))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _send(self, socket: web.WebSocketResponse, told: bytes) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            await socket.send_bytes(told)

    # ── both ──

    async def blob(self, namespace: str, sha256: str, size: int) -> bytes | None:
        """A namespace's module from the leader's store, unchecked. Raises FetchError.

        None where this replica leads, or nobody does.
        """
        leader = self._leader()
        if leader is None or self._leading() or leader.name == self._own_name:
            return None
        times = aiohttp.ClientTimeout(total=_BLOB_S, sock_connect=_CONNECT_S, sock_read=_BLOB_QUIET_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=times) as session,
                session.get(
                    f"https://{leader.address}{BLOBS_PATH}{sha256}",
                    params={"namespace": namespace},
                    headers={"Authorization": f"Bearer {await self._own_token()}"},
                    ssl=self._client_context(),
                    server_hostname=self._server_name,
                ) as response,
            ):
                if response.status == 200 and response.content_length == size:  # noqa: PLR2004
                    return await response.read()
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise FetchError(f"the leader cannot be asked: {failures.why(error, trust=_DISTRUST)}") from error
        raise FetchError(f"the leader answers {status}")

    async def _own_token(self) -> str:
        # Read each time: projected tokens rotate.
        return (await asyncio.to_thread(self._token.read_text)).strip()


class _States(Resource):
    """What a follower tells: of each pod that changed, its state, or that it is gone."""

    pods: dict[str, PodState | None]


def _pieces(pods: dict[str, PodState | None]) -> Iterator[bytes]:
    """Messages that tell of all of them."""
    piece: list[str] = []
    size = 0
    for uid, state in pods.items():
        told = f"{orjson.dumps(uid).decode()}:{'null' if state is None else state.model_dump_json(by_alias=True)}"
        if piece and size + len(told) > _PIECE:
            yield _message(piece)
            piece, size = [], 0
        piece.append(told)
        size += len(told)
    if piece:
        yield _message(piece)


def _message(told: list[str]) -> bytes:
    return ('{"pods":{' + ",".join(told) + "}}").encode()
