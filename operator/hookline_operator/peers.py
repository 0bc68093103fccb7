"""Between replicas: the others tell the leader what their sidecars say, and hear which revisions are released.

A follower keeps one WebSocket to the leader, with its own service account's token, checked as a sidecar's is. It
is level-triggered like everything here: a new connection begins with all of the state. Without a leader, or a way to
it, sidecars switch at their deadline, and what they run goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import orjson
from aiohttp import WSMsgType, web
from pydantic import ValidationError

from hookline_api.distribution import BLOBS_PATH, MAX_BUNDLE
from hookline_operator.distribution import denied
from hookline_operator.fleet import Fleet, PodState, Released
from hookline_operator.identity import Caller, DeniedError, Reviewer
from hookline_runtime.artifacts.certificates import distrust
from hookline_runtime.errors import FetchError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from hookline_operator.election import Replica

_PATH: Final = "/v1/peers"
_HEARTBEAT_S: Final = 5.0
_GATHER_S: Final = 0.02
_AGAIN_S: Final = 2.0
_LOOK_S: Final = 1.0
_CONNECT_S: Final = 5.0
_BLOB_S: Final = 120.0
_BLOB_QUIET_S: Final = 10.0

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
        """``client_context`` trusts the replicas' authorities, ``server_name`` is in every replica's certificate."""
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
        fleet.changed.append(self._heard)
        fleet.newly_released.append(self._released)

    def routes(self) -> list[web.RouteDef]:
        """For the HTTPS server."""
        return [web.get(_PATH, self._meet)]

    # ── the follower ──

    async def run(self) -> None:
        """Be connected to the leader, whoever it is, as long as it is another."""
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
                log.warning("the leader %s sent what cannot be read: %.200r", leader.name, error)
            except (aiohttp.ClientError, OSError, TimeoutError, RuntimeError) as error:
                why = str(error) or type(error).__name__
                if isinstance(error, aiohttp.ClientConnectorCertificateError):
                    why = distrust(error, remedy="it goes by another Secret; see that all replicas are of one release")
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
                async for message in socket:
                    if message.type is WSMsgType.BINARY:
                        for namespace, plugin, revision in orjson.loads(message.data)["released"]:
                            self._fleet.release((namespace, plugin, revision))
            finally:
                telling.cancel()
                await asyncio.gather(telling, return_exceptions=True)
                await socket.close()

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
            pods = {uid: mine[uid].model_dump(mode="json", by_alias=True) if uid in mine else None for uid in changed}
            for batch in _batches(pods):
                await socket.send_bytes(orjson.dumps({"pods": batch}))

    def _heard(self, uid: str, _state: PodState | None, _namespace: str, replica: str) -> None:
        if not replica:
            self._changed.add(uid)
            self._news.set()

    # ── the leader ──

    async def _meet(self, request: web.Request) -> web.StreamResponse:
        try:
            caller = await self._reviewer.caller(request)
        except DeniedError as error:
            return denied(error)
        if not self._is_peer(caller):
            return denied(DeniedError(403, "this is for replicas of the operator"))
        replica = f"{caller.pod}/{id(request)}"
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=MAX_BUNDLE, compress=False)
        await socket.prepare(request)
        self._followers.add(socket)
        try:
            await socket.send_bytes(
                orjson.dumps({"released": [[*key, revision] for key, revision in self._fleet.released.items()]})
            )
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    self._take(orjson.loads(message.data), replica)
        except (ValueError, KeyError, ValidationError) as error:
            log.warning("the replica %s sent what cannot be read: %.200s", caller.pod, error)
        except ConnectionError:  # in the middle of an answer to its ping; the library would log a stack trace
            pass
        finally:
            self._followers.discard(socket)
            self._fleet.drop_replica(replica)
        return socket

    def _take(self, message: dict[str, Any], replica: str) -> None:
        for uid, state in message["pods"].items():
            if state is None:
                self._fleet.drop(uid, replica=replica)
            else:
                self._fleet.put(PodState.model_validate(state), replica=replica)

    def _released(self, released: Released) -> None:
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
        """A namespace's module of the leader's, unchecked. Raises FetchError.

        None where this replica leads or nobody does.
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
            raise FetchError(f"the leader cannot be asked: {str(error) or type(error).__name__}") from error
        raise FetchError(f"the leader answers {status}")

    async def _own_token(self) -> str:
        # Read each time: projected tokens rotate.
        return (await asyncio.to_thread(self._token.read_text)).strip()


def _batches(pods: dict[str, Any], size: int = 200) -> list[dict[str, Any]]:
    items = list(pods.items())
    return [dict(items[start : start + size]) for start in range(0, len(items), size)]
