"""A pod as JSON: its parts with the types that an API server gives them, and what its author is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]

_MAX_WARNINGS: Final = 5


class InjectionError(ValueError):
    """A pod that asks for a sidecar cannot have one as it is; the message is one sentence for its author."""


class MalformedPodError(ValueError):
    """An object that an API server would not have sent as a pod. The message is one sentence."""


@dataclass(slots=True)
class Notes:
    """Warnings about one pod, at most five."""

    subject: str
    warnings: list[str] = field(default_factory=list)

    def warn(self, sentence: str) -> None:
        """Note a sentence, unless there are enough."""
        if len(self.warnings) < _MAX_WARNINGS:
            self.warnings.append(f"{self.subject}: {sentence}")


def mapping(parent: Json, name: str) -> Json:
    """An object in another, empty where it is missing. Raises MalformedPodError, as the two below."""
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedPodError(f"the pod's {name} must be an object")
    return value


def texts(parent: Json, name: str) -> dict[str, str]:
    """An object whose values are strings."""
    value = mapping(parent, name)
    if not all(isinstance(text, str) for text in value.values()):
        raise MalformedPodError(f"the pod's {name} must all be strings")
    return value


def objects(parent: Json, name: str) -> list[Json]:
    """A list of objects."""
    value = parent.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise MalformedPodError(f"the pod's {name} must be a list of objects")
    return value
