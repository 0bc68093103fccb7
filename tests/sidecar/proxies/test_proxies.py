"""Real proxies ask a real sidecar at ``/v1/auth``, with the very files of ``examples/proxies``.

Only the addresses in those files are replaced. Behind each proxy is an upstream that tells what reached it; the
plugin is a guest that looks for bytes in its input, see ``AUTHENTICATE`` and ``AUTHORIZE``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import wasmtime
from aiohttp import web

from local_ports import reserve_port, reserve_ports
from waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "reference" / "proxies.md"
EXAMPLES = ROOT / "examples" / "proxies"
TIMEOUTS = {
    "nginx.conf": ("proxy_connect_timeout 250ms", "proxy_send_timeout 1s", "proxy_read_timeout 2s"),
    "envoy.yaml": ("timeout: 2s", "connect_timeout: 0.25s", "connect_timeout: 1s"),
    "Caddyfile": ("dial_timeout 250ms", "response_header_timeout 2s"),
}
"""How long each proxy waits for its sidecar, as its file has it."""

# Root's nginx has workers of another user, which the socket's group lets in; anybody else's has workers of its own.
FOR_NGINX = ("--socket-group", "www-data") if os.geteuid() == 0 else ()
NGINX_USER = "user www-data;" if os.geteuid() == 0 else ""

IDENTITY = {"user_id": "u-1", "username": "ada", "roles": ["reader", "writer"], "tenant_id": "acme"}
CHIEF = {"user_id": "u-2", "username": "José", "roles": ["admin"], "tenant_id": None}


def _success(**changes):
    return {"action": "success", "identity": IDENTITY | changes}


# The first rule whose texts are all in the input answers; None traps.
AUTHENTICATE = [
    (['"x-api-key":"trap"'], None),
    (['"x-api-key":"good"'], _success()),
    (['"x-api-key":"chief"'], {"action": "success", "identity": CHIEF}),
    (['"x-api-key":"here"', '"client_ip":"127.0.0.1"'], _success()),
    (['"x-api-key":"line break"'], _success(username="ada\r\nX-Hookline-Roles: admin")),
    (['"x-api-key":"space"'], _success(username=" ada")),
    (['"x-api-key":"comma"'], _success(roles=["reader,admin"])),
    (['"x-api-key":"long"'], _success(username="é" * 1000)),
    (['"username":"ada","password":"s3cret"'], _success()),
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


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """An upstream that answers what it got."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers = Servers(loop)

    async def start():
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", servers.echo)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        servers.port = runner.addresses[0][1]
        return runner

    runner = servers.do(start())
    yield servers

    async def stop():
        await runner.cleanup()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    servers.do(stop())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder with a short name, which others may enter: root's nginx has workers of another user."""
    folder = Path(tempfile.mkdtemp(prefix="hookline-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


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


@pytest.fixture(scope="module")
def sidecar(place) -> Iterator[Sidecar]:
    """A sidecar that runs the guest."""
    sidecar = Sidecar(place)
    yield sidecar
    sidecar.stop()


@pytest.fixture(scope="module")
def envoy() -> str:
    """The path of the real Envoy, which has an environment of its own."""
    found = ROOT / ".venv-envoy" / "bin" / "envoy"
    if not found.exists():
        what = "envoy is missing (make .venv-envoy/.made)"
        pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)
    return str(found)


Proxies = Callable[..., contextlib.AbstractContextManager[int]]


@pytest.fixture(scope="module")
def proxies(request, need, place, servers) -> Proxies:
    """Starts one of the proxies with its example file; ``socket`` and ``port`` are where it finds its sidecar.

    A ``patient`` one waits for it longer than the file says: there a busy machine is no reason to refuse.
    """

    def example(name, listen, changes, *, patient):
        text = (EXAMPLES / name).read_text()
        if patient:
            assert all(limit in text for limit in TIMEOUTS[name])
            for limit in TIMEOUTS[name]:
                text = text.replace(limit, f"{limit.rpartition(' ')[0]} {PATIENCE_S:.0f}s")
        for old, new in {"8080": listen, "8000": servers.port, **changes}.items():
            assert old in text, f"{name} has no {old} any more"
            text = text.replace(old, str(new))
        return text

    @contextlib.contextmanager
    def start(kind, *, socket, port, patient=True):
        home = Path(tempfile.mkdtemp(prefix=kind, dir=place))
        home.chmod(0o755)
        listen = reserve_port()
        log, environment = home / "log", None
        over_unix = {"/run/hookline/hooks.sock": socket}
        if kind in {"nginx", "ingress-nginx"}:
            (home / "hookline.conf").write_text(example("nginx.conf", listen, over_unix, patient=patient))
            paths = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            (home / "nginx.conf").write_text(
                f"daemon off; pid {home}/pid; error_log stderr warn; worker_processes 1; {NGINX_USER}\n"
                "events {} http { access_log off; client_max_body_size 64m;\n"
                + "".join(f"{path}_temp_path {home}/{path};\n" for path in paths)
                + f"include {home}/hookline.conf; }}\n"
            )
            program = need("nginx", "nginx-light")
            if kind == "ingress-nginx":
                (home / "hookline.conf").write_text(INGRESS.format(listen=listen, app=servers.port, socket=socket))
            command = [program, "-p", home, "-e", "stderr", "-c", home / "nginx.conf"]
        elif kind == "caddy":
            # Its admin port is no part of the example, and may be taken here.
            (home / "Caddyfile").write_text(
                "{\n\tadmin off\n}\n" + example("Caddyfile", listen, over_unix, patient=patient)
            )
            command = [need("caddy", "caddy"), "run", "--config", home / "Caddyfile", "--adapter", "caddyfile"]
            environment = os.environ | {
                "HOME": str(home),
                "XDG_DATA_HOME": str(home),
                "XDG_CONFIG_HOME": str(home),
            }
        else:
            text = example("envoy.yaml", listen, {"9901": port} if kind == "envoy" else over_unix, patient=patient)
            if kind == "envoy-pipe":  # what the file's comment says, instead of the line below it
                pipe, address = (
                    f"{{pipe: {{path: {socket}}}}}",
                    "{socket_address: {address: 127.0.0.1, port_value: 9901}}",
                )
                assert f"# Over the unix socket: address: {pipe}" in text
                text = text.replace(address, pipe)
            (home / "envoy.yaml").write_text(text)
            options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
            command = [request.getfixturevalue("envoy"), "-c", home / "envoy.yaml", *options]
        with running(*map(str, command), log=log, cwd=home, env=environment) as process:
            eventually(lambda: ask(listen, "/healthz").status == 200, while_alive=process)
            yield listen

    return start


KINDS = ["nginx", "envoy", "caddy"]
INGRESS = """
upstream hookline {{ server unix:{socket}; }}
server {{
    listen 127.0.0.1:{listen};
    location = /healthz {{ proxy_pass http://127.0.0.1:{app}/healthz; }}
    location = /_external-auth {{
        internal;
        proxy_pass_request_body off;
        proxy_set_header Content-Length "";
        proxy_set_header X-Forwarded-Proto "";
        proxy_set_header X-Request-ID $request_id;
        proxy_set_header Host hookline;
        proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
        proxy_set_header X-Original-Method $request_method;
        proxy_set_header X-Sent-From "nginx-ingress-controller";
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Auth-Request-Redirect $request_uri;
        proxy_pass http://hookline/v1/auth;
    }}
    location / {{
        auth_request /_external-auth;
        proxy_pass http://127.0.0.1:{app};
    }}
}}
"""
"""What ingress-nginx makes of an Ingress with ``auth-url``, in nginx itself: its template's headers, no others."""


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


@pytest.fixture(scope="module", params=KINDS)
def front(request, proxies, sidecar, servers) -> Iterator[Front]:
    """Each of the proxies in front of the upstream."""
    with proxies(request.param, socket=sidecar.socket, port=sidecar.port) as port:
        yield Front(request.param, port, servers)


FORGED = [
    ("X-Hookline-User", "root"),
    ("x-hookline-user-id", "u-0"),
    ("X-Hookline-Roles", "admin"),
    ("X-Hookline-Roles", "admin"),
    ("X-Hookline-Tenant", "everyone"),
    ("X_Hookline_User", "root"),
    ("X-Hookline_Roles", "admin"),
]


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
NOBODY = ("", "", "", "")


def test_good_key_passes_and_the_identity_arrives(front):
    """Who the plugin says it is reaches the upstream as headers, with the request's id."""
    answer = front.ask("/orders", key="good")
    assert answer.status == 200
    assert identity(answer) == ADA
    assert len(answer.header("X-Hookline-Request-Id")[0]) >= 16


def test_names_outside_ascii_arrive_percent_encoded(front):
    """A header carries visible ASCII only; a missing tenant is empty."""
    answer = front.ask("/admin", key="chief")
    assert answer.status == 200
    assert identity(answer) == ("Jos%C3%A9", "u-2", "admin", "")


def test_basic_authentication_is_taken_apart(front):
    """User name and password of a Basic header reach the plugin as such."""
    good, bad = (base64.b64encode(pair).decode() for pair in (b"ada:s3cret", b"ada:wrong"))
    answer = front.ask("/orders", headers=[("Authorization", f"Basic {good}")])
    assert (answer.status, identity(answer)) == (200, ADA)
    refused = front.refuses("/orders", headers=[("Authorization", f"Basic {bad}")])
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Basic realm="hookline"')


@pytest.mark.parametrize("key", [None, "wrong"])
def test_without_a_good_key_is_a_challenge(front, key):
    """No key and a wrong key are 401, and RFC 9110 wants a challenge with it."""
    refused = front.refuses("/orders", key=key)
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"


def test_known_without_the_right_is_forbidden(front):
    """A known client that may not is 403, which no new password mends."""
    assert front.refuses("/admin/users", key="good").status == 403
    assert front.ask("/admin/users", key="chief").status == 200


def test_unknown_may_be_allowed_and_has_no_identity(front):
    """A plugin may open a path to everybody; what the client claims to be does not arrive."""
    answer = front.ask("/public/news", headers=FORGED)
    assert answer.status == 200
    assert identity(answer) == NOBODY


def test_identity_of_a_client_that_forges_is_the_plugins(front):
    """The identity headers are replaced, not added to."""
    answer = front.ask("/orders", key="good", headers=FORGED)
    assert (answer.status, identity(answer)) == (200, ADA)


def test_where_nobody_is_asked_a_forged_identity_is_stripped_too(front):
    """The probe's path is not checked, and carries no identity all the same."""
    answer = front.ask("/healthz", headers=FORGED)
    assert (answer.status, identity(answer)) == (200, NOBODY)


@pytest.mark.parametrize("name", ["X-Original-URI", "X-Original-Url", "X-Forwarded-Uri", "X-Original-uri"])
@pytest.mark.parametrize("key", [None, "good"])
def test_client_cannot_tell_another_path(front, name, key):
    """Headers that tell the original path are the proxy's; a client's have no effect."""
    for value in ("/public", "/public, /public", ""):
        assert front.refuses("/admin", key=key, headers=[(name, value)]).status == 403
        assert front.ask("/public", key=key, headers=[(name, f"/admin{value}")]).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/healthz",
        "/admin/../healthz",
        "/admin/%2e%2e/healthz",
        "/admin/..%2fhealthz",
        "//healthz",
        "/admin/;/../healthz",
    ],
)
def test_what_nobody_is_asked_about_is_that_path_alone(front, target):
    """What a proxy tidies up to the probe's path reaches the upstream as the probe's path, or not at all."""
    mark = os.urandom(8).hex()
    answer = front.ask(target, headers=[("X-Mark", mark)])
    if answer.status == 200:
        assert answer.reached["target"] == "/healthz"
    else:
        assert mark not in front.servers.marks


@pytest.mark.parametrize("name", ["X-Original-Method", "X-Forwarded-Method", "X-HTTP-Method-Override"])
def test_client_cannot_tell_another_method(front, name):
    """So do those that tell the original method."""
    assert front.refuses("/look", key="good", method="DELETE", headers=[(name, "GET")]).status == 403


def test_client_cannot_have_the_proxys_headers_dropped(front):
    """``Connection`` names headers to drop: not those by which the proxy tells the request, nor the identity."""
    names = "X-Original-URI, X-Original-Method, X-Forwarded-Uri, X-Forwarded-Method, X-Real-IP, X-Hookline-User"
    drop = [("Connection", f"close, {names}")]
    assert front.refuses("/admin", key="good", headers=drop).status == 403
    assert front.refuses("/look", key="good", method="DELETE", headers=drop).status == 403
    answer = front.ask("/orders", key="here", headers=drop)
    assert (answer.status, identity(answer)) == (200, ADA)


@pytest.mark.parametrize("name", ["X-Real-IP", "X-Forwarded-For", "Forwarded", "True-Client-IP"])
def test_client_cannot_tell_another_address(front, name):
    """Plugins get the address that the proxy saw."""
    answer = front.ask("/orders", key="here", headers=[(name, "10.9.9.9")])
    assert answer.status == 200


@pytest.mark.parametrize(
    "target",
    [
        "/admin",
        "/%61dmin",
        "/%61%64%6D%69%6e/users",
        "//admin",
        "/admin?x=/public",
        "/admin?/../public",
        "/admin#/public",
        "/public/../admin",
        "/public/./../admin",
        "/public/%2e%2e/admin",
        "/public/%2E./admin",
        "/public/..%2fadmin",
        "/public%2f..%2fadmin",
        "/public/..%5cadmin",
        "/public/..\\admin",
        "/public/..;/admin",
        "/public/..;x=1/admin",
        "/public/%2e%2e%3b/admin",
        "/public/..",
        "/public%00/../admin",
        "/public#/../admin",
        "/public/%2e%2e",
        "//public/admin",
        "/public/../../v1/hooks/custom_hook",
        "/../hooks/custom_hook",
        "http://public/admin",
        "http://127.0.0.1/%61dmin",
    ],
)
def test_no_spelling_of_a_path_leads_where_its_plain_one_does_not(front, target):
    """What the plugin judges is what the upstream serves, and a path that can be read in two ways is refused.

    Where a proxy tidies the path up before it asks, the tidied path is judged, and is what the upstream gets.
    """
    mark = os.urandom(8).hex()
    answer = front.ask(target, key="good", headers=[("X-Mark", mark)])
    if answer.status == 200:
        served = urllib.parse.unquote(answer.reached["target"].partition("?")[0])
        assert not served.startswith(("/admin", "//"))
        assert ".." not in served
    else:
        assert 400 <= answer.status < 500
        assert mark not in front.servers.marks


@pytest.mark.parametrize(
    "target",
    [
        "/public/a%2Fb",
        "/public/caf%C3%A9%20au%20lait?milk=1&x=/admin&y=%2e%2e#",
        "/public/a;v=1/b,c",
        "/public/...?",
        "/public/.well-known/x",
        "/public/%25%32%65",
        "/public/x?next=http://elsewhere/../admin&%ff",
    ],
)
def test_ordinary_paths_and_queries_arrive_as_they_are(front, target):
    """Percent-encoding, parameters and query strings are nobody's business on the way."""
    target = target.removesuffix("#")
    answer = front.ask(target)
    assert answer.status == 200
    tidied = target.replace("%25%32%65", "%252e") if front.kind == "envoy" else target
    assert answer.reached["target"] == tidied


@pytest.mark.parametrize(
    "headers",
    [
        [("Cookie", "c=" + "x" * 8180)],
        [("Authorization", "Bearer " + "x" * 20_000)],
        [(f"X-Many-{i}", "x") for i in range(150)],
        [("X-API-Key", b"\xff\xfe")],
        [("X-API-Key", "good"), ("X-API-Key", "good")],
    ],
    ids=["long", "longer", "many", "no text", "twice"],
)
def test_headers_beyond_the_ordinary_let_nobody_pass(front, headers):
    """Too long, too many, no text, or said twice: refused somewhere on the way, or told to the plugin as it is."""
    front.refuses("/orders", headers=headers)
    assert front.ask("/orders", key="good").status == 200


def test_target_with_a_host_is_judged_by_its_path(front):
    """The absolute form of a request target, RFC 9112, 3.2.2."""
    assert front.ask(f"http://127.0.0.1:{front.port}/public/x").status == 200
    assert front.refuses(f"http://127.0.0.1:{front.port}/admin", key="good").status == 403


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
def test_methods_are_told_and_arrive(front, method):
    """The plugin judges the client's method, and the upstream gets it."""
    mark = os.urandom(8).hex()
    answer = front.ask("/orders", method=method, key="good", headers=[("X-Mark", mark)])
    assert answer.status == 200
    assert mark in front.servers.marks
    assert method == "HEAD" or answer.reached["method"] == method
    if method != "GET":
        assert front.refuses("/look", method=method, key="good").status == 403


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_bodies_reach_the_upstream_untouched(front, chunked, size):
    """The question is asked without the body, which goes on whole."""
    body = os.urandom(size)
    answer = front.ask("/orders", method="POST", key="good", body=body, chunked=chunked)
    assert answer.status == 200
    assert answer.reached["sha256"] == hashlib.sha256(body).hexdigest()
    front.refuses("/admin", method="POST", key="good", body=body[:1000], chunked=chunked)


def test_plugin_that_traps_lets_nobody_pass(front):
    """A failure is answered as the failure policy says: closed."""
    assert front.refuses("/public", key="trap").status == 401
    assert front.refuses("/trap", key="good").status == 403
    assert front.ask("/orders", key="good").status == 200


@pytest.mark.parametrize("key", ["line break", "space", "comma", "long"])
def test_identity_that_an_upstream_would_read_otherwise_is_refused(front, key):
    """A line break, a space at the end, a role with a comma: none makes another identity of one."""
    assert front.refuses("/orders", key=key).status == 403


def test_the_internal_path_is_nobodys_to_ask(front):
    """The path that nginx asks by itself is not reachable, and the hooks are not either."""
    front.refuses("/_hookline", headers=[("X-Original-URI", "/public")])
    front.refuses("/v1/auth/public")
    front.refuses("/v1/hooks/custom_hook", method="POST", body=b"{}", headers=[("Content-Type", "application/json")])


def test_nobody_passes_without_a_sidecar_and_again_with_it(front, sidecar):
    """A stopped sidecar fails closed, whatever the key; a restarted one is asked from the next request on."""
    assert front.ask("/orders", key="good").status == 200
    sidecar.stop()
    try:
        for key in ("good", "chief", None):
            assert front.refuses("/orders", key=key).status == front.away
        assert front.refuses("/public").status == front.away
        assert front.ask("/healthz").status == 200
    finally:
        sidecar.start()
    answer = front.ask("/orders", key="good")
    assert (answer.status, identity(answer)) == (200, ADA)
    assert front.refuses("/orders").status == 401


@pytest.mark.parametrize("kind", KINDS)
def test_sidecar_that_does_not_answer_lets_nobody_pass(kind, proxies, servers, place):
    """The proxy's patience ends, and then nobody passes."""
    port = reserve_port()
    with (
        servers.relay(place / "silent.sock", port, None),
        proxies(kind, socket=place / "silent.sock", port=port, patient=False) as listen,
    ):
        began = time.monotonic()
        answer = ask(listen, "/public", key="good", headers=[("X-Mark", "silence")])
        assert answer.status == documented_failures(kind)[1]
        assert time.monotonic() - began > 1  # it was asked, and waited for
        assert "silence" not in servers.marks


@pytest.mark.parametrize("kind", [*KINDS, "envoy-pipe"])
def test_connections_to_the_sidecar_are_used_again(kind, proxies, servers, sidecar, place):
    """A question costs no connection of its own, refusals and challenges included."""
    port = reserve_port()
    with (
        servers.relay(place / "counted.sock", port, sidecar.socket) as connections,
        proxies(kind, socket=place / "counted.sock", port=port) as listen,
    ):
        statuses = [
            ask(listen, "/orders", key=("good", "wrong")[i % 2], method="POST", body=b"x").status for i in range(60)
        ]
        assert statuses == [200, 401] * 30
        # Caddy's transport gives a connection back beside the answer: on a busy machine another may be there first.
        assert len(connections) <= (10 if kind == "caddy" else 1)


def test_plugin_is_swapped_under_load_without_a_failed_request(front, sidecar):
    """Every request of the load passes while versions change, and each version is seen."""
    failed, tenants, done = [], set(), threading.Event()

    def load():
        connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            while not done.is_set():
                connection.request("GET", "/orders", headers={"X-API-Key": "good"})
                response = connection.getresponse()
                body = response.read()
                if response.status != 200:
                    failed.append((response.status, body))
                else:
                    tenants.update(Answer(200, response.headers, body).header("X-Hookline-Tenant"))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for version in range(1, 4):
            tenant = f"{front.kind}-{version}"
            rule = (['"x-api-key":"good"'], _success(tenant_id=tenant))
            sidecar.install([rule, *AUTHENTICATE], AUTHORIZE)
            eventually(lambda tenant=tenant: tenant in tenants or failed)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        sidecar.install(AUTHENTICATE, AUTHORIZE)
    assert failed == []
    eventually(lambda: identity(front.ask("/orders", key="good")) == ADA)


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/v1/auth", [], 403),
        ("/v1/auth?x=/public", [], 403),
        ("/v1/auth", [("X-Original-URI", "/public")], 200),
        ("/v1/auth/public", [], 200),
        ("/v1/auth/public?x", [("X-Original-URI", "/public")], 200),
        ("/v1/auth/public", [("X-Original-URI", "/admin")], 403),
        ("/v1/auth", [("X-Original-URI", "/public"), ("X-Forwarded-Uri", "/admin")], 403),
        ("/v1/auth", [("X-Original-URI", "/public"), ("X-Original-URI", "/admin")], 403),
        ("/v1/auth", [("X-Original-URI", "/look"), ("X-Original-Method", "GET")], 200),
        ("/v1/auth", [("X-Original-URI", "/look")], 403),
        (
            "/v1/auth",
            [("X-Original-URI", "/look"), ("X-Original-Method", "GET"), ("X-Forwarded-Method", "DELETE")],
            403,
        ),
        ("/v1/auth/look", [("X-Original-Method", "POST")], 403),
        ("/v1/auth", [("X-Original-URI", "public")], 403),
        ("/v1/auth", [("X-Original-URI", "http://x/public")], 403),
        ("/v1/auth", [("X-Original-URI", "/public/%")], 403),
        ("/v1/auth", [("X-Original-URI", b"/public/\xff")], 403),
        ("/v1/auth", [("X-Original-URI", "/public/é".encode())], 200),
        ("/v1/auth", [("X-Original-URI", "/public/a//b")], 200),
        ("/v1/auth", [("X-Original-URI", "/x//../public")], 403),
    ],
)
def test_what_a_proxy_does_not_tell_or_tells_twice_is_not_guessed(sidecar, target, headers, status):
    """Without any proxy: what is untold is empty, and what differs is refused before anybody decides."""
    assert ask(sidecar.port, target, key="good", headers=headers).status == status


def test_the_last_forwarded_address_counts(sidecar):
    """A proxy that adds to ``X-Forwarded-For`` leaves what the client wrote in front."""
    told = [("X-Original-URI", "/orders")]
    for value, status in (("10.9.9.9, 127.0.0.1", 200), ("127.0.0.1, 10.9.9.9", 401), ("", 401)):
        forwarded = [("X-Forwarded-For", value)]
        assert ask(sidecar.port, "/v1/auth", key="here", headers=told + forwarded).status == status


def test_documented_bytes_are_a_whole_call(sidecar):
    """What docs/reference/proxies.md shows is answered as it stands, again and again on one connection."""
    head, body = DOCUMENT.read_text().partition("```http\n")[2].partition("\n```")[0].split("\n\n")
    call = head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body.encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(sidecar.socket))
        for _ in range(2):
            connection.sendall(call)
            response = http.client.HTTPResponse(connection)
            response.begin()
            decision = json.loads(response.read())
            assert (response.status, decision["action"], decision["plugin"]) == (200, "continue", None)


def test_refusal_says_what_is_wrong_with_the_question(sidecar):
    """Whoever asks as the proxy does learns why."""
    answer = ask(sidecar.port, "/v1/auth", headers=[("X-Original-URI", "/reports/../admin")])
    assert (answer.status, answer.body) == (403, b"the path has dot segments\n")


CLAIMS = [
    ("X-Original-URI", "/public"), ("X-Original-URL", "http://h/public"), ("X-Forwarded-Uri", "/public"),
    ("X-Rewrite-URL", "/public"), ("X-Envoy-Original-Path", "/public"), ("X-Forwarded-Path", "/public"),
    ("X_Original_URI", "/public"), ("X_Original_URL", "/public"),
]  # fmt: skip
"""By what a client claims to have asked for something else."""


NAMED = [*((kind, kind) for kind in (*KINDS, "ingress-nginx")), ("ingress-nginx", "any")]


@pytest.fixture(scope="module", params=NAMED, ids=lambda pair: f"{pair[0]} read as {pair[1]}")
def named(request, proxies, place, servers) -> Iterator[Front]:
    """A proxy in front of a sidecar that was told which one it is, and ingress-nginx in front of one that was not."""
    kind, telling = request.param
    home = place / f"{kind}-{telling}"
    home.mkdir()
    sidecar = Sidecar(home, "--auth-headers", telling)
    with proxies(kind, socket=sidecar.socket, port=sidecar.port) as port:
        yield Front(kind, port, servers)
    sidecar.stop()


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda pair: pair[0])
def test_no_claim_of_a_client_opens_what_is_closed(named, claim):
    """A header is not believed because it is there: neither beside the proxy's own, nor for want of it."""
    assert named.refuses("/admin", key="good", headers=[claim]).status == 403
    assert named.refuses("/admin", headers=CLAIMS).status == 403
    assert named.refuses("/admin", headers=[claim, claim, ("Connection", f"close, {claim[0]}")]).status == 403
    assert named.refuses("/look", method="DELETE", key="good", headers=[("X-Forwarded-Method", "GET")]).status == 403


def test_what_a_named_proxy_tells_is_what_plugins_get(named):
    """Path, method and address; and a ``Host`` that would make a query of the path makes a refusal."""
    answer = named.ask("/orders?x=/admin", key="here")
    assert answer.status == 200
    assert named.ask("/look", key="good").status == 200
    assert named.ask("/public/x").status == 200
    assert named.refuses("/admin", key="good").status == 403
    for host in ("public?", "public#", "h/public?", "public@h"):
        connection = http.client.HTTPConnection("127.0.0.1", named.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.putrequest("GET", "/admin", skip_host=True)
            for name, value in (("Host", host), ("X-API-Key", "good"), ("X-Mark", "odd host")):
                connection.putheader(name, value)
            connection.endheaders()
            assert connection.getresponse().status >= 400
    assert "odd host" not in named.servers.marks
