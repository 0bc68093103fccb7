"""What is kept of a plugin that was good, as an object of the API, and why a replica believes such an object.

Whoever could write one unseen would decide what pods run. So the kept text is sealed with the operator's own key, for
this namespace, this plugin and this number, and a replica hands out nothing without a valid seal. Where the seal cannot
be valid (the key has changed, or the object is older than seals), the plugin's status vouches for it: only the operator
writes that, and it names the revision by a digest of its text, and the module's sha256.

An older operator kept the same in Kubernetes' own ``ControllerRevision``, which other controllers write, too.
``Revision.of_old`` reads those, and the leader copies what a status vouches for.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
from pydantic import Field

from hookline_api.base import API_VERSION, KIND, Name, Resource
from hookline_api.bundle import BundleArtifact
from hookline_api.hooks import Hook
from hookline_api.revisions import MAX_REVISION, REVISION_KIND
from hookline_api.status import SignatureStatus
from hookline_artifacts.errors import FetchError
from hookline_artifacts.trust.evidence import MAX_EVIDENCE
from hookline_operator.cluster.kube import MANAGER

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_operator.cluster.kube import Object

PLUGIN_LABEL: Final = "hookline.dev/plugin-uid"
"""Marks the revisions of a plugin."""
OLD_API: Final = ("apps/v1", "controllerrevisions")
"""Where an older version kept them: read, and never written."""
MAX_DEPTH: Final = 100
"""Levels of a spec. Each parser and serializer on the way to a guest's settings ends at 200 or more."""

_CAME_LATER: Final = ("keys", "evidence", "signatures", "met", "audits")
"""Fields of ``Template`` that an older operator does not know."""
_OF_ARTIFACT: Final = ("version", "asks", "cases", "evidence", "isComponent")
"""The same of its artifact."""
_PURPOSE: Final = "hookline.dev/revision/1"
"""What a seal is for: so that nothing else that the same key signs is one."""
_MAX_DIGEST: Final = 256
"""Characters of the digest that ``kubectl get`` shows, as the definition has it."""


class Template(Resource):
    """What a revision holds: a spec that was resolved, and the result. It holds no value of a Secret."""

    plugin: Name
    spec: dict[str, Any]
    artifact: BundleArtifact
    hooks: list[Hook]
    """Those that are called where the spec names none."""
    imports: list[str]
    inputs: dict[str, str | None]
    """``resourceVersion`` of each object that settings come from, by ``Kind/name``."""
    proven: dict[str, str | None] = {}
    """The same of the pull secrets with which the registry let us have it."""
    contents: dict[str, str] = {}
    """Digests, by the operator's key, of the contents of both kinds of objects (``objects.digest``)."""
    notes: list[str] = []
    """What is legal, and may not be what was meant."""
    keys: list[str] = []
    """Of the ``inputs`` those that hold nothing but keys that signatures are verified with."""
    evidence: Annotated[str, Field(max_length=MAX_EVIDENCE)] = ""
    """The file of ``artifact.evidence``."""
    signatures: list[SignatureStatus] = []
    """What was verified."""
    met: list[str] = []
    """``Requirement.fingerprint`` of everything that it was verified by."""
    audits: dict[str, str] = {}
    """By fingerprint, why it does not meet what a policy in Audit asks for."""

    def text(self) -> str:
        """The text that is kept: JSON with its names in order.

        Fields that came later stand in it only where they say something: a revision's name is made of its text.
        """
        data = self.model_dump(mode="json", by_alias=True)
        for name in _CAME_LATER:
            if not data[name]:
                del data[name]
        for name in _OF_ARTIFACT:
            if data["artifact"][name] is None:
                del data["artifact"][name]
        return orjson.dumps(data, option=orjson.OPT_SORT_KEYS).decode()


class Seal:
    """Signs and verifies with the operator's key.

    ``key`` is called each time, since keys change. It gives None while the key is unknown: then no seal is valid, and
    nothing can be sealed. Without ``key`` nothing is sealed, and every revision is believed, as its writers are.
    """

    def __init__(self, key: Callable[[], bytes | None] | None = None) -> None:
        self._key = key

    def sign(self, *parts: str | int) -> str | None:
        """HMAC-SHA256 over these parts and their borders, 64 hex digits; None without ``key``. Raises FetchError."""
        if self._key is None:
            return None
        made = self._made(parts)
        if made is None:
            raise FetchError("the operator's own key cannot be read yet, so nothing can be kept")
        return made

    def verify(self, seal: object, *parts: str | int) -> bool:
        """Whether that is the seal of these parts; without ``key``, everything is."""
        if self._key is None:
            return True
        made = self._made(parts)
        return made is not None and isinstance(seal, str) and hmac.compare_digest(made.encode(), seal.encode())

    def _made(self, parts: tuple[str | int, ...]) -> str | None:
        key = self._key() if self._key is not None else None
        message = orjson.dumps([_PURPOSE, *parts])
        return hmac.new(key, message, hashlib.sha256).hexdigest() if key else None


@dataclass(frozen=True, slots=True)
class Revision:
    """The last good state of a plugin's resource, as an object of the API holds it."""

    name: str
    namespace: str
    plugin_uid: str
    number: int
    inputs: tuple[tuple[str, str | None], ...]
    """As in the template."""
    contents: tuple[tuple[str, str], ...]
    """As in the template; an older version of the operator wrote none."""
    template: bytes = field(repr=False)
    """JSON of a ``Template``."""
    sealed: bool = False
    """Whether its seal holds."""
    old: bool = False
    """Whether it is a ``ControllerRevision``."""
    written: str = ""
    """When it was last written, by the API server's clock: RFC 3339 in UTC, so that texts sort as times do."""
    files: tuple[tuple[str, int], ...] = ()
    """The sha256 and the bytes of the module, and of the evidence about it: what is handed out of it."""
    claim: tuple[str, str] | None = None
    """Its ``short`` and its module's sha256, if ``short`` is of this text: what a status can vouch for."""
    keys: frozenset[str] = frozenset()
    """As in the template."""
    digest: str = field(default="", repr=False)
    seal: str | None = field(default=None, repr=False)
    """Both as the object has them."""

    @classmethod
    def of(cls, found: Object, seal: Seal) -> Revision | None:
        """From the API's ``WasmPluginRevision``; None for what cannot be one."""
        number, text, digest = found.get("revision"), found.get("data"), found.get("digest")
        metadata = found["metadata"]
        uid = (metadata.get("labels") or {}).get(PLUGIN_LABEL)
        if not uid or not isinstance(number, int) or not isinstance(text, str) or not isinstance(digest, str):
            return None
        try:
            made = _revision(found, uid, number, orjson.loads(text), text.encode(), old=False)
            return replace(made, digest=digest, seal=found.get("seal")).verified(seal) if made is not None else None
        except (ValueError, TypeError):  # no JSON, or what orjson has no word for: one object ends no watch
            return None

    @classmethod
    def of_old(cls, found: Object) -> Revision | None:
        """From a ``ControllerRevision``; None for somebody else's, whatever its label says."""
        uid, data = (found["metadata"].get("labels") or {}).get(PLUGIN_LABEL), found.get("data")
        if not uid or not isinstance(data, dict) or is_deeper(data, MAX_DEPTH + 1):
            return None
        try:
            text = orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
            return _revision(found, uid, found.get("revision", 0), data, kept(text), old=True)
        except (ValueError, TypeError):  # as above
            return None

    def verified(self, seal: Seal) -> Revision:
        """The same, believed or not by the key that is known now."""
        if self.old:
            return self
        parts = (self.namespace, self.plugin_uid, self.number, self.digest, self.template.decode())
        return replace(self, sealed=seal.verify(self.seal, *parts))

    @property
    def short(self) -> str:
        """What people see of it."""
        return self.name.rpartition("-")[2]

    def parsed(self) -> Template:
        """The template. Raises ``pydantic.ValidationError``."""
        return Template.model_validate_json(self.template)


def body_of(
    *, namespace: str, plugin: str, uid: str, number: int, template: bytes, seal: Seal, name: str = ""
) -> Object:
    """The object that keeps a template; ``name`` only where it has one already. Raises ValueError and FetchError."""
    text, data = template.decode(), orjson.loads(template)
    digest = str(data["artifact"]["digest"])[:_MAX_DIGEST]
    number = min(number, MAX_REVISION)
    return {
        "apiVersion": API_VERSION,
        "kind": REVISION_KIND,
        "metadata": {
            "name": name or f"{plugin[:200].rstrip('-.')}-{_short(uid, data)}",
            "namespace": namespace,
            "labels": {PLUGIN_LABEL: uid, "app.kubernetes.io/managed-by": MANAGER},
            # The API server deletes it with the plugin: no finalizer, nothing of ours has to run for that.
            "ownerReferences": [
                {"apiVersion": API_VERSION, "kind": KIND, "name": plugin, "uid": uid, "controller": True}
            ],
        },
        "plugin": plugin,
        "revision": number,
        "digest": digest,
        "data": text,
        **({"seal": made} if (made := seal.sign(namespace, uid, number, digest, text)) else {}),
    }


def kept(text: bytes) -> bytes:
    """JSON that is kept: a copy, since what orjson writes into stays with its result, 4 KiB for a few hundred bytes."""
    return bytes(memoryview(text))


def is_deeper(value: Any, levels: int) -> bool:
    """Whether anything in it is more than so many levels down. Without recursion: it may be thousands."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            child
            for each in layer
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
        if not layer:
            return False
    return True


def _revision(found: Object, uid: str, number: Any, data: Any, text: bytes, *, old: bool) -> Revision | None:
    inputs = data.get("inputs") if isinstance(data, dict) else None
    if not isinstance(number, int) or not isinstance(inputs, dict) or is_deeper(data, MAX_DEPTH + 1):
        return None
    if not all(each is None or isinstance(each, str) for each in inputs.values()):
        return None
    contents = data.get("contents") or {}
    if not isinstance(contents, dict) or not all(isinstance(each, str) for each in contents.values()):
        return None
    keys = data.get("keys") or []
    if not isinstance(keys, list) or not all(isinstance(each, str) for each in keys):
        return None
    metadata = found["metadata"]
    times = [metadata.get("creationTimestamp"), *(each.get("time") for each in metadata.get("managedFields") or ())]
    return Revision(
        name=metadata["name"],
        namespace=metadata["namespace"],
        plugin_uid=uid,
        number=number,
        inputs=tuple(sorted(inputs.items())),
        contents=tuple(sorted(contents.items())),
        template=text,
        old=old,
        written=max((each for each in times if each), default=""),
        files=_files(data),
        claim=_claim(metadata["name"], uid, data),
        keys=frozenset(keys),
    )


def _files(data: Any) -> tuple[tuple[str, int], ...]:
    artifact = data.get("artifact")
    found = [artifact, artifact.get("evidence")] if isinstance(artifact, dict) else []
    named = [(each.get("sha256"), each.get("size")) for each in found if isinstance(each, dict)]
    return tuple((sha256, size) for sha256, size in named if isinstance(sha256, str) and isinstance(size, int))


def _claim(name: str, uid: str, data: Any) -> tuple[str, str] | None:
    module, short = data.get("artifact"), name.rpartition("-")[2]
    sha256 = module.get("sha256") if isinstance(module, dict) else None
    return (short, sha256) if isinstance(sha256, str) and short == _short(uid, data) else None


def _short(uid: str, data: Any) -> str:
    """Ten hex digits of a digest over a plugin's uid and what is kept of it."""
    canonical = orjson.dumps([uid, data], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).hexdigest()[:10]
