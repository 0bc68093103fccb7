"""What tenants, registries, plugins' authors and stolen tokens can do: settings, artifacts, guests and reports."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from exhaustion import payloads
from exhaustion.catalogue import Where, access, attack, begun, ran, stay, trust
from exhaustion.connections import source
from exhaustion.hostile_registry import HostileRegistry
from exhaustion.programs import over_socket
from exhaustion.resources import plugin_of, pod, pod_token, write_plugin
from hookline_api.distribution import DISTRIBUTION_PATH
from waiting import until

if TYPE_CHECKING:
    from cluster.access import Access


@attack("sidecar-configs", 2, "sidecar", "12 plugins in the folder with 1 MiB of config each", deploys=True)
def _configs(where: Where, seconds: float) -> dict[str, int]:
    folder = Path(where["plugins"])
    config = payloads.large_config(2**20 - 4096)
    wasm = payloads.module("pre_query", "(i64.const 0)")
    begun()
    for number in range(12):
        write_plugin(folder, f"large-{number}", wasm, config=config, permissions=["config.read"])
    return stay(seconds, plugins=12)


@attack(
    "operator-configs",
    2,
    "operator",
    "6 resources of one namespace with 100 KB of objects as config each",
    deploys=True,
)
def _operator_configs(where: Where, seconds: float) -> dict[str, int]:
    plane = access(where)
    config = payloads.large_config(100_000)
    _keep_module(plane, where, "large", payloads.module("pre_query", "(i64.const 0)"))
    begun()
    source = {"configMap": {"name": "large"}}
    plane.apply(
        *(plugin_of(f"large-{number}", source, config=config) for number in range(6)), namespace=where["tenant"]
    )
    return stay(seconds, plugins=6)


# ── parsers ──


def _counted(plugins: int) -> str:
    return "a plugin" if plugins == 1 else f"{plugins} plugins"


def _layers(name: str, entry: int, what: str, layer: Callable[[], bytes], plugins: int) -> None:
    """The same artifact for a sidecar that follows a folder, and for an operator."""

    @attack(f"sidecar-{name}", entry, "sidecar", f"{_counted(plugins)} from a registry: {what}", deploys=True)
    def in_folder(where: Where, seconds: float) -> dict[str, int]:
        with HostileRegistry(layer()) as registry:
            begun()
            for number in range(plugins):
                write_plugin(Path(where["plugins"]), f"hostile-{number}", None, source=registry.source(number))
            return stay(seconds) | {"requests": registry.asked}

    @attack(f"operator-{name}", entry, "operator", f"{_counted(plugins)} from a registry: {what}", deploys=True)
    def in_cluster(where: Where, seconds: float) -> dict[str, int]:
        plane = access(where)
        with HostileRegistry(layer()) as registry:
            begun()
            plane.apply(
                *(plugin_of(f"hostile-{number}", registry.source(number)) for number in range(plugins)),
                namespace=where["tenant"],
            )
            return stay(seconds) | {"requests": registry.asked}


_layers("yaml", 3, "a tar.gz whose plugin.yaml is 65,000 `[`", payloads.deep_yaml, 7)
_layers("toml", 3, "a tar.gz whose plugin.toml nests 32,000 deep", payloads.deep_toml, 7)
_layers("members", 3, "20 MiB of empty gzip members", functools.partial(payloads.empty_members, 20 * 2**20), 4)
_layers("params", 4, "a module with a type of 60 million parameters",
        functools.partial(payloads.many_params_module, 60_000_000), 1)  # fmt: skip


@attack("sidecar-challenge", 3, "sidecar", "4 plugins from a registry that answers with 16 KiB of WWW-Authenticate")
def _challenge(where: Where, seconds: float) -> dict[str, int]:
    with HostileRegistry(challenge=payloads.challenge()) as registry:
        begun()
        for number in range(4):
            write_plugin(Path(where["plugins"]), f"hostile-{number}", None, source=registry.source(number))
        return stay(seconds) | {"requests": registry.asked}


@attack("operator-challenge", 3, "operator", "4 plugins from a registry that answers with 16 KiB of WWW-Authenticate")
def _operator_challenge(where: Where, seconds: float) -> dict[str, int]:
    with HostileRegistry(challenge=payloads.challenge()) as registry:
        begun()
        access(where).apply(
            *(plugin_of(f"hostile-{number}", registry.source(number)) for number in range(4)), namespace=where["tenant"]
        )
        return stay(seconds) | {"requests": registry.asked}


@attack("operator-globs", 3, "operator", "a plugin with 16 pull secrets, each with 650 patterns for its registry",
         deploys=True)  # fmt: skip
def _globs(where: Where, seconds: float) -> dict[str, int]:
    plane = access(where)
    with HostileRegistry(challenge='Basic realm="x"') as registry:
        document = base64.b64encode(payloads.globs(650, registry.host)).decode()
        names = [{"name": f"globs-{number}"} for number in range(16)]
        for each in names:
            plane.apply({
                "apiVersion": "v1", "kind": "Secret", "metadata": each, "type": "kubernetes.io/dockerconfigjson",
                "data": {".dockerconfigjson": document},
            }, namespace=where["tenant"])  # fmt: skip
        source = registry.source(0)
        source["oci"]["pullSecrets"] = names
        begun()
        plane.apply(plugin_of("globs", source), namespace=where["tenant"])
        return stay(seconds) | {"requests": registry.asked}


# ── guests ──


@attack("sidecar-memory", 7, "sidecar", "32 calls at a time of 2 guests that use all of their 64 MiB")
def _memory(where: Where, seconds: float) -> dict[str, int]:
    for number in range(2):
        write_plugin(Path(where["plugins"]), f"greedy-{number}", payloads.greedy_module(60), limits={"timeout": "2s"})
        _wait_running(where, f"greedy-{number}")
    begun()
    return ran(_calls(where, "pre_query", b'{"query":"x"}', count=32, seconds=seconds))


@attack("sidecar-kv", 6, "sidecar", "a guest whose store is full, and that goes on writing")
def _kv(where: Where, seconds: float) -> dict[str, int]:
    write_plugin(
        Path(where["plugins"]), "filling", payloads.filling_module(),
        permissions=["kv.write", "kv.read"], limits={"timeout": "2s"},
    )  # fmt: skip
    _wait_running(where, "filling")
    begun()
    return ran(_calls(where, "pre_query", b'{"query":"x"}', count=4, seconds=seconds))


@attack("sidecar-schemas", 7, "sidecar", "8 plugins whose settings of 600 KB are checked by schemas", deploys=True)
def _schemas(where: Where, seconds: float) -> dict[str, int]:
    config = payloads.large_config(600_000)
    begun()
    for number in range(8):
        write_plugin(Path(where["plugins"]), f"checked-{number}", payloads.schema_module(number), config=config,
                     permissions=["config.read"])  # fmt: skip
    return stay(seconds, plugins=8)


@attack("sidecar-compile", 11, "sidecar", "3 modules of 1 MiB that compile for minutes", deploys=True)
def _compile(where: Where, seconds: float) -> dict[str, int]:
    wasm = payloads.slow_module(20_000, 1500)
    begun()
    for number in range(3):
        write_plugin(Path(where["plugins"]), f"slow-{number}", wasm + payloads.section(0, b"\x01" + bytes([number])))
    return stay(seconds, bytes=len(wasm))


# ── those who have a token, or say so ──


@attack("operator-tokens", 8, "operator", "10,000 connections with tokens that nobody gave")
def _tokens(where: Where, seconds: float) -> dict[str, int]:
    begun()
    return ran(_bad_tokens(where, seconds))


@attack("operator-reports", 8, "operator", "8 sidecars that report 1,000 plugins each, as fast as they can")
def _reports(where: Where, seconds: float) -> dict[str, int]:
    plane = access(where)
    names = [f"loud-{number}" for number in range(8)]
    for name in names:
        pod(plane, where["tenant"], name)
    tokens = [pod_token(plane, where["tenant"], name) for name in names]
    begun()
    return ran(_loud(where, tokens, seconds))


async def _calls(where: Where, hook: str, body: bytes, *, count: int, seconds: float) -> Counter[str]:
    told: Counter[str] = Counter()
    end = time.monotonic() + seconds

    async def one(session: aiohttp.ClientSession) -> None:
        while time.monotonic() < end:
            told["tried"] += 1
            try:
                async with session.post(
                    f"http://{where['host']}:{where['hooks']}/v1/hooks/{hook}", data=body
                ) as answer:
                    await answer.read()
                    told[f"answers {answer.status}"] += 1
            except (aiohttp.ClientError, OSError):
                told["refused"] += 1
                await asyncio.sleep(0.1)  # who is refused comes again, and not at full speed

    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, local_addr=source(0)), headers=headers
    ) as session:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + 5):
                await asyncio.gather(*(one(session) for _ in range(count)))
    return told


async def _bad_tokens(where: Where, seconds: float) -> Counter[str]:
    told: Counter[str] = Counter()
    numbers = iter(range(10_000))
    end = time.monotonic() + seconds
    tls = trust(where)

    async def one(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            if time.monotonic() > end:
                return
            # The shape of a real one: what is plainly no token would be refused without a question.
            part = base64.urlsafe_b64encode(f'{{"alg":"RS256","kid":"{number:08}"}}'.encode()).decode().rstrip("=")
            headers = {"Authorization": f"Bearer {part}.{part}.{part}"}
            told["tried"] += 1
            try:
                url = f"https://{where['host']}:{where['https']}{DISTRIBUTION_PATH}"
                async with session.get(url, headers=headers, ssl=tls, server_hostname=where["server_name"]) as answer:
                    await answer.read()
                    told[f"answers {answer.status}"] += 1
            except (aiohttp.ClientError, OSError):
                told["refused"] += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, local_addr=source(0))) as session:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + 5):
                await asyncio.gather(*(one(session) for _ in range(200)))
    return told


async def _loud(where: Where, tokens: list[str], seconds: float) -> Counter[str]:
    told: Counter[str] = Counter()
    plugins = [{"name": f"plugin-{number}", "state": "Running", "revision": "a" * 64} for number in range(1000)]
    texts = [
        json.dumps({"type": "report", "ready": bool(turn), "running": f"{turn}", "plugins": plugins}) for turn in (0, 1)
    ]
    tls, end = trust(where), time.monotonic() + seconds

    async def one(session: aiohttp.ClientSession, token: str) -> None:
        while time.monotonic() < end:
            told["tried"] += 1
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with session.ws_connect(
                    f"https://{where['host']}:{where['https']}{DISTRIBUTION_PATH}", ssl=tls, max_msg_size=2**26,
                    server_hostname=where["server_name"], headers={"Authorization": f"Bearer {token}"},
                ) as socket:  # fmt: skip
                    told["connections"] += 1
                    while time.monotonic() < end and not socket.closed:
                        for text in texts:
                            await socket.send_str(text)
                            told["reports"] += 1
                        with contextlib.suppress(TimeoutError):
                            await socket.receive(0.001)  # so that a close is seen
            await asyncio.sleep(0.05)  # who was thrown out comes again, and not at full speed

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, local_addr=source(0))) as session:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds + 5):
                await asyncio.gather(*(one(session, token) for token in tokens))
    return told


def _keep_module(plane: Access, where: Where, name: str, wasm: bytes) -> None:
    data = {"plugin.wasm": base64.b64encode(wasm).decode()}
    plane.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "binaryData": data},
        namespace=where["tenant"],
    )


def _wait_running(where: Where, name: str) -> None:
    def running() -> bool:
        plugins = over_socket(Path(where["admin_socket"]), "/v1/plugins")["plugins"]
        return any(each["name"] == name and each["state"] == "Running" for each in plugins)

    until(running, f"the plugin {name}", ignoring=(OSError,))
