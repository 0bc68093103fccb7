"""A registry that gives what an attack wants: any bytes as the layer of any tag, or a challenge to every request.

It listens on an address of this machine that is not loopback where there is one, because nobody asks loopback for an
artifact that a stranger named.
"""

from __future__ import annotations

import ipaddress
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

from local_registry import digest, manifest_of


def own_address() -> str:
    """An address by which others reach this machine; loopback where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # a route is looked up, and nothing is sent
            found = str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
    return "127.0.0.1" if ipaddress.ip_address(found).is_link_local else found


class HostileRegistry:
    """``layer`` is what every tag holds; with ``challenge`` everybody is asked for a login in these words."""

    def __init__(self, layer: bytes = b"", *, challenge: str | None = None) -> None:
        manifest = manifest_of(layer)
        registry = self
        self.asked = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                registry.asked += 1
                if challenge is not None:
                    self._reply(401, b"", challenge)
                elif "/blobs/" in self.path:
                    self._reply(200, layer)
                else:
                    self._reply(200, manifest)

            def do_HEAD(self) -> None:
                self.do_GET()

            def _reply(self, status: int, body: bytes, challenge: str | None = None) -> None:
                self.send_response(status)
                if challenge is not None:
                    # The longest line that clients take is 8 KiB, and there may be two.
                    for _ in range(2):
                        self.send_header("WWW-Authenticate", challenge[: 2**13 - 100])
                self.send_header("Docker-Content-Digest", digest(body))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = ThreadingHTTPServer((own_address(), 0), Handler)
        self._server.daemon_threads = True
        self.host = f"{self._server.server_address[0]!s}:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def source(self, number: int) -> dict[str, Any]:
        """A source in here."""
        return {"oci": {"reference": f"{self.host}/plugin{number}:v1", "insecure": True}}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
