"""A proxy of each kind in front of an upstream, beside a sidecar that it asks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from local_ports import reserve_port
from real_proxies import KINDS, ROOT, Front, Servers, Sidecar, ask, eventually, running
from waiting import PATIENCE_S

EXAMPLES = ROOT / "examples" / "proxies"
TIMEOUTS = {
    "nginx.conf": ("proxy_connect_timeout 250ms", "proxy_send_timeout 1s", "proxy_read_timeout 2s"),
    "envoy.yaml": ("timeout: 2s", "connect_timeout: 0.25s", "connect_timeout: 1s"),
    "Caddyfile": ("dial_timeout 250ms", "response_header_timeout 2s"),
}
"""How long each proxy waits for its sidecar, as its file has it."""

# Root's nginx has workers of another user; anybody else's has workers of its own.
NGINX_USER = "user www-data;" if os.geteuid() == 0 else ""


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

    A ``patient`` one waits for it longer than the file says: there a busy machine must not lead to a refusal.
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
            # Its admin port is not part of the example, and may be taken here.
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


@pytest.fixture(scope="module", params=KINDS)
def front(request, proxies, sidecar, servers) -> Iterator[Front]:
    """Each of the proxies in front of the upstream."""
    with proxies(request.param, socket=sidecar.socket, port=sidecar.port) as port:
        yield Front(request.param, port, servers)
