"""An administrator of keys over HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket

from waiting import PATIENCE_S

TOKEN = "a-token-that-is-long-enough"
PERMISSIONS = ["kv.read", "kv.write"]


class Admin:
    """Requests at the admin paths: over the socket, or over TCP with whatever token."""

    def __init__(self, sidecar):
        self.sidecar = sidecar
        self.path = sidecar.state / "admin.sock"

    def __call__(self, method, path, body=None, *, tcp=False, headers=None):
        """Status, headers and body, which is parsed where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.sidecar.admin_port, timeout=PATIENCE_S)
        if not tcp:
            connection.sock = self.connect()
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            raw = answer.read()
            is_json = "json" in (answer.headers["Content-Type"] or "")
            return answer.status, answer.headers, json.loads(raw) if is_json else raw

    def connect(self):
        """A connection to the socket."""
        unix = socket.socket(socket.AF_UNIX)
        unix.settimeout(PATIENCE_S)
        try:
            unix.connect(str(self.path))
        except OSError:
            unix.close()
            raise
        return unix

    def problem(self, *arguments, **options):
        """Status and sentence of a problem document."""
        status, headers, body = self(*arguments, **options)
        assert headers["Content-Type"] == "application/problem+json", body
        assert (body["status"], headers["Server"]) == (status, "hookline")
        return status, body["detail"]

    def metric(self, name):
        """The lines of one metric, by labels."""
        found = re.findall(rf"^{name}{{(.*)}} ([0-9.]+)$", self.sidecar.get("/metrics")[1], re.MULTILINE)
        return {labels: float(value) for labels, value in found}
