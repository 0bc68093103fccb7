"""Injection: a pod goes in, the same pod with a sidecar comes out. Pure.

The sidecar is a native one (https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/): an init container
that is restarted always, the first of all, so that hooks are answered before anything else in the pod runs and until
everything else has ended. ``docs/operate/injection.md`` is this page for users, and has the same by hand.

Whether a pod is asked about at all is decided by the labels in the webhook's configuration. A pod that was asked for
either gets its sidecar, or is refused with a sentence, or is left alone with a warning; never silently without.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from hookline_api.distribution import AUDIENCE
from hookline_api.quantities import format_size, parse_size
from hookline_artifacts.errors import FetchError
from hookline_artifacts.reference import Reference
from hookline_artifacts.reference import parse as parse_reference
from hookline_operator.cluster.labels import ANNOTATION_CA, LABEL_ASKS, SIDECAR_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hookline_operator.settings import Settings

Json = dict[str, Any]

CONTAINER: Final = "hookline-sidecar"
SOCKET_FOLDER: Final = "/run/hookline"
STATE_FOLDER: Final = "/var/lib/hookline"
# Not below /var/run/hookline: /var/run is a link to /run in most images, and the socket's volume would hide it.
IDENTITY_FOLDER: Final = "/var/run/secrets/hookline.dev"

_SOCKET: Final = "hookline-socket"
_STATE: Final = "hookline-state"
_IDENTITY: Final = "hookline-identity"
_PORT_NAME: Final = "hookline-health"
_API_TOKEN_FOLDER: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
_USER: Final = 65532
_MAX_CONTAINERS: Final = 256
_MAX_WARNINGS: Final = 5
_MIN_MEMORY: Final = 64 * 2**20
_SIDECAR_MEMORY: Final = 224 * 2**20
_WORKER_MEMORY: Final = 96 * 2**20
"""Bytes that a sidecar takes, and each of its workers beside it, to run a plugin of the default limits: processes, a
compiler, the plugins' store and small modules; and 70 MiB for one call in each worker (``plugin.budget``)."""
_FOR_EVER: Final = 2**31 - 1
"""Failures of a probe, the most that Kubernetes takes. A sidecar that waits for a plugin or for the operator must not
be restarted for it: it would begin anew, and its restarts would be taken for the trouble. One that hangs before it was
ever ready ends by itself (``hookline_sidecar.control.waiting``); from then on, kubelet asks for ``/healthz``."""
_FIRST_PORT: Final = 1024
_LEVELS: Final = ("debug", "info", "warning", "error")
_MAX_WORKERS: Final = 64
AUTH_HEADERS: Final = ("any", "nginx", "ingress-nginx", "traefik", "caddy", "haproxy", "envoy")
"""What a sidecar's ``--auth-headers`` takes."""

_A: Final = "hookline.dev/"
_IMAGE, _WORKERS, _LEVEL = _A + "sidecar-image", _A + "sidecar-workers", _A + "sidecar-log-level"
_CPU_REQUEST, _CPU_LIMIT = _A + "sidecar-cpu-request", _A + "sidecar-cpu-limit"
_MEMORY_REQUEST, _MEMORY_LIMIT = _A + "sidecar-memory-request", _A + "sidecar-memory-limit"
_HOOK_PORT, _HEALTH_PORT = _A + "hook-port", _A + "health-port"
_AUTH_HEADERS: Final = _A + "auth-headers"
_OLD_HEALTH_PORT: Final = _A + "admin-port"
"""Means the same: on that port there was more once."""
ANNOTATIONS: Final = (
    _IMAGE, _CPU_REQUEST, _CPU_LIMIT, _MEMORY_REQUEST, _MEMORY_LIMIT, _HOOK_PORT, _HEALTH_PORT, _OLD_HEALTH_PORT,
    _WORKERS, _LEVEL, _AUTH_HEADERS,
)  # fmt: skip
"""What a pod may say about its sidecar."""

# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/, as far as people write processors
_CPU: Final = re.compile(r"([0-9]{1,6})m|[0-9]{1,4}(?:\.[0-9]{1,3})?")


class InjectionError(ValueError):
    """A pod that asks for a sidecar cannot have one as it is; the message is one sentence for its author."""


class MalformedPodError(ValueError):
    """This is no pod: an API server would not have sent it. The message is one sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InjectionSettings:
    """What the operator puts into pods."""

    image: str
    """Of the sidecar."""
    operator: str
    """Where sidecars find the operator: ``https://SERVICE.NAMESPACE.svc``."""
    operator_ca: str
    """The certificate authorities that it is known by, PEM."""
    image_pull_policy: str | None = None
    """``Always``, ``IfNotPresent`` or ``Never``; None leaves it to Kubernetes."""
    cpu_request: str = "50m"
    cpu_limit: str | None = None
    memory_request: str = "128Mi"
    memory_limit: str = "512Mi"
    log_level: str = "info"
    """These five hold where a pod's annotations say nothing."""

    @classmethod
    def of(cls, settings: Settings, *, authority: str) -> InjectionSettings:
        """From the operator's own settings; ``authority`` is PEM. Raises ValueError as the constructor."""
        return cls(
            image=settings.sidecar_image,
            operator=f"https://{settings.service}.{settings.own_namespace}.svc",
            operator_ca=authority,
            image_pull_policy=settings.sidecar_image_pull_policy or None,
            log_level=settings.sidecar_log_level,
            **settings.sidecar_resources,
        )

    def __post_init__(self) -> None:
        """Raises ValueError, with a sentence, for settings that no pod could have."""
        _amount("cpu-request", self.cpu_request, _cpu)
        if self.cpu_limit is not None and _amount("cpu-limit", self.cpu_limit, _cpu) < _cpu(self.cpu_request):
            raise ValueError(f"the sidecar's cpu-request is {self.cpu_request}, and its cpu-limit {self.cpu_limit}")
        _amount("memory-request", self.memory_request, _memory)
        if _amount("memory-limit", self.memory_limit, _memory) < _memory(self.memory_request):
            raise ValueError(
                f"the sidecar's memory-request is {self.memory_request}, and its memory-limit {self.memory_limit}"
            )
        if self.log_level not in _LEVELS:
            raise ValueError(f"the sidecar's log-level is {self.log_level!r:.40}, and none of {', '.join(_LEVELS)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Injected:
    """The answer about one pod."""

    pod: Json
    """As it should be; the very object that came in where nothing changes."""
    warnings: tuple[str, ...] = ()
    """For whoever made the pod, one sentence each; at most five."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wishes:
    """The annotations of one pod, checked."""

    image: str
    requests: Json
    limits: Json
    state_size: str
    hook_port: int | None
    health_port: int
    workers: int
    log_level: str
    auth_headers: str | None


@dataclass(slots=True)
class _Notes:
    subject: str
    warnings: list[str] = field(default_factory=list)

    def warn(self, sentence: str) -> None:
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(f"{self.subject}: {sentence}")

    def left_alone(self, pod: Json, why: str) -> Injected:
        self.warn(f"no sidecar was injected: {why}")
        return Injected(pod=pod, warnings=tuple(self.warnings))


def inject(pod: Json, *, namespace: str, settings: InjectionSettings) -> Injected:
    """The pod with a sidecar; ``pod`` itself is not changed.

    ``namespace`` is the request's, since a pod that is being created may not know its own. Injecting twice is
    injecting once. Raises InjectionError where the pod cannot have a sidecar as it is, MalformedPodError where it is
    no pod at all.
    """
    metadata, spec = _mapping(pod, "metadata"), _mapping(pod, "spec")
    labels, annotations = _texts(metadata, "labels"), _texts(metadata, "annotations")
    containers, init = _list(spec, "containers"), _list(spec, "initContainers")
    notes = _Notes(_subject(namespace, metadata))

    if labels.get(LABEL_ASKS) == "false":
        return Injected(pod=pod)
    if (reason := _not_for_us(spec, annotations)) is not None:
        return notes.left_alone(pod, reason)
    if any(container.get("name") == CONTAINER for container in (*containers, *init)):
        _check_by_hand(labels, init, notes)
        return Injected(pod=pod, warnings=tuple(notes.warnings))

    try:
        if len(containers) + len(init) > _MAX_CONTAINERS:
            raise InjectionError(f"it has more than {_MAX_CONTAINERS} containers")  # noqa: TRY301 - one place for all
        _check_labels(labels, annotations, notes)
        wishes = _wishes(annotations, settings)
        _check_network(spec, annotations, (*containers, *init), wishes, settings, notes)
        _warn_of_little_memory(wishes, notes)
        changed = {
            **spec,
            "volumes": _with_volumes(_list(spec, "volumes"), wishes),
            "initContainers": [_sidecar(wishes, settings), *(_with_socket(each, notes) for each in init)],
            "containers": [_with_socket(each, notes) for each in containers],
        }
    except InjectionError as error:
        raise InjectionError(f"{notes.subject}: {error}") from None
    marked = {
        **metadata,
        "labels": {**labels, SIDECAR_LABEL: "true"},
        "annotations": {**annotations, ANNOTATION_CA: settings.operator_ca},
    }
    return Injected(pod={**pod, "metadata": marked, "spec": changed}, warnings=tuple(notes.warnings))


def patch(before: Json, after: Json) -> list[Json]:
    """The RFC 6902 operations that make ``after`` of ``before``: whole fields of ``metadata`` and ``spec``.

    Only for what ``inject`` does: it adds and replaces fields of these two, and removes none.
    """
    operations: list[Json] = []
    for section in ("metadata", "spec"):
        old, new = before.get(section), after.get(section)
        if new == old:
            continue
        if not isinstance(old, dict):
            operations.append({"op": "add", "path": f"/{section}", "value": new})
            continue
        for name, value in (new or {}).items():
            if name not in old or old[name] != value:
                path = f"/{section}/{name.replace('~', '~0').replace('/', '~1')}"
                operations.append({"op": "replace" if name in old else "add", "path": path, "value": value})
    return operations


def _subject(namespace: str, metadata: Json) -> str:
    name = str(metadata.get("name") or f"{metadata.get('generateName') or ''}*")
    # One line, whatever was sent: this is logged.
    return "".join(each if each.isprintable() else "?" for each in f"pod {namespace:.63}/{name:.253}")


def _not_for_us(spec: Json, annotations: Mapping[str, str]) -> str | None:
    if "kubernetes.io/config.mirror" in annotations:
        return "it mirrors a static pod, which no API server can change"
    system, selector = spec.get("os"), spec.get("nodeSelector")
    chosen = selector.get("kubernetes.io/os") if isinstance(selector, dict) else None
    if (isinstance(system, dict) and system.get("name") == "windows") or chosen == "windows":
        return "the sidecar does not run on Windows"
    return None


def _check_by_hand(labels: Mapping[str, str], init: list[Json], notes: _Notes) -> None:
    """A pod that has the container keeps it as it is: injected before, or written by hand."""
    ours = next((each for each in init if each.get("name") == CONTAINER), None)
    if ours is not None and ours.get("restartPolicy") != "Always":
        notes.warn(f"the init container {CONTAINER} lacks restartPolicy: Always, so the pod waits for its end forever")
    if labels.get(SIDECAR_LABEL) != "true":
        notes.warn(f'it has a container {CONTAINER} and lacks the label {SIDECAR_LABEL}: "true": no plugin reaches it')


def _check_labels(labels: Mapping[str, str], annotations: Mapping[str, str], notes: _Notes) -> None:
    if labels.get(SIDECAR_LABEL, "true") != "true":
        # A selector may hold this value. With another one, the pod's owner would not know the pod, and make it anew
        # without end.
        raise InjectionError(
            f'the label {SIDECAR_LABEL} says {labels[SIDECAR_LABEL]!r:.40}: leave it out, or write "true"'
        )
    if labels.get(LABEL_ASKS, "true") != "true":
        notes.warn(
            f'the label {LABEL_ASKS} says {labels[LABEL_ASKS]!r:.40}, and only "true" and "false" mean something'
        )
    for name in sorted(annotations):
        if name in {LABEL_ASKS, SIDECAR_LABEL}:
            notes.warn(f"{name} is a label, and does nothing as an annotation")
        elif name.startswith(_A) and name not in ANNOTATIONS and name != ANNOTATION_CA:
            notes.warn(f"Hookline knows no annotation {name:.100}")


def _wishes(annotations: Mapping[str, str], settings: InjectionSettings) -> _Wishes:
    workers = annotations.get(_WORKERS, "1")
    if not re.fullmatch("[0-9]{1,3}", workers, re.ASCII) or not 1 <= int(workers) <= _MAX_WORKERS:
        raise InjectionError(f"the annotation {_WORKERS} is {workers!r:.40}, and not between 1 and {_MAX_WORKERS}")
    enough = _enough_memory(int(workers), settings)
    cpu = _amounts(annotations, _CPU_REQUEST, _CPU_LIMIT, _cpu, (settings.cpu_request, settings.cpu_limit))
    memory = _amounts(annotations, _MEMORY_REQUEST, _MEMORY_LIMIT, _memory, (settings.memory_request, enough))
    hook_port = None if annotations.get(_HOOK_PORT) == "off" else _port(annotations, _HOOK_PORT, 9901, also=" or 'off'")
    health_name = _health_annotation(annotations)
    health_port = _port(annotations, health_name, 9902)
    if hook_port == health_port:
        raise InjectionError(f"the annotations {_HOOK_PORT} and {health_name} mean the same port, {health_port}")
    level = annotations.get(_LEVEL, settings.log_level)
    if level not in _LEVELS:
        raise InjectionError(f"the annotation {_LEVEL} is {level!r:.40}, and none of {', '.join(_LEVELS)}")
    proxy = annotations.get(_AUTH_HEADERS)
    if proxy is not None and proxy not in AUTH_HEADERS:
        raise InjectionError(f"the annotation {_AUTH_HEADERS} is {proxy!r:.40}, and none of {', '.join(AUTH_HEADERS)}")
    return _Wishes(
        image=_image(annotations[_IMAGE]) if _IMAGE in annotations else settings.image,
        requests={"cpu": cpu[0], "memory": memory[0]},
        limits={name: limit for name, (_, limit) in (("cpu", cpu), ("memory", memory)) if limit is not None},
        # Memory-backed: what is in it counts as the sidecar's memory. Half is left for the processes.
        state_size=format_size(int(_memory(memory[1] or settings.memory_limit)) // 2),
        hook_port=hook_port,
        health_port=health_port,
        workers=int(workers),
        log_level=level,
        auth_headers=proxy,
    )


def _enough_memory(workers: int, settings: InjectionSettings) -> str:
    """The limit of a pod that says none: the operator's, and more where that is too little for so many workers."""
    needed = _SIDECAR_MEMORY + workers * _WORKER_MEMORY
    return settings.memory_limit if workers == 1 or needed <= _memory(settings.memory_limit) else format_size(needed)


def _warn_of_little_memory(wishes: _Wishes, notes: _Notes) -> None:
    needed, limit = _SIDECAR_MEMORY + wishes.workers * _WORKER_MEMORY, wishes.limits["memory"]
    if _memory(limit) < needed:
        workers = "one worker" if wishes.workers == 1 else f"{wishes.workers} workers"
        notes.warn(
            f"with {limit} of memory, a sidecar of {workers} has no room for plugins of the default limits, and does "
            f"not load them: set {_MEMORY_LIMIT} to {format_size(needed)}, or lower their limits.memory"
        )


def _health_annotation(annotations: Mapping[str, str]) -> str:
    """Which of the two names the pod uses."""
    return _OLD_HEALTH_PORT if _OLD_HEALTH_PORT in annotations and _HEALTH_PORT not in annotations else _HEALTH_PORT


def _amounts(
    annotations: Mapping[str, str],
    request_name: str,
    limit_name: str,
    parse: Callable[[str], Fraction],
    defaults: tuple[str, str | None],
) -> tuple[str, str | None]:
    """Request and limit, as written. A default gives way to what the pod says."""
    for name in (request_name, limit_name):
        if name in annotations:
            try:
                parse(annotations[name])
            except ValueError as error:
                raise InjectionError(f"the annotation {name} is {annotations[name]!r:.40}, and {error}") from None
    request = annotations.get(request_name, defaults[0])
    limit = annotations.get(limit_name, defaults[1])
    if limit is None or parse(request) <= parse(limit):
        return request, limit
    if request_name in annotations:
        raise InjectionError(
            f"the annotation {request_name} is {request}, over the limit {limit}: set {limit_name} to as much at least"
        )
    return limit, limit


def _amount(name: str, text: str, parse: Callable[[str], Fraction]) -> Fraction:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"the sidecar's {name} is {text!r:.40}, and {error}") from None


def _cpu(text: str) -> Fraction:
    match = _CPU.fullmatch(text)
    value = Fraction(0) if match is None else Fraction(int(match[1]), 1000) if match[1] else Fraction(text)
    if value <= 0:
        raise ValueError("no number of processors such as 50m, 0.5 or 2")
    return value


def _memory(text: str) -> Fraction:
    try:
        value = parse_size(text)
    except ValueError:
        raise ValueError("no size such as 128Mi or 1Gi") from None
    if value < _MIN_MEMORY:
        raise ValueError(f"less than the {format_size(_MIN_MEMORY)} that a sidecar needs")
    return Fraction(value)


def _port(annotations: Mapping[str, str], name: str, default: int, *, also: str = "") -> int:
    text = annotations.get(name, str(default))
    if not re.fullmatch("[0-9]{1,5}", text, re.ASCII) or not _FIRST_PORT <= int(text) < 2**16:
        raise InjectionError(f"the annotation {name} is {text!r:.40}, and no port from {_FIRST_PORT} to 65535{also}")
    return int(text)


def _image(text: str) -> str:
    try:
        if not isinstance(parse_reference(text), Reference) or "://" in text:
            raise FetchError("another kind of reference", transient=False)  # noqa: TRY301 - judged as the others
    except FetchError:
        raise InjectionError(
            f"the annotation {_IMAGE} is {text!r:.100}, and no image such as registry/name:tag"
        ) from None
    return text


def _check_network(
    spec: Json,
    annotations: Mapping[str, str],
    others: tuple[Json, ...],
    wishes: _Wishes,
    settings: InjectionSettings,
    notes: _Notes,
) -> None:
    on_the_node = spec.get("hostNetwork") is True
    health_name = _health_annotation(annotations)
    if on_the_node and not {_HOOK_PORT, health_name} <= annotations.keys():
        raise InjectionError(
            f"it uses its node's network, so the sidecar's ports would be the node's: say which, with the annotations "
            f'{_HOOK_PORT} (or "off") and {_HEALTH_PORT}, or do without a sidecar, with the label {LABEL_ASKS}: "false"'
        )
    wanted = {wishes.health_port: health_name}
    if wishes.hook_port is not None:
        wanted[wishes.hook_port] = _HOOK_PORT
    for container in others:
        for port in _list(container, "ports"):
            number = port.get("containerPort")
            # A tuple: what is no text may not be hashable either.
            if port.get("protocol") in (None, "TCP") and isinstance(number, int) and number in wanted:
                raise InjectionError(
                    f"the container {container.get('name')!r:.70} has the port {number}, which the sidecar takes: "
                    f"give the sidecar another one with the annotation {wanted[number]}"
                )
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy in ("None", "Default") or (on_the_node and policy == "ClusterFirst"):
        host = urlsplit(settings.operator).hostname
        notes.warn(f"with its dnsPolicy, the sidecar may not find the operator, {host}")


def _sidecar(wishes: _Wishes, settings: InjectionSettings) -> Json:
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
            *([] if wishes.auth_headers is None else [f"--auth-headers={wishes.auth_headers}"]),
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
        ],
    }
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


def _with_volumes(volumes: list[Json], wishes: _Wishes) -> list[Json]:
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
    ]
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


def _with_socket(container: Json, notes: _Notes) -> Json:
    mounts = _list(container, "volumeMounts")
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


def _mapping(parent: Json, name: str) -> Json:
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedPodError(f"the pod's {name} is no object")
    return value


def _texts(parent: Json, name: str) -> dict[str, str]:
    value = _mapping(parent, name)
    if not all(isinstance(text, str) for text in value.values()):
        raise MalformedPodError(f"the pod's {name} are not all strings")
    return value


def _list(parent: Json, name: str) -> list[Json]:
    value = parent.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise MalformedPodError(f"the pod's {name} are no list of objects")
    return value
