"""Injection: a pod goes in, the same pod with a sidecar comes out. Pure.

The sidecar is a native one (https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/): an init container
with ``restartPolicy: Always``. It is the first of all, so hooks are answered before anything else in the pod runs, and
until everything else has ended. ``docs/operate/injection.md`` describes the same for users, and by hand.

The labels in the webhook's configuration decide whether a pod is asked about. Such a pod gets its sidecar, or is
refused with a sentence, or is left alone with a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from hookline_operator.cluster.labels import ANNOTATION_CA, LABEL_ASKS, SIDECAR_LABEL
from hookline_operator.webhooks.annotations import (
    ANNOTATIONS,
    HEALTH_PORT,
    HOOK_PORT,
    PREFIX,
    health_annotation,
    warn_of_little_memory,
    warn_of_no_image_volumes,
    wishes_of,
)
from hookline_operator.webhooks.container import CONTAINER, sidecar, with_socket, with_volumes
from hookline_operator.webhooks.pod_json import InjectionError, Json, Notes, mapping, objects, texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_operator.webhooks.annotations import InjectionSettings, Wishes

_MAX_CONTAINERS: Final = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Injected:
    """The answer about one pod."""

    pod: Json
    """As it should be; the very object that came in where nothing changes."""
    warnings: tuple[str, ...] = ()
    """For whoever made the pod, one sentence each; at most five."""


def inject(pod: Json, *, namespace: str, settings: InjectionSettings) -> Injected:
    """The pod with a sidecar; ``pod`` itself is not changed.

    ``namespace`` is the request's, since a pod that is being created may not know its own. Injecting twice is
    injecting once. Raises InjectionError where the pod cannot have a sidecar as it is, MalformedPodError where it is
    not a pod at all.
    """
    metadata, spec = mapping(pod, "metadata"), mapping(pod, "spec")
    labels, annotations = texts(metadata, "labels"), texts(metadata, "annotations")
    containers, init = objects(spec, "containers"), objects(spec, "initContainers")
    notes = Notes(_subject(namespace, metadata))

    if labels.get(LABEL_ASKS) == "false":
        return Injected(pod=pod)
    if (reason := _not_for_us(spec, annotations)) is not None:
        notes.warn(f"no sidecar was injected: {reason}")
        return Injected(pod=pod, warnings=tuple(notes.warnings))
    if any(container.get("name") == CONTAINER for container in (*containers, *init)):
        _check_by_hand(labels, init, notes)
        return Injected(pod=pod, warnings=tuple(notes.warnings))

    try:
        if len(containers) + len(init) > _MAX_CONTAINERS:
            raise InjectionError(f"it has more than {_MAX_CONTAINERS} containers")  # noqa: TRY301 - one place for all
        _check_labels(labels, annotations, notes)
        wishes = wishes_of(annotations, settings)
        _check_network(spec, annotations, (*containers, *init), wishes, settings, notes)
        warn_of_little_memory(wishes, notes)
        warn_of_no_image_volumes(wishes, settings, notes)
        changed = {
            **spec,
            "volumes": with_volumes(objects(spec, "volumes"), wishes, settings),
            "initContainers": [sidecar(wishes, settings), *(with_socket(each, notes) for each in init)],
            "containers": [with_socket(each, notes) for each in containers],
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


def _check_by_hand(labels: Mapping[str, str], init: list[Json], notes: Notes) -> None:
    """A pod that has the container keeps it as it is: injected before, or written by hand."""
    ours = next((each for each in init if each.get("name") == CONTAINER), None)
    if ours is not None and ours.get("restartPolicy") != "Always":
        notes.warn(f"the init container {CONTAINER} lacks restartPolicy: Always, so the pod waits for its end forever")
    if labels.get(SIDECAR_LABEL) != "true":
        notes.warn(f'it has a container {CONTAINER} and lacks the label {SIDECAR_LABEL}: "true": no plugin reaches it')


def _check_labels(labels: Mapping[str, str], annotations: Mapping[str, str], notes: Notes) -> None:
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
        elif name.startswith(PREFIX) and name not in ANNOTATIONS and name != ANNOTATION_CA:
            notes.warn(f"Hookline knows no annotation {name:.100}")


def _check_network(
    spec: Json,
    annotations: Mapping[str, str],
    others: tuple[Json, ...],
    wishes: Wishes,
    settings: InjectionSettings,
    notes: Notes,
) -> None:
    on_the_node = spec.get("hostNetwork") is True
    health_name = health_annotation(annotations)
    if on_the_node and not {HOOK_PORT, health_name} <= annotations.keys():
        raise InjectionError(
            f"it uses its node's network, so the sidecar's ports would be the node's: say which, with the annotations "
            f'{HOOK_PORT} (or "off") and {HEALTH_PORT}, or do without a sidecar, with the label {LABEL_ASKS}: "false"'
        )
    wanted = {wishes.health_port: health_name}
    if wishes.hook_port is not None:
        wanted[wishes.hook_port] = HOOK_PORT
    for container in others:
        for port in objects(container, "ports"):
            number = port.get("containerPort")
            # A tuple: the value may be of a type that cannot be hashed.
            if port.get("protocol") in (None, "TCP") and isinstance(number, int) and number in wanted:
                raise InjectionError(
                    f"the container {container.get('name')!r:.70} has the port {number}, which the sidecar takes: "
                    f"give the sidecar another one with the annotation {wanted[number]}"
                )
    policy = spec.get("dnsPolicy") or "ClusterFirst"
    if policy in ("None", "Default") or (on_the_node and policy == "ClusterFirst"):
        host = urlsplit(settings.operator).hostname
        notes.warn(f"with its dnsPolicy, the sidecar may not find the operator, {host}")
