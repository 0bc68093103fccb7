"""A registry that answers as it is told to: nothing for a while, other bytes than it promised, an error."""

from __future__ import annotations

import base64
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Literal, Self

from local_ports import reserve_port
from local_registry import MANIFEST, digest, manifest_of

Mood = Literal["honest", "silent", "lying", "broken", "crowded", "no-registry"]


class MoodyRegistry:
    """Serves modules by tag and digest, in its mood."""

    def __init__(self, address: str) -> None:
        self.mood: Mood = "honest"
        self.password: str | None = None
        """What it asks for, of the user ``puller``; None: nothing."""
        self._content: dict[str, tuple[str, bytes]] = {}
        self._stopped = Event()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry._answer(self)

            def do_HEAD(self) -> None:
                registry._answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        self._handler = Handler
        self._address = address, reserve_port()
        self.host = f"{address}:{self._address[1]}"
        self._server: ThreadingHTTPServer | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, at the address that it always has."""
        self._stopped.clear()
        self._server = _Server(self._address, self._handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Away, with its content kept."""
        self._stopped.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = self._thread = None

    def push(self, name: str, module: bytes) -> str:
        """Let a tag be this module; the manifest's digest."""
        repository, tag = name.split(":")
        manifest = manifest_of(module)
        for reference in (tag, digest(manifest)):
            self._content[f"/v2/{repository}/manifests/{reference}"] = (MANIFEST, manifest)
        self._content[f"/v2/{repository}/blobs/{digest(module)}"] = ("application/octet-stream", module)
        return digest(manifest)

    def pull_secret(self, name: str, password: str) -> dict[str, Any]:
        """The Secret that pulls from here."""
        return {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": json.dumps({"auths": {self.host: {"auth": _basic(password)}}})},
        }  # fmt: skip

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        kind, body = self._content.get(request.path, ("text/plain", b""))
        code, promised = 200 if body else 404, digest(body)
        mood = self.mood
        if self.password is not None and request.headers.get("Authorization") != f"Basic {_basic(self.password)}":
            code, body = 401, b"{}"
        if mood == "silent":
            began = time.monotonic()
            while self.mood == "silent" and time.monotonic() - began < 120 and not self._stopped.is_set():
                self._stopped.wait(0.1)
        elif mood == "lying" and "/blobs/" in request.path:
            body = body[:-1] + bytes([body[-1] ^ 1])
        elif mood == "broken":
            code, body = 500, b"out of order"
        elif mood == "crowded":
            code, body = 429, b"too many requests"
        elif mood == "no-registry":
            code, kind, body = 200, "text/html", b"<html>Please log in to the network.</html>"
        try:
            request.send_response(code)
            request.send_header("Content-Type", kind)
            if code == 401:
                request.send_header("WWW-Authenticate", 'Basic realm="tests"')
            elif mood != "no-registry":
                request.send_header("Docker-Content-Digest", promised)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(body)
        except OSError:
            request.close_connection = True  # whoever asked has given up


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


def _basic(password: str) -> str:
    return base64.b64encode(f"puller:{password}".encode()).decode()
