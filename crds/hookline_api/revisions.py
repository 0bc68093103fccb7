"""``WasmPluginRevision``: what the operator keeps of a plugin that was good, so that a new replica asks no registry.

A resource of the operator's own, which nobody else needs to write: a right to Kubernetes' ``ControllerRevision``
would be one to those of every StatefulSet and DaemonSet. What is kept is one text. The API server neither parses nor
rewrites a text, so that it compares exactly in the rule that forbids to change it (of objects with free fields, CEL
compares values and not names), what is sealed is byte for byte what is read, and whatever stands in it costs a watch
its bytes and nothing more.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from hookline_api.base import API_VERSION, Name, ObjectMeta, Resource

REVISION_KIND: Final = "WasmPluginRevision"
REVISION_PLURAL: Final = "wasmpluginrevisions"

MAX_REVISION_DATA: Final = 1_400_000
"""Characters of ``data``. etcd takes an object of 1.5 MiB; a plugin that is stored as one can be kept as one."""
MAX_REVISION: Final = 2**53
"""The greatest number of a revision: every JSON parser reads it exactly."""


def _unchanging(what: str) -> dict[str, Any]:
    """For a field's schema: no update may change it, whoever asks."""
    message = f"{what} of a revision never changes: the operator makes a new one"
    return {"x-kubernetes-validations": [{"rule": "self == oldSelf", "message": message}]}


class WasmPluginRevision(Resource):
    """The last good state of a WasmPlugin, for the operator alone to write. No value of a Secret is in it."""

    api_version: Literal["hookline.dev/v1alpha1"] = API_VERSION
    kind: Literal["WasmPluginRevision"] = REVISION_KIND
    metadata: ObjectMeta
    plugin: Annotated[Name, Field(json_schema_extra=_unchanging("the plugin"))]
    """The WasmPlugin, by name."""
    revision: Annotated[int, Field(ge=1, le=MAX_REVISION, json_schema_extra={"format": "int64"})]
    """The highest number is what runs."""
    digest: Annotated[str, Field(max_length=256, json_schema_extra=_unchanging("the digest"))]
    """The artifact that it resolved to, for ``kubectl get``."""
    data: Annotated[str, Field(max_length=MAX_REVISION_DATA, json_schema_extra=_unchanging("what is kept"))]
    """JSON: the spec, what it resolved to, and the version of each Secret and ConfigMap that it refers to."""
    seal: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """By which a replica knows that the operator wrote it: HMAC-SHA256 over all of the above, the namespace and the
    plugin's uid."""
