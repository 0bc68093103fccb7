"""Registries on this machine.

Debian's ``docker-registry``, which can be stopped and started again with its data kept; and one of our own, for what
that one will not do on demand.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self

from local_ports import reserve_port
from waiting import PATIENCE_S, until

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
USER, PASSWORD = "puller", "s3cret"
# bcrypt of PASSWORD, by `htpasswd -Bbn -C 4`
HTPASSWD = "puller:$2y$04$b.HpOnOj7mg2uKk.aWu.3e70tViapEpl0dJG1S/6cI8rUwIZuDypa\n"


def digest(data: bytes) -> str:
    """As OCI writes it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def manifest_of(module: bytes) -> bytes:
    """The manifest of a module in one layer."""
    return json.dumps({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": "application/wasm", "digest": digest(module), "size": len(module)}],
    }).encode()  # fmt: skip


class LocalRegistry:
    """One registry. ``command`` goes before the program: ``nsenter`` and its like."""

    def __init__(
        self,
        program: str,
        folder: Path,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        password: bool = False,
        command: Sequence[str] = (),
    ) -> None:
        self.host = f"{address}:{port or reserve_port()}"
        self.password = password
        self._folder = folder
        self._command = [*command, program, "serve", str(folder / "config.json")]
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
            "http": {"addr": self.host, "secret": "of the tests"},
        }
        if password:
            (folder / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
        (folder / "config.json").write_text(json.dumps(config))  # JSON is YAML

    def start(self) -> None:
        """Return once it answers. Raises TimeoutError."""
        process = self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)

        def answers() -> bool:
            if process.poll() is not None:
                raise TimeoutError(f"docker-registry ended with {process.returncode}, at {self.host}")
            return self._answers()

        until(answers, f"an answer of docker-registry at {self.host}")

    def stop(self) -> None:
        """Away, with its data kept."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE_S)
            self._process = None

    def push(self, name: str, module: bytes) -> str:
        """Put a module under ``repository:tag``; the manifest's digest."""
        repository, tag = name.split(":")
        return self.put(repository, tag, manifest_of(module), b"{}", module)

    def put(self, repository: str, tag: str, manifest: bytes, *blobs: bytes) -> str:
        """Put a manifest and the blobs that it names; the manifest's digest."""
        for blob in blobs:
            place = self._ask("POST", f"/v2/{repository}/blobs/uploads/").headers["Location"]
            self._ask("PUT", f"{place}&digest={digest(blob)}", blob, "application/octet-stream")
        self._ask("PUT", f"/v2/{repository}/manifests/{tag}", manifest, MANIFEST)
        return digest(manifest)

    def pull_secret(self, name: str, password: str = PASSWORD) -> dict[str, Any]:
        """The Secret that pulls from here."""
        auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
        config = json.dumps({"auths": {self.host: {"auth": auth}}})
        return {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64.b64encode(config.encode()).decode()},
        }  # fmt: skip

    def _answers(self) -> bool:
        try:
            return bool(self._ask("GET", "/v2/").status == 200)
        except urllib.error.HTTPError as error:
            error.close()
        except (OSError, http.client.HTTPException):
            pass
        return False

    def _ask(self, method: str, where: str, data: bytes | None = None, kind: str | None = None) -> Any:
        url = where if where.startswith("http") else f"http://{self.host}{where}"
        headers = {"Content-Type": kind} if kind else {}
        if self.password:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer


class FickleRegistry:
    """Serves modules by tag, or asks for a pause of five minutes, so that nobody tries again by himself."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0
        """Requests for a tag."""
        self._content: dict[str, bytes] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry._answer(self)

            def do_HEAD(self) -> None:
                registry._answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def push(self, name: str, module: bytes) -> str:
        """Let a tag be this module; the manifest's digest."""
        repository, tag = name.split(":")
        manifest = manifest_of(module)
        for reference in (tag, digest(manifest)):
            self._content[f"/v2/{repository}/manifests/{reference}"] = manifest
        self._content[f"/v2/{repository}/blobs/{digest(module)}"] = module
        return digest(manifest)

    def source(self, name: str, **more: Any) -> dict[str, Any]:
        """A source in here."""
        return {"oci": {"reference": f"{self.host}/{name}", "insecure": True, **more}}

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked += "/manifests/" in request.path and "sha256:" not in request.path
        body = b"" if self.away else self._content.get(request.path, b"")
        request.send_response(429 if self.away else 200 if body else 404)
        if self.away:
            request.send_header("Retry-After", "300")
        request.send_header("Docker-Content-Digest", digest(body))
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)
