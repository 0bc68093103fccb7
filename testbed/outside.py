"""What plugins reach outside their pod, as pods of a namespace: PostgreSQL, Valkey, and a server of signing keys.

Each has TLS with a certificate of the namespace's own authority, and passwords from a Secret. Their images are in
``tests/e2e/images``. A Secret ``NAME-tls`` has a server's certificate, ``NAME-passwords`` a password under each user's
name, and ``outside-ca`` the authority under ``ca.crt``.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cluster.pki import Authority, encoded
from installation import Tenant, image, kill_container, until
from waiting import PATIENCE_S

AUTHORITY: Final = "outside-ca"
_RESTRICTED: Final = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_KEY_SERVER: Final = """
import http.server, pathlib, ssl

class Keys(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        found = self.path == "/keys.json"
        body = pathlib.Path("/keys/keys.json").read_bytes() if found else b"no"
        self.send_response(200 if found else 404)
        self.send_header("content-type", "application/json")
        self.send_header("cache-control", "max-age=1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server = http.server.ThreadingHTTPServer(("", 8443), Keys)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"""


def new_password() -> str:
    """One that has to be quoted wherever somebody forgets to."""
    return f"p'\"\\ %{secrets.token_hex(8)}"


@dataclass(frozen=True, kw_only=True)
class Server:
    """One of them: a Deployment of one pod, and a Service of the same name."""

    tenant: Tenant
    name: str
    port: int

    @property
    def host(self) -> str:
        """Its name within the cluster; its certificate has it."""
        return f"{self.name}.{self.tenant.name}.svc"

    @property
    def address(self) -> str:
        """The address that ``host`` has."""
        found = self.tenant.cluster.get("service", self.name, f"--namespace={self.tenant.name}")
        return str(found["spec"]["clusterIP"])

    def ready(self) -> None:
        """Back when it takes connections."""
        self.tenant.kubectl("rollout", "status", f"deployment/{self.name}", f"--timeout={PATIENCE_S:.0f}s")

    def runs(self, *command: str) -> str:
        """What a command in its container prints."""
        where = (f"deployment/{self.name}", f"--namespace={self.tenant.name}", "--")
        return self.tenant.cluster.kubectl("exec", *where, *command)

    def away(self) -> None:
        """Take its pod away, with all that it kept; back when nobody is there."""
        self._scale(0)
        until(lambda: not self._pods(), f"{self.name} is gone")

    def back(self) -> None:
        """Start it again, from nothing."""
        self._scale(1)
        self.ready()

    def restarted(self) -> None:
        """Kill its process; back when the kubelet has started it again, on the files that it had."""
        (pod,) = self._pods()
        before = _restarts(pod)
        kill_container(self.tenant.cluster, pod, self.name)
        until(lambda: _restarts(self._pods()[0]) > before, f"{self.name} was started again")
        self.ready()

    def _scale(self, replicas: int) -> None:
        self.tenant.kubectl("scale", f"deployment/{self.name}", f"--replicas={replicas}")

    def _pods(self) -> list[dict[str, Any]]:
        where = (f"--namespace={self.tenant.name}", f"--selector=app={self.name}")
        found: list[dict[str, Any]] = self.tenant.cluster.get("pods", *where)["items"]
        return found


class Outside:
    """Makes the servers of one namespace. ``folder`` is where its authority keeps its files."""

    def __init__(self, tenant: Tenant, folder: Path) -> None:
        self.tenant = tenant
        self._authority = Authority(folder / tenant.name)
        self._secret(AUTHORITY, {"ca.crt": encoded(self._authority.own.certificate)})

    def postgres(self, *, sql: str, **passwords: str) -> Server:
        """A database ``postgres`` in which ``sql`` was run, once there was a role for each of ``passwords``."""
        self._config_map("postgres-sql", {"scene.sql": sql})
        self.passwords("postgres", **passwords)
        return self._serve("postgres", 5432, container={"image": image("postgres")}, sql="postgres-sql")

    def valkey(self, **passwords: str) -> Server:
        """A server that knows these users."""
        self.passwords("valkey", **passwords)
        return self._serve("valkey", 6379, container={"image": image("valkey")})

    def key_server(self, keys: Mapping[str, Any]) -> Server:
        """Serves ``keys`` at ``/keys.json``, to be kept for one second."""
        self.publish(keys)
        program = {"image": image("tools"), "command": ["python3", "-c", _KEY_SERVER]}
        return self._serve("keys", 8443, container=program, keys="keys")

    def publish(self, keys: Mapping[str, Any]) -> None:
        """Let the key server have others. It has them when the kubelet brings them."""
        self._config_map("keys", {"keys.json": json.dumps(keys)})

    def passwords(self, server: str, **passwords: str) -> None:
        """Write a server's Secret. The server itself reads it when it is started from nothing."""
        self.tenant.secret(f"{server}-passwords", **passwords)

    def _serve(self, name: str, port: int, *, container: dict[str, Any], **config_maps: str) -> Server:
        server = Server(tenant=self.tenant, name=name, port=port)
        pair = self._authority.sign(name, name, addresses=[server.host])
        self._secret(f"{name}-tls", {"tls.crt": encoded(pair.certificate), "tls.key": encoded(pair.key)})
        volumes: dict[str, dict[str, Any]] = {
            "data": {"emptyDir": {}},
            "tmp": {"emptyDir": {}},
            "tls": {"secret": {"secretName": f"{name}-tls"}},
            "passwords": {"secret": {"secretName": f"{name}-passwords", "optional": True}},
            **{path: {"configMap": {"name": known}} for path, known in config_maps.items()},
        }
        spec = {
            "name": name,
            **container,
            "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [{"name": each, "mountPath": f"/{each}"} for each in volumes],
        }  # fmt: skip
        pod = {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _RESTRICTED,
            "terminationGracePeriodSeconds": 5,
            "containers": [spec],
            "volumes": [{"name": each, **source} for each, source in volumes.items()],
        }
        labels = {"app": name}
        self.tenant.apply(
            {
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
                "spec": {
                    "replicas": 1,
                    "strategy": {"type": "Recreate"},
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": pod},
                },
            },
            {
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {"selector": labels, "ports": [{"port": port}]},
            },
        )  # fmt: skip
        return server

    def _secret(self, name: str, data: Mapping[str, str]) -> None:
        self.tenant.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": dict(data)})

    def _config_map(self, name: str, data: Mapping[str, str]) -> None:
        self.tenant.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(data)})


def _restarts(pod: dict[str, Any]) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"])
