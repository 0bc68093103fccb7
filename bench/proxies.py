"""Behind real proxies: what a client of nginx or Envoy sees of the sidecar that is asked about each of its requests.

nginx asks by ``auth_request``, Envoy by ext_authz over HTTP, both over a unix socket, kept alive; the sidecar asks its
plugin twice, ``authenticate`` and ``authorize``. The proxies answer by themselves (nginx a small file, Envoy a direct
response), so no upstream takes part. Their settings are those of ``examples/proxies``, cut down to that.

Proxy and sidecar share one core, as in a pod with one processor, so that what the sidecar takes the proxy lacks; the
load generator has the other. Where each of the two has a core, the proxy is the limit whatever the sidecar: these
figures are given for information.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Final

from bench import guests, peers
from bench.load import Generator, Outcome, Plan, get
from bench.machine import LOAD_CORE, ROOT, SERVER_CORE, BrokenError, on, open_folder
from bench.report import Figure, Options, Result, at_least, say, spread
from bench.sidecar import sidecar
from bench.sockets import POOLED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

_ENVOY: Final = ROOT / ".venv-envoy" / "bin" / "envoy"
_START_S: Final = 20.0
_ASKED: Final = {"nginx": 0.75, "Envoy": 0.95}
_CONCURRENCIES: Final = (8, 64)
_ANSWERS: Final = {
    "authenticate": {"action": "success", "identity": {"user_id": "u-1", "username": "app"}},
    "authorize": {"action": "allow"},
}
_TYPES: Final = "type.googleapis.com/envoy.extensions.filters"

_NGINX: Final = """\
daemon off; pid {home}/pid; error_log stderr error; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;
  open_file_cache max=16; open_file_cache_valid 3600s; default_type text/plain;
  client_body_temp_path {home}/a; proxy_temp_path {home}/b; fastcgi_temp_path {home}/c;
  uwsgi_temp_path {home}/d; scgi_temp_path {home}/e;
  upstream hookline {{ server unix:{socket}; keepalive 64; keepalive_requests 1000000000; keepalive_timeout 3600s; }}
  server {{
    listen unix:{listen};
    root {home};
    location / {{ {auth} try_files /ok =404; }}
    location = /_hookline {{
      internal;
      proxy_pass http://hookline/v1/auth;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header X-Original-URI $request_uri;
      proxy_set_header X-Original-Method $request_method;
      proxy_set_header X-Real-IP 127.0.0.1;
      proxy_set_header X-Request-ID r-1;
    }}
  }}
}}
"""
_ENVOY_YAML: Final = """\
static_resources:
  listeners:
    - address: {{pipe: {{path: {listen}, mode: 511}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": {types}.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: http
                http_filters:
                  {auth}
                  - name: envoy.filters.http.router
                    typed_config: {{"@type": {types}.http.router.v3.Router}}
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: {{prefix: /}}
                          direct_response: {{status: 200, body: {{inline_string: ok}}}}
  clusters:
    - name: hookline
      connect_timeout: 0.25s
      load_assignment:
        cluster_name: hookline
        endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: {socket}}}}}}}}}]}}]
"""
_EXT_AUTHZ: Final = """\
- name: envoy.filters.http.ext_authz
                    typed_config:
                      "@type": {types}.http.ext_authz.v3.ExtAuthz
                      failure_mode_allow: false
                      allowed_headers: {{patterns: [{{exact: x-api-key}}, {{exact: x-request-id}}]}}
                      http_service:
                        path_prefix: /v1/auth
                        server_uri: {{uri: "http://hookline", cluster: hookline, timeout: 2s}}
                        authorization_request: {{headers_to_add: [{{key: x-real-ip, value: 127.0.0.1}}]}}
                        authorization_response: {{allowed_upstream_headers: {{patterns: [{{prefix: x-hookline-}}]}}}}"""

_Found = dict[tuple[str, str, int], list[Outcome]]
"""Proxy and placement, sidecar, connections → rounds."""


async def measure(options: Options) -> Result:
    """Both proxies, in front of both sidecars, and of none."""
    result = Result(
        name="proxies",
        idea="Requests through a proxy that asks about each; it and the sidecar share a core, where nothing is said.",
    )
    wasm = guests.guest(_ANSWERS)
    found: _Found = {}
    for placement, core in (("", SERVER_CORE), (", a core for each", LOAD_CORE)):
        async with (
            sidecar(("keys", wasm, POOLED), core=SERVER_CORE) as ours,
            peers.native(wasm, plugin="keys", bundle="0123456789ab") as native,
            Generator() as generator,
            contextlib.AsyncExitStack() as stack,
        ):
            fronts: dict[tuple[str, str], str] = {}
            for proxy in _ASKED:
                for name, asked in (("ours", ours.socket), ("native", native.socket), ("nobody", None)):
                    if asked is not None or not placement:
                        listen = await stack.enter_async_context(_proxy(proxy, asked, core))
                        fronts[proxy + placement, name] = listen
            await _run(fronts, generator, options, result, found)
    for proxy, bar in _ASKED.items():
        for count in _CONCURRENCIES:
            what = f"requests/s through {proxy} at {count}, to the native sidecar behind it"
            result.figures.append(at_least(bar, what, _ratios(found, proxy, count)))
        result.figures += [
            Figure(
                what=f"the same through {proxy} at {count}, with a core for each of the two",
                measured=spread(_ratios(found, f"{proxy}, a core for each", count)),
            )
            for count in _CONCURRENCIES
        ]
    result.notes += [
        f"{front}, {name}, at {count}: {statistics.median(each.rate for each in outcomes):,.0f} requests/s, "
        f"p99 {statistics.median(each.p99_us for each in outcomes):,.0f} µs, "
        f"the generator used {statistics.median(each.busy for each in outcomes):.0%} of its core"
        for (front, name, count), outcomes in found.items()
    ]
    return result


async def _run(
    fronts: dict[tuple[str, str], str], generator: Generator, options: Options, result: Result, found: _Found
) -> None:
    seconds = options.pick(0.5, 1.5)
    for number in range(-1, options.rounds):
        where = next(iter(fronts))[0]
        say(f"proxies: {where} …, round {number + 1} of {options.rounds}" if number >= 0 else "proxies: warm-up")
        for (proxy, name), listen in fronts.items():
            for count in _CONCURRENCIES:
                plan = Plan(address=listen, asks=[get("/orders/7")], concurrency=count, seconds=seconds)
                outcome = await generator.run(plan)
                result.failures += Counter({f"{proxy}: {what}": times for what, times in outcome.failures.items()})
                if number >= 0:
                    found.setdefault((proxy, name, count), []).append(outcome)


def _ratios(found: _Found, front: str, count: int) -> list[float]:
    pairs = zip(found[front, "ours", count], found[front, "native", count], strict=True)
    return [ours.rate / native.rate for ours, native in pairs if native.calls]


@contextlib.asynccontextmanager
async def _proxy(kind: str, asked: str | None, core: int) -> AsyncIterator[str]:
    """A running proxy that asks this sidecar, or nobody; the socket on which it listens."""
    with open_folder() as home:
        listen = home / "listen.sock"
        if kind == "nginx":
            program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
            if program is None:
                raise BrokenError("nginx is missing: sh scripts/debian-packages.sh nginx-light")
            (home / "ok").write_text("ok")
            auth = "auth_request /_hookline;" if asked else ""
            (home / "nginx.conf").write_text(
                _NGINX.format(home=home, listen=listen, socket=asked or home / "nobody.sock", auth=auth)
            )
            command = [program, "-p", str(home), "-e", "stderr", "-c", str(home / "nginx.conf")]
        else:
            if not _ENVOY.exists():
                raise BrokenError("Envoy is missing: make .venv-envoy/.made")
            auth = _EXT_AUTHZ.format(types=_TYPES) if asked else ""
            (home / "envoy.yaml").write_text(
                _ENVOY_YAML.format(listen=listen, socket=asked or home / "nobody.sock", auth=auth, types=_TYPES)
            )
            options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
            command = [str(_ENVOY), "-c", str(home / "envoy.yaml"), *options]
        with on(core), (home / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(*command, cwd=home, stdout=log, stderr=log)
        try:
            await _up(kind, process, listen, (home / "log").read_text)
            yield str(listen)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _up(name: str, process: asyncio.subprocess.Process, listen: Path, log: Callable[[], str]) -> None:
    async with asyncio.timeout(_START_S):
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(listen))
                return
            if process.returncode is not None:
                raise BrokenError(f"{name} ended with {process.returncode}: {log()[-1000:]}")
            await asyncio.sleep(0.05)
