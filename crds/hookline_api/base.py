"""What all resources of ``hookline.dev/v1alpha1`` share: the group's names, the base model, names and metadata.

Python names are snake_case; JSON and YAML are camelCase. Reading is lenient: an unknown field is ignored, so that a
newer resource still loads. Writing is strict. Whoever takes manifests from a person passes ``extra="forbid"`` to
``model_validate``, and gets an error for each misspelt field.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP: Final = "hookline.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "hookline.dev/v1alpha1"
KIND: Final = "WasmPlugin"
POLICY_KIND: Final = "PluginTrustPolicy"
PLURAL: Final = "wasmplugins"


class Resource(BaseModel):
    """Base of everything that Kubernetes stores: camelCase in JSON, frozen, lenient to read."""

    # DANGER: an error that quotes what it was given tells the values of Secrets, wherever it is logged or shown.
    model_config = ConfigDict(
        hide_input_in_errors=True,
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        defer_build=True,  # most programs use few of the models, and each use has its parts built in
    )


SHA256_PATTERN: Final = "^[0-9a-f]{64}$"
NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"

Sha256 = Annotated[str, Field(pattern=SHA256_PATTERN)]
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=253)]


class ObjectMeta(Resource):
    """What Hookline reads of an object's metadata."""

    name: Name
    namespace: Name | None = None
    uid: str | None = None
    generation: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


def build_models() -> None:
    """Build all resources that are imported, which otherwise happens when each is used for the first time.

    A program that runs for long does so before it begins: a first use may be on an event loop, or after a fork.
    """
    waiting: list[type[Resource]] = [Resource]
    while waiting:
        found = waiting.pop()
        waiting += found.__subclasses__()
        found.model_rebuild()  # nothing, where it is complete
