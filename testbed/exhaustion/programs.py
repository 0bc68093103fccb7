"""The programs under attack, each in its box: where they listen, who is honest to them, and which of them died.

Addresses are in one place, ``addresses``, which is all that an attack is told.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp

from cluster.binaries import binary
from exhaustion.box import ROOT, Box, chart_limit, family
from exhaustion.honest import Load, Stream
from exhaustion.payloads import echo_module
from exhaustion.resources import home, plugin_of, pod, pod_token, review_of, tenant, write_plugin
from hookline_api.distribution import AUDIENCE, DISTRIBUTION_PATH
from local_ports import reserve_ports
from sessions import client_session
from waiting import PATIENCE_S, until

if TYPE_CHECKING:
    from cluster.access import Access

HOOKS_A_SECOND: Final = 40.0
OTHERS_A_SECOND: Final = 5.0
_PODS: Final = 6
"""Honest pods, whose sidecars connect in turn: one that connects again ends its own older session."""
_TOKENS: Final = 4
"""Of each: every one is new to the operator once, so that tokens that are not known yet are in the load."""
_REPLACED: Final = 4409
"""Close code: the same pod has connected again."""


class Program(Protocol):
    """One of them."""

    box: Box

    @property
    def addresses(self) -> dict[str, Any]:
        """What an attack has to know; plain data."""

    @property
    def pids(self) -> list[int]:
        """The processes that have to live through everything."""

    @property
    def log(self) -> str:
        """What it has written."""

    def load(self) -> contextlib.AbstractAsyncContextManager[Load]:
        """The honest load, not running yet."""

    async def deploy(self, name: str) -> None:
        """Have an honest new plugin run; returns when it does."""


class SidecarProgram:
    """A sidecar that follows a folder, with one honest plugin that answers its input."""

    def __init__(self, box: Box, folder: Path) -> None:
        self.box = box
        self._root = folder
        self.plugins, self.state = folder / "plugins", folder / "state"
        self.plugins.mkdir()
        self._hook, self._public, self._private = reserve_ports(3)
        self._log = folder / "log"
        # Whoever may call hooks may take all of a plugin's room: this one has some for a hundred strangers, and waits.
        room = {"timeout": "5s", "memory": "8Mi", "concurrency": 32}
        write_plugin(self.plugins, "honest", echo_module(), limits=room)
        command = [
            *box.command, sys.executable, "-m", "hookline_sidecar", f"--plugins={self.plugins}",
            f"--state={self.state}", f"--listen=127.0.0.1:{self._hook}", f"--socket={folder / 'hooks.sock'}",
            *self._doors(),
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL, env=_clean())
        box.watches(self._process.pid)
        try:
            until(self._ready, lambda: f"a ready sidecar; it said:\n{self.log}")
        except BaseException:
            self.close()
            raise
        self._pids = family(self._process.pid)

    def _doors(self) -> list[str]:
        """Which port strangers reach: that of ``--health`` where there is one, else that of ``--admin``."""
        said = subprocess.run(
            [sys.executable, "-m", "hookline_sidecar", "--help"],
            check=True,
            capture_output=True,
            text=True,
            env=_clean(),
        ).stdout
        if "--health " in said:
            return [f"--health=127.0.0.1:{self._public}", f"--admin=127.0.0.1:{self._private}"]
        return [f"--admin=127.0.0.1:{self._public}"]

    @property
    def addresses(self) -> dict[str, Any]:
        """What an attack has to know."""
        return {
            "host": "127.0.0.1",
            "hooks": self._hook,
            "public": self._public,
            "hook_socket": str(self._root / "hooks.sock"),
            "admin_socket": str(self.state / "admin.sock"),
            "plugins": str(self.plugins),
            "state": str(self.state),
        }

    @property
    def pids(self) -> list[int]:
        """The parent, the supervisor and the workers."""
        return self._pids

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[Load]:
        """Hook calls of a proxy with open connections, and probes of a kubelet with new ones."""
        async with client_session(limit=0) as proxy:

            async def hook() -> None:
                async with proxy.post(f"http://127.0.0.1:{self._hook}/v1/hooks/custom_hook", json=7) as answer:
                    if answer.status != 200 or (await answer.json()).get("value") != 7:
                        raise ValueError(f"{answer.status}: {await answer.text():.100}")

            async def probe() -> None:
                await _probe(f"http://127.0.0.1:{self._public}/healthz")

            yield Load([Stream("hook calls", HOOKS_A_SECOND, hook), Stream("health", OTHERS_A_SECOND, probe)])

    async def deploy(self, name: str) -> None:
        """Put one more plugin into the folder, and wait until it answers calls."""
        await asyncio.to_thread(write_plugin, self.plugins, name, echo_module(name))

        async def runs() -> bool:
            return await asyncio.to_thread(self.runs, name)

        await _until(runs)

    def runs(self, name: str) -> bool:
        """Whether a plugin answers calls."""
        return any(each["name"] == name and each["state"] == "Running" for each in self.described())

    def described(self) -> list[dict[str, Any]]:
        """``/v1/plugins``, as the socket in the state folder answers it; empty where nobody does."""
        try:
            return list(over_socket(self.state / "admin.sock", "/v1/plugins")["plugins"])
        except (OSError, http.client.HTTPException, ValueError):
            return []

    def _ready(self) -> bool:
        assert self._process.poll() is None, self.log
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._public}/readyz", timeout=PATIENCE_S) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def close(self) -> None:
        """End it and all that it started, at once."""
        _end(self._process)


class OperatorProgram:
    """One replica with the chart's rights at a real API server, an honest tenant with one pod, and a hostile one."""

    def __init__(self, box: Box, folder: Path, plane: Access, stack: contextlib.ExitStack) -> None:
        self.box = box
        self._plane = plane
        plane.install_crd(ROOT / "crds" / "hookline.dev_wasmplugins.yaml")
        for more in sorted((ROOT / "crds").glob("*.yaml")):
            plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", more)
        self._home = stack.enter_context(home(plane))
        self.honest, self.hostile = (stack.enter_context(tenant(plane, kind)) for kind in ("honest", "hostile"))
        pods = [f"honest-{number}" for number in range(_PODS)]
        for name in pods:
            pod(plane, self.honest, name)
        self._tokens = itertools.cycle([pod_token(plane, self.honest, name) for _ in range(_TOKENS) for name in pods])
        self._https, self._health = reserve_ports(2)
        self._folder = folder
        self._log = folder / "log"
        token = folder / "token"
        token.write_text(plane.token(self._home, "hookline-operator", AUDIENCE))
        kubeconfig = plane.kubeconfig_for(self._home, "hookline-operator", path=folder / "kubeconfig")
        command = [
            *box.command, sys.executable, "-c", "from hookline_operator.cli import main; main()",
            f"--kubeconfig={kubeconfig}", f"--own-namespace={self._home}", "--pod-name=operator-0",
            f"--listen=127.0.0.1:{self._https}", f"--health=127.0.0.1:{self._health}", f"--token={token}",
            f"--cache={folder / 'cache'}",
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stderr=log, stdout=log, env=_clean())
        stack.callback(self.close)
        box.watches(self._process.pid)
        until(self._ready, lambda: f"a ready operator; it said:\n{self.log}")
        self._ca = folder / "ca.crt"
        self._ca.write_text(plane.get("configmap", "hookline-ca", f"--namespace={self._home}")["data"]["ca.crt"])

    @property
    def addresses(self) -> dict[str, Any]:
        """What an attack has to know."""
        return {
            "host": "127.0.0.1",
            "https": self._https,
            "health": self._health,
            "ca": str(self._ca),
            "server_name": f"hookline-operator.{self._home}.svc",
            "kubeconfig": str(self._plane.kubeconfig),
            "kubectl": str(binary("kubectl")),
            "tenant": self.hostile,
        }

    @property
    def pids(self) -> list[int]:
        """The one process."""
        return [self._process.pid]

    @property
    def log(self) -> str:
        """What it has written."""
        return self._log.read_text(errors="replace")

    @contextlib.asynccontextmanager
    async def load(self) -> AsyncIterator[Load]:
        """Reviews of an API server, sidecars that connect anew, and probes of a kubelet."""
        self._trust = ssl.create_default_context(cafile=str(self._ca))
        review = json.dumps(review_of(plugin_of("honest", {"configMap": {"name": "honest"}}))).encode()
        async with client_session(limit=0) as session:
            self._session = session

            async def webhook() -> None:
                async with session.post(
                    f"https://127.0.0.1:{self._https}/webhooks/validate", data=review, ssl=self._trust,
                    server_hostname=self.addresses["server_name"], headers={"Content-Type": "application/json"},
                ) as answer:  # fmt: skip
                    if answer.status != 200 or not (await answer.json())["response"]["allowed"]:
                        raise ValueError(f"{answer.status}: {await answer.text():.200}")

            async def connection() -> None:
                await self._bundle()

            async def probe() -> None:
                await _probe(f"http://127.0.0.1:{self._health}/healthz")

            yield Load(
                [
                    Stream("webhook calls", 2 * OTHERS_A_SECOND, webhook),
                    Stream("sidecar sessions", OTHERS_A_SECOND / 2, connection),
                    Stream("health", OTHERS_A_SECOND, probe),
                ]
            )

    async def _bundle(self) -> dict[str, Any]:
        """What a sidecar of the honest pod is told when it connects."""
        async with self._session.ws_connect(
            f"https://127.0.0.1:{self._https}{DISTRIBUTION_PATH}", ssl=self._trust,
            server_hostname=self.addresses["server_name"], max_msg_size=2**26,
            headers={"Authorization": f"Bearer {next(self._tokens)}"},
        ) as session:  # fmt: skip
            with contextlib.suppress(aiohttp.ClientConnectionResetError):  # what it was closed with comes next
                await session.send_str(json.dumps({"type": "report"}))
            while True:
                message = await session.receive()
                if message.type is aiohttp.WSMsgType.CLOSE and message.data == _REPLACED:
                    return {}  # after a stall, the same pod's next session was there before this one was told
                if message.type is not aiohttp.WSMsgType.TEXT:
                    raise ValueError(f"no bundle, but {message.type!r} {message.data!r}"[:200])
                told = json.loads(message.data)
                if told["type"] == "bundle":
                    return dict(told["bundle"])

    async def deploy(self, name: str) -> None:
        """Apply one more plugin in the honest namespace, and wait until its pod is told to run it."""
        data = base64.b64encode(echo_module(name)).decode()
        await asyncio.to_thread(
            self._plane.apply,
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "binaryData": {"plugin.wasm": data}},
            plugin_of(name, {"configMap": {"name": name}}),
            namespace=self.honest,
        )

        async def told() -> bool:
            try:
                return any(
                    each["name"] == name and each.get("artifact") for each in (await self._bundle()).get("plugins", [])
                )
            except (aiohttp.ClientError, ValueError):
                return False

        await _until(told)

    def _ready(self) -> bool:
        assert self._process.poll() is None, self.log
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/readyz", timeout=PATIENCE_S) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        return False

    def close(self) -> None:
        """End it, at once."""
        _end(self._process)


@contextlib.contextmanager
def sidecar(folder: Path) -> Iterator[SidecarProgram]:
    """A sidecar in a box of the chart's size."""
    with Box(chart_limit("sidecar")) as box:
        program = SidecarProgram(box, folder)
        try:
            yield program
        finally:
            program.close()


@contextlib.contextmanager
def operator(folder: Path, plane: Access) -> Iterator[OperatorProgram]:
    """An operator in a box of the chart's size."""
    with Box(chart_limit("operator")) as box, contextlib.ExitStack() as stack:
        yield OperatorProgram(box, folder, plane, stack)


async def _until(wanted: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(2 * PATIENCE_S):
        while not await wanted():  # noqa: ASYNC110 - another process is asked
            await asyncio.sleep(0.3)  # between two looks


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self._path))


def over_socket(path: Path, target: str) -> Any:
    """The JSON at a target of a unix socket."""
    connection = _Unix(path)
    with contextlib.closing(connection):
        connection.request("GET", target)
        return json.loads(connection.getresponse().read())


async def _probe(url: str) -> None:
    async with (
        client_session(force_close=True) as kubelet,
        kubelet.get(url) as answer,
    ):
        if answer.status != 200:
            raise ValueError(f"{answer.status}: {await answer.text():.200}")


def _clean() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("HOOKLINE_")}


def alive(pid: int) -> bool:
    """Whether a process runs: one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        all_of_it = family(process.pid)
        process.kill()
        for pid in all_of_it:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()
