"""The sidecar in the pod: its container, the volumes that it needs, and the socket in the other containers."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Final

from hookline_api.distribution import AUDIENCE
from hookline_operator.cluster.labels import ANNOTATION_CA
from hookline_operator.webhooks.pod_json import InjectionError, Json, Notes, objects

if TYPE_CHECKING:
    from hookline_operator.webhooks.annotations import InjectionSettings, Wishes

CONTAINER: Final = "hookline-sidecar"
SOCKET_FOLDER: Final = "/run/hookline"
STATE_FOLDER: Final = "/var/lib/hookline"
# Not below /var/run/hookline: /var/run is a link to /run in most images, and the socket's volume would hide it.
IDENTITY_FOLDER: Final = "/var/run/secrets/hookline.dev"

_SOCKET: Final = "hookline-socket"
_STATE: Final = "hookline-state"
_IDENTITY: Final = "hookline-identity"
_TRUST: Final = "hookline-trust"
_TRUST_FOLDER: Final = "/etc/hookline/trust"
_PORT_NAME: Final = "hookline-health"
_API_TOKEN_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_IMAGE: Final = "hookline-image-"
IMAGES_FOLDER: Final = "/var/lib/hookline-images"
"""Beside the state folder, and not in it: what is mounted there would be part of the state."""
_USER: Final = 65532
_FOR_EVER: Final = 2**31 - 1
"""Failures of a probe: the most that Kubernetes takes. A sidecar that waits for a plugin or for the operator must not
be restarted for that. One that hangs before it was ever ready ends by itself (``hookline_sidecar.control.waiting``).
From then on kubelet asks for ``/healthz``."""


def sidecar(wishes: Wishes, settings: InjectionSettings) -> Json:
    """The container."""
    images = wishes.image_volumes if settings.image_volumes else ()
    container: Json = {
        "name": CONTAINER,
        "image": wishes.image,
        "restartPolicy": "Always",
        "args": [
            f"--operator={settings.operator}",
            f"--operator-ca={IDENTITY_FOLDER}/ca.crt",
            f"--operator-token={IDENTITY_FOLDER}/token",
            f"--state={STATE_FOLDER}",
            "--listen=" + (f"127.0.0.1:{wishes.hook_port}" if wishes.hook_port is not None else "off"),
            f"--socket={SOCKET_FOLDER}/hooks.sock",
            "--socket-mode=0666",
            # Everybody in the cluster can reach a pod: what plugins and registries say is on the socket in the state
            # folder alone.
            f"--health=0.0.0.0:{wishes.health_port}",
            "--admin=off",
            f"--workers={wishes.workers}",
            f"--log-level={wishes.log_level}",
            *([] if wishes.cache_memory is None else [f"--cache-memory={wishes.cache_memory}"]),
            *([] if wishes.auth_headers is None else [f"--auth-headers={wishes.auth_headers}"]),
            *([f"--images={IMAGES_FOLDER}"] if images else []),
        ],
        "ports": [{"name": _PORT_NAME, "containerPort": wishes.health_port, "protocol": "TCP"}],
        # The pod's other containers start when this one has succeeded: they never run before the plugins do.
        "startupProbe": _probe("/readyz", period=1, failures=_FOR_EVER),
        "readinessProbe": _probe("/readyz", period=5, failures=2),
        "livenessProbe": _probe("/healthz", period=10, failures=3),
        "resources": {"requests": wishes.requests, "limits": wishes.limits},
        # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": _SOCKET, "mountPath": SOCKET_FOLDER},
            {"name": _STATE, "mountPath": STATE_FOLDER},
            {"name": _IDENTITY, "mountPath": IDENTITY_FOLDER, "readOnly": True},
            # The API server mounts the pod's API token into every container that has nothing at this path, into an
            # injected one too. A sidecar has no business with the API: it finds its own token here as well.
            {"name": _IDENTITY, "mountPath": _API_TOKEN_FOLDER, "readOnly": True},
            *({"name": _IMAGE + name, "mountPath": f"{IMAGES_FOLDER}/{name}", "readOnly": True} for name, _ in images),
        ],
    }
    if wishes.trust_policy is not None:
        container["volumeMounts"].append({"name": _TRUST, "mountPath": _TRUST_FOLDER, "readOnly": True})
    if settings.image_pull_policy is not None:
        container["imagePullPolicy"] = settings.image_pull_policy
    return container


def _probe(path: str, *, period: int, failures: int) -> Json:
    return {
        "httpGet": {"path": path, "port": _PORT_NAME},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def with_volumes(volumes: list[Json], wishes: Wishes, settings: InjectionSettings) -> list[Json]:
    """A pod's volumes, and those that the sidecar needs. Raises InjectionError where a name is taken."""
    token = {"audience": AUDIENCE, "expirationSeconds": 3600, "path": "token"}
    # With the API's own defaults (apiVersion, defaultMode) written out: a copy of an injected pod compares equal.
    ca = {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{ANNOTATION_CA}']"}
    identity = {
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": token},
            {"downwardAPI": {"items": [{"path": "ca.crt", "fieldRef": ca}]}},
        ],
    }
    wanted: list[Json] = [
        {"name": _SOCKET, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": _STATE, "emptyDir": {"medium": "Memory", "sizeLimit": wishes.state_size}},
        {"name": _IDENTITY, "projected": identity},
        *(
            {"name": _IMAGE + name, "image": {"reference": reference, "pullPolicy": "IfNotPresent"}}
            for name, reference in (wishes.image_volumes if settings.image_volumes else ())
        ),
    ]
    if wishes.trust_policy is not None:
        wanted.append({"name": _TRUST, "configMap": {"name": wishes.trust_policy, "defaultMode": 0o644}})
    there = {str(volume.get("name")): volume for volume in volumes}
    missing = []
    for volume in wanted:
        own = there.get(volume["name"])
        if own is None:
            missing.append(volume)
        elif own != volume and ("emptyDir" not in volume or not isinstance(own.get("emptyDir"), dict)):
            # An own emptyDir is welcome: to mount the socket elsewhere, or to keep the state on a disk.
            kind = "an emptyDir" if "emptyDir" in volume else "what the sidecar is injected with"
            raise InjectionError(f"it has a volume {volume['name']}, which is not {kind}: give it another name")
    return [*volumes, *missing]


def with_socket(container: Json, notes: Notes) -> Json:
    """A container of the pod, with the sidecar's socket mounted where that is possible."""
    mounts = objects(container, "volumeMounts")
    for mount in mounts:
        path = _real(mount.get("mountPath"))
        if path == SOCKET_FOLDER:
            return container
        if path in {"/", "/run"} and mount.get("readOnly") is True:
            # The runtime could not make the folder there, and the container would not start.
            name = container.get("name")
            notes.warn(f"the container {name!r:.70} mounts {path} read-only, so it does not get the socket")
            return container
    # Read-only: who may only ask can still connect, and cannot put a socket of its own in the sidecar's place.
    return {**container, "volumeMounts": [*mounts, {"name": _SOCKET, "mountPath": SOCKET_FOLDER, "readOnly": True}]}


def _real(path: object) -> str:
    """A mount's path in one spelling; /var/run is /run in most images."""
    text = posixpath.normpath("/" + str(path).lstrip("/"))
    return text.removeprefix("/var") if text == "/var/run" or text.startswith("/var/run/") else text
