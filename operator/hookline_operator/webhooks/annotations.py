"""What an injected sidecar should be like, by the operator's settings and by its pod's annotations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from hookline_api.base import NAME_PATTERN
from hookline_api.quantities import format_size, parse_size
from hookline_artifacts.errors import FetchError
from hookline_artifacts.reference import Reference
from hookline_artifacts.reference import parse as parse_reference
from hookline_operator.webhooks.pod_json import InjectionError, Json, Notes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hookline_operator.settings import Settings

_MIN_MEMORY: Final = 64 * 2**20
_SIDECAR_MEMORY: Final = 224 * 2**20
_WORKER_MEMORY: Final = 96 * 2**20
"""Bytes that a sidecar takes, and each of its workers beside it, to run a plugin of the default limits: processes, a
compiler, the plugins' store and small modules; and 70 MiB for one call in each worker (``plugin.budget``)."""
_LEAST_CACHE_MEMORY: Final = 4 * 2**20
_FIRST_PORT: Final = 1024
_LEVELS: Final = ("debug", "info", "warning", "error")
_MAX_WORKERS: Final = 64
_MAX_NAME: Final = 253
_MAX_IMAGE_VOLUMES: Final = 8
_VOLUME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
AUTH_HEADERS: Final = ("any", "nginx", "ingress-nginx", "traefik", "caddy", "haproxy", "envoy")
"""What a sidecar's ``--auth-headers`` takes."""

PREFIX: Final = "hookline.dev/"
_IMAGE, _WORKERS, _LEVEL = PREFIX + "sidecar-image", PREFIX + "sidecar-workers", PREFIX + "sidecar-log-level"
_CPU_REQUEST, _CPU_LIMIT = PREFIX + "sidecar-cpu-request", PREFIX + "sidecar-cpu-limit"
_MEMORY_REQUEST, _MEMORY_LIMIT = PREFIX + "sidecar-memory-request", PREFIX + "sidecar-memory-limit"
_CACHE_MEMORY: Final = PREFIX + "sidecar-cache-memory"
HOOK_PORT, HEALTH_PORT = PREFIX + "hook-port", PREFIX + "health-port"
_AUTH_HEADERS: Final = PREFIX + "auth-headers"
TRUST_POLICY: Final = PREFIX + "trust-policy"
"""A ConfigMap of the pod's namespace, mounted as the sidecar's own policies.

DANGER: who injects is the operator, and an operator that is compromised leaves it out. This guards against mistakes.
Against the operator, policies have to be part of the sidecar's image, or of a pod's template that has its sidecar
written by hand.
"""
IMAGE_VOLUMES: Final = PREFIX + "image-volumes"
_OLD_HEALTH_PORT: Final = PREFIX + "admin-port"
"""Means the same: on that port there was more once."""
ANNOTATIONS: Final = (
    _IMAGE, _CPU_REQUEST, _CPU_LIMIT, _MEMORY_REQUEST, _MEMORY_LIMIT, HOOK_PORT, HEALTH_PORT, _OLD_HEALTH_PORT,
    _WORKERS, _LEVEL, _AUTH_HEADERS, _CACHE_MEMORY, TRUST_POLICY, IMAGE_VOLUMES,
)  # fmt: skip
"""What a pod may say about its sidecar."""

# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/, as far as people write processors
_CPU: Final = re.compile(r"([0-9]{1,6})m|[0-9]{1,4}(?:\.[0-9]{1,3})?")


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
    image_volumes: bool = False
    """Whether pods may have image volumes. A node without them runs no pod that has one."""
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
            image_volumes=settings.image_volumes,
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
            levels = ", ".join(_LEVELS)
            raise ValueError(f"the sidecar's log-level is {self.log_level!r:.40}: it must be one of {levels}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """The annotations of one pod, checked."""

    image: str
    requests: Json
    limits: Json
    state_size: str
    hook_port: int | None
    health_port: int
    workers: int
    cache_memory: str | None
    """As the sidecar's ``--cache-memory``; None leaves it to the sidecar."""
    log_level: str
    auth_headers: str | None
    trust_policy: str | None
    """Name of the ConfigMap with the sidecar's own policies."""
    image_volumes: tuple[tuple[str, str], ...]
    """Name and reference of each image with modules."""


def wishes_of(annotations: Mapping[str, str], settings: InjectionSettings) -> Wishes:
    """What a pod's annotations ask for, and the operator's settings where they ask for nothing.

    Raises InjectionError for an annotation that cannot be followed.
    """
    workers = annotations.get(_WORKERS, "1")
    if not re.fullmatch("[0-9]{1,3}", workers, re.ASCII) or not 1 <= int(workers) <= _MAX_WORKERS:
        raise InjectionError(f"the annotation {_WORKERS} is {workers!r:.40}: it must be between 1 and {_MAX_WORKERS}")
    enough = _enough_memory(int(workers), settings)
    cpu = _amounts(annotations, _CPU_REQUEST, _CPU_LIMIT, _cpu, (settings.cpu_request, settings.cpu_limit))
    memory = _amounts(annotations, _MEMORY_REQUEST, _MEMORY_LIMIT, _memory, (settings.memory_request, enough))
    hook_port = None if annotations.get(HOOK_PORT) == "off" else _port(annotations, HOOK_PORT, 9901, also=" or 'off'")
    health_name = health_annotation(annotations)
    health_port = _port(annotations, health_name, 9902)
    if hook_port == health_port:
        raise InjectionError(f"the annotations {HOOK_PORT} and {health_name} mean the same port, {health_port}")
    level = annotations.get(_LEVEL, settings.log_level)
    if level not in _LEVELS:
        raise InjectionError(f"the annotation {_LEVEL} is {level!r:.40}: it must be one of {', '.join(_LEVELS)}")
    proxy = annotations.get(_AUTH_HEADERS)
    if proxy is not None and proxy not in AUTH_HEADERS:
        raise InjectionError(
            f"the annotation {_AUTH_HEADERS} is {proxy!r:.40}: it must be one of {', '.join(AUTH_HEADERS)}"
        )
    # Memory-backed: what is in it counts as the sidecar's memory. Half is left for the processes.
    state_size = int(_memory(memory[1] or settings.memory_limit)) // 2
    return Wishes(
        image=_image(annotations[_IMAGE]) if _IMAGE in annotations else settings.image,
        requests={"cpu": cpu[0], "memory": memory[0]},
        limits={name: limit for name, (_, limit) in (("cpu", cpu), ("memory", memory)) if limit is not None},
        state_size=format_size(state_size),
        hook_port=hook_port,
        health_port=health_port,
        workers=int(workers),
        cache_memory=_cache_memory(annotations, state_size),
        log_level=level,
        auth_headers=proxy,
        trust_policy=_trust_policy(annotations),
        image_volumes=_image_volumes(annotations.get(IMAGE_VOLUMES, "")),
    )


def _trust_policy(annotations: Mapping[str, str]) -> str | None:
    name = annotations.get(TRUST_POLICY)
    if name is not None and (len(name) > _MAX_NAME or not re.fullmatch(NAME_PATTERN, name)):
        raise InjectionError(
            f"the annotation {TRUST_POLICY} is {name!r:.40}: it must be the name of a ConfigMap of the pod's namespace"
        )
    return name


def _image_volumes(text: str) -> tuple[tuple[str, str], ...]:
    """``name=reference,…`` as the annotation has it."""
    found: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, reference = part.partition("=")
        try:
            is_reference = isinstance(parse_reference(reference), Reference)
        except FetchError:
            is_reference = False
        if not _VOLUME.fullmatch(name) or name in found or not is_reference or len(found) == _MAX_IMAGE_VOLUMES:
            raise InjectionError(
                f"the annotation {IMAGE_VOLUMES} has {part!r:.80}: it must be at most {_MAX_IMAGE_VOLUMES} times "
                "NAME=REFERENCE with commas between, each with another name"
            )
        found[name] = reference
    return tuple(found.items())


def warn_of_no_image_volumes(wishes: Wishes, settings: InjectionSettings, notes: Notes) -> None:
    """Note it where images are named that are not mounted."""
    if wishes.image_volumes and not settings.image_volumes:
        notes.warn(
            f"the images of {IMAGE_VOLUMES} are not mounted, and modules come from the operator, which was not told "
            "that this cluster has image volumes: --image-volumes, or sidecar.imageVolumes of its chart"
        )


def _enough_memory(workers: int, settings: InjectionSettings) -> str:
    """The limit of a pod that says none: the operator's, and more where that is too little for so many workers."""
    needed = _SIDECAR_MEMORY + workers * _WORKER_MEMORY
    return settings.memory_limit if workers == 1 or needed <= _memory(settings.memory_limit) else format_size(needed)


def warn_of_little_memory(wishes: Wishes, notes: Notes) -> None:
    """Note it where plugins of the default limits do not fit into the sidecar's memory."""
    needed, limit = _SIDECAR_MEMORY + wishes.workers * _WORKER_MEMORY, wishes.limits["memory"]
    if _memory(limit) < needed:
        workers = "one worker" if wishes.workers == 1 else f"{wishes.workers} workers"
        notes.warn(
            f"with {limit} of memory, a sidecar of {workers} has no room for plugins of the default limits, and does "
            f"not load them: set {_MEMORY_LIMIT} to {format_size(needed)}, or lower their limits.memory"
        )


def health_annotation(annotations: Mapping[str, str]) -> str:
    """The name of the two that the pod uses for the health port."""
    return _OLD_HEALTH_PORT if _OLD_HEALTH_PORT in annotations and HEALTH_PORT not in annotations else HEALTH_PORT


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
                given = annotations[name]
                raise InjectionError(f"the annotation {name} is {given!r:.40}: it must be {error}") from None
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
        raise ValueError(f"the sidecar's {name} is {text!r:.40}: it must be {error}") from None


def _cpu(text: str) -> Fraction:
    match = _CPU.fullmatch(text)
    value = Fraction(0) if match is None else Fraction(int(match[1]), 1000) if match[1] else Fraction(text)
    if value <= 0:
        raise ValueError("a number of processors such as 50m, 0.5 or 2")
    return value


def _memory(text: str) -> Fraction:
    try:
        value = parse_size(text)
    except ValueError:
        raise ValueError("a size such as 128Mi or 1Gi") from None
    if value < _MIN_MEMORY:
        raise ValueError(f"at least the {format_size(_MIN_MEMORY)} that a sidecar needs")
    return Fraction(value)


def _cache_memory(annotations: Mapping[str, str], most: int) -> str | None:
    text = annotations.get(_CACHE_MEMORY)
    if text is None:
        return None
    try:
        size = parse_size(text)
    except ValueError:
        size = 0
    if not _LEAST_CACHE_MEMORY <= size <= most:
        raise InjectionError(
            f"the annotation {_CACHE_MEMORY} is {text!r:.40}: it must be a size from "
            f"{format_size(_LEAST_CACHE_MEMORY)} to {format_size(most)}, which is half of the sidecar's memory limit"
        )
    return format_size(size)


def _port(annotations: Mapping[str, str], name: str, default: int, *, also: str = "") -> int:
    text = annotations.get(name, str(default))
    if not re.fullmatch("[0-9]{1,5}", text, re.ASCII) or not _FIRST_PORT <= int(text) < 2**16:
        raise InjectionError(
            f"the annotation {name} is {text!r:.40}: it must be a port from {_FIRST_PORT} to 65535{also}"
        )
    return int(text)


def _image(text: str) -> str:
    try:
        if not isinstance(parse_reference(text), Reference) or "://" in text:
            raise FetchError("another kind of reference", transient=False)  # noqa: TRY301 - judged as the others
    except FetchError:
        raise InjectionError(
            f"the annotation {_IMAGE} is {text!r:.100}: it must be an image such as registry/name:tag"
        ) from None
    return text
