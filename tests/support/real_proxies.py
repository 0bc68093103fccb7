"""Real proxies ask a real sidecar at ``/v1/auth``, with the very files of ``examples/proxies``.

Only the addresses in those files are replaced. Behind each proxy is an upstream that tells what reached it; the
plugin is a guest that looks for bytes in its input, see ``AUTHENTICATE`` and ``AUTHORIZE``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import wasmtime
from aiohttp import web

from local_ports import reserve_ports
from waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "reference" / "proxies.md"

# Root's nginx has workers of another user, which the socket's group lets in; anybody else's has workers of its own.
FOR_NGINX = ("--socket-group", "www-data") if os.geteuid() == 0 else ()

IDENTITY = {"user_id": "u-1", "username": "ada", "roles": ["reader", "writer"], "tenant_id": "acme"}
CHIEF = {"user_id": "u-2", "username": "José", "roles": ["admin"], "tenant_id": None}


def success(**changes):
    """The decision that lets in, with this of the identity changed."""
    return {"action": "success", "identity": IDENTITY | changes}


# The first rule whose texts are all in the input answers; None traps.
AUTHENTICATE = [
    (['"x-api-key":"trap"'], None),
    (['"x-api-key":"good"'], success()),
    (['"x-api-key":"chief"'], {"action": "success", "identity": CHIEF}),
    (['"x-api-key":"here"', '"client_ip":"127.0.0.1"'], success()),
    (['"x-api-key":"line break"'], success(username="ada\r\nX-Hookline-Roles: admin")),
    (['"x-api-key":"space"'], success(username=" ada")),
    (['"x-api-key":"comma"'], success(roles=["reader,admin"])),
    (['"x-api-key":"long"'], success(username="é" * 1000)),
    (['"username":"ada","password":"s3cret"'], success()),
    (['"x-api-key":'], {"action": "denied", "message": "unknown key"}),
    (['"authorization":'], {"action": "denied", "message": "unknown user"}),
    ([], {"action": "defer"}),
]
AUTHORIZE = [
    (['"resource":"/trap'], None),
    (['"resource":"/public'], {"action": "allow"}),
    (['"resource":"/admin', '"roles":["admin"]'], {"action": "allow"}),
    (['"resource":"/admin'], {"action": "deny", "reason": "not an admin"}),
    (['"resource":"/look', '"action":"GET"', '"is_read_only":true'], {"action": "allow"}),
    (['"resource":"/look'], {"action": "deny", "reason": "look, and do not touch"}),
    (['"action":""', '"resource":""'], {"action": "deny", "reason": "what is it about?"}),
    (['"identity":{'], {"action": "allow"}),
    ([], {"action": "defer"}),
]


def guest(hooks):
    """A module that exports each hook of a mapping name → rules."""
    segments, bodies, at = [], [], 1024

    def put(raw):
        nonlocal at
        text = "".join(f"\\{byte:02x}" for byte in raw)
        segments.append(f'(data (i32.const {at}) "{text}")')
        at += len(raw)
        return at - len(raw), len(raw)

    for name, rules in hooks.items():
        body = ""
        for needles, answer in rules:
            found = "(i32.const 1)"
            for needle in needles:
                where, length = put(needle.encode())
                asked = f"(call $has (local.get 0) (local.get 1) (i32.const {where}) (i32.const {length}))"
                found = f"(i32.and {found} {asked})"
            where, length = put(json.dumps(answer, ensure_ascii=False).encode())
            result = "(unreachable)" if answer is None else f"(return (i64.const {where << 32 | length}))"
            body += f"(if {found} (then {result}))\n"
        bodies.append(f'(func (export "{name}") (param i32 i32) (result i64) {body} (unreachable))')
    text = f"""(module (memory (export "memory") 64)
      (func (export "alloc") (param i32) (result i32) (i32.const 65536))
      (func $has (param $at i32) (param $length i32) (param $needle i32) (param $size i32) (result i32)
        (local $last i32) (local $i i32)
        (if (i32.lt_u (local.get $length) (local.get $size)) (then (return (i32.const 0))))
        (local.set $last (i32.add (local.get $at) (i32.sub (local.get $length) (local.get $size))))
        (loop $places
          (local.set $i (i32.const 0))
          (block $differs
            (loop $bytes
              (br_if $differs (i32.ne (i32.load8_u (i32.add (local.get $at) (local.get $i)))
                                      (i32.load8_u (i32.add (local.get $needle) (local.get $i)))))
              (local.set $i (i32.add (local.get $i) (i32.const 1)))
              (br_if $bytes (i32.lt_u (local.get $i) (local.get $size))))
            (return (i32.const 1)))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br_if $places (i32.le_u (local.get $at) (local.get $last))))
        (i32.const 0))
      {"".join(bodies)} {"".join(segments)})"""
    return wasmtime.wat2wasm(text)


def eventually(what, *, while_alive=None):
    """Ask until the answer is true; its value."""

    def asked():
        if while_alive is not None and while_alive.poll() is not None:
            pytest.fail(f"{while_alive.args[0]} ended with {while_alive.returncode}")
        return what()

    return until(asked, "what this test waits for", ignoring=(OSError, http.client.HTTPException))


@dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def reached(self):
        """What the upstream got: method, target, headers as a list, and the body's SHA-256."""
        return json.loads(self.body)

    def header(self, name):
        """The values of a header at the upstream."""
        return [value for key, value in self.reached["headers"] if key.lower() == name.lower()]


def ask(port, target="/", *, method="GET", key=None, headers=(), body=None, chunked=False):
    """One request, its target byte for byte; ``headers`` are pairs, so that one can come twice."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in (*headers, *([("X-API-Key", key)] if key else [])):
            connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:1000], body[1000:], b""))
        elif body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


@contextlib.contextmanager
def running(*command, log, **rest):
    """A process, ended by its id; its output is in ``log``, and in the test's where that failed."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **rest)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        sys.stdout.write(log.read_text(errors="replace")[-4000:])


@dataclass
class Servers:
    """What runs in this process, on a thread: the upstream, and relays."""

    loop: asyncio.AbstractEventLoop
    port: int = 0
    marks: list[str] = field(default_factory=list)
    """Of each request that reached the upstream, its header ``x-mark``."""

    async def echo(self, request):
        """Answer what came."""
        body = await request.read()
        headers = [(name.decode(), value.decode("latin-1")) for name, value in request.raw_headers]
        self.marks.append(request.headers.get("x-mark", ""))
        return web.json_response(
            {
                "method": request.method,
                "target": request.raw_path,
                "headers": headers,
                "sha256": hashlib.sha256(body).hexdigest(),
            }
        )

    def do(self, coroutine):
        """Run something there, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    @contextlib.contextmanager
    def relay(self, path, port, target):
        """A socket and a port that hand everything to ``target``, or keep it; the list of connections."""
        connections = []

        async def pump(reader, writer):
            with contextlib.suppress(OSError):
                while data := await reader.read(2**16):
                    writer.write(data)
            writer.close()

        async def connected(reader, writer):
            connections.append(writer)
            if target is not None:
                there, back = await asyncio.open_unix_connection(target)
                await asyncio.gather(pump(reader, back), pump(there, writer))

        async def start():
            servers = [
                await asyncio.start_unix_server(connected, path),
                await asyncio.start_server(connected, "127.0.0.1", port),
            ]
            path.chmod(0o666)
            return servers

        async def stop(servers):
            for each in (*servers, *connections):
                each.close()

        servers = self.do(start())
        try:
            yield connections
        finally:
            self.do(stop(servers))


class Sidecar:
    """A real sidecar, which can be stopped and started."""

    def __init__(self, place: Path, *options: str) -> None:
        self.place = place
        self.options = options
        self.socket = place / "hooks.sock"
        self.port, self.admin = reserve_ports(2)
        self.plugins = place / "plugins"
        self.plugins.mkdir()
        self.install(AUTHENTICATE, AUTHORIZE)
        self.manifest = self.plugins / "keys.yaml"
        self.manifest.write_text("""\
apiVersion: hookline.dev/v1alpha1
kind: WasmPlugin
metadata: {name: keys}
spec:
  source: {file: {path: keys.wasm}}
  limits: {timeout: 2s}
  auth: {tellReason: true}
""")
        self._stack = contextlib.ExitStack()
        self.start()

    def install(self, authenticate, authorize):
        """Another version of the plugin, in one move."""
        new = self.plugins / ".new"
        new.write_bytes(guest({"authenticate": authenticate, "authorize": authorize}))
        new.rename(self.plugins / "keys.wasm")

    def start(self):
        """Run it until it is ready."""
        process = self._stack.enter_context(
            running(
                Path(sys.executable).parent / "hookline-sidecar",
                *("--plugins", self.plugins, "--state", self.place / "state", "--drain", "1s"),
                *("--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}"),
                *("--socket", self.socket, *FOR_NGINX, *self.options),
                log=self.place / "sidecar.log",
            )
        )
        eventually(self.ready, while_alive=process)
        self.process = process

    def ready(self):
        """Whether it says that it is."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=PATIENCE_S) as answer:
            return answer.status == 200

    def stop(self):
        """SIGTERM, and until it is gone."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0
        self._stack.close()


KINDS = ["nginx", "envoy", "caddy"]


def documented_failures(kind):
    """The row of a proxy in docs/reference/proxies.md: without a sidecar, and without an answer in time."""
    row = re.search(rf"^\| {kind} \| (\d+).*\| (\d+)", DOCUMENT.read_text(), re.MULTILINE | re.IGNORECASE)
    return int(row[1]), int(row[2])


@dataclass(frozen=True)
class Front:
    """A running proxy."""

    kind: str
    port: int
    servers: Servers

    @property
    def away(self):
        """What it answers where there is no sidecar, as the documentation has it."""
        return documented_failures(self.kind)[0]

    def ask(self, target="/", **rest):
        """One request."""
        return ask(self.port, target, **rest)

    def refuses(self, target="/", *, headers=(), **rest):
        """Ask, make sure that nothing reached the upstream, and give the answer."""
        mark = os.urandom(8).hex()
        answer = self.ask(target, headers=(*headers, ("X-Mark", mark)), **rest)
        assert mark not in self.servers.marks, f"{target} reached the upstream"
        assert answer.status >= 400
        return answer


def identity(answer):
    """The identity as the upstream got it, with a header that is empty or missing as an empty text."""
    names = {"X-Hookline-User": "", "X-Hookline-User-Id": "", "X-Hookline-Roles": "", "X-Hookline-Tenant": ""}
    for name in names:
        values = answer.header(name)
        assert len(values) <= 1
        names[name] = values[0] if values else ""
    alike = {key.lower().replace("_", "-") for key, _ in answer.reached["headers"] if "_" in key}
    assert not alike & {name.lower() for name in names}
    return tuple(names.values())


ADA = ("ada", "u-1", "reader,writer", "acme")
