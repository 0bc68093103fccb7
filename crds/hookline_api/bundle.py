"""``Bundle``: everything one pod must run; resolved, pinned by digest, in order, versioned by its content.

A bundle is made by the operator or from a manifest folder; a sidecar treats both the same. It holds the
values of Secrets, because a sidecar has to start with everything else gone: whoever stores one keeps it
mode 0600, whoever shows one calls ``redacted``.

Revisions and versions are shown to many. Where a plugin has values of Secrets, whoever makes the bundle *seals* it with
a key that it tells nobody: then they stand in the revision as an HMAC, and nobody can try values until one fits.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field
from pydantic.alias_generators import to_camel

from hookline_api.base import Name, Resource, Sha256
from hookline_api.config import Config
from hookline_api.hooks import Hook
from hookline_api.outbound import MAX_EGRESS, EgressRule, Outbound
from hookline_api.resources import (
    Auth,
    FailurePolicy,
    Isolation,
    KvSettings,
    Limits,
    Match,
    Observers,
    PermissionName,
    Probation,
    SelfTest,
)

if TYPE_CHECKING:
    from collections.abc import Callable

REDACTED: Final = "<redacted>"

_REVISION: Final = 12
_SHORTEST_SECRET: Final = 4
"""Characters. To take out a shorter one would spoil every text, and show by what is missing what it is."""

_CAME_LATER: Final[dict[str, Any]] = {
    "observers": Observers(), "auth": Auth(), "kv": KvSettings(), "seal": None, "data_sources": [], "caches": [],
    "credentials": {}, "self_test": "IfPresent",
}  # fmt: skip
"""Fields of ``BundlePlugin`` that an older operator or sidecar does not know, and what they say by default."""
_CAME_LATER_WITHIN: Final[tuple[tuple[str, str, Any], ...]] = (
    ("limits", "wait", Limits().wait),
    ("kv", "scope", "Pod"),
    ("kv", "valkey", None),
    ("failure_policy", "store", None),
)
"""The same of fields within them."""
_OF_ARTIFACT: Final = frozenset({"version", "asks", "cases", "evidence", "is_component", "isComponent"})
"""What follows from an artifact's digest, or proves something of it. It is in no revision: an older sidecar would give
each plugin another one."""

LoadCause = Literal["fetch", "verify", "config"]
CallCause = Literal["trap", "timeout", "result", "overload", "store"]
Stage = Literal["fetching", "compiling"]
"""What is done with a module before anybody can call it. fetching: until it is here, checked and admitted."""


MAX_ASKS: Final = 64


class EvidenceFile(Resource):
    """A file with the signatures of an artifact, which whoever runs it can verify again."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    """In bytes."""


class BundleArtifact(Resource):
    """The one module that a bundle's plugin runs."""

    digest: str
    """What was resolved: of the manifest in a registry, or of the file."""
    sha256: Sha256
    """Of the module's own bytes: its name in every cache."""
    size: Annotated[int, Field(ge=0)]
    """Bytes of the module."""
    layout: str
    reference: str
    """What the user wrote, for people to read."""
    version: Annotated[str, Field(max_length=64)] | None = None
    """As the artifact tells it."""
    asks: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=MAX_ASKS)] | None = None
    """The permissions that it asks for, granted or not; None where an older version did not look."""
    cases: Annotated[int, Field(ge=0)] | None = None
    """How many cases its module carries, where they can be read."""
    evidence: EvidenceFile | None = None
    """By what it was verified, where signatures were asked for."""
    is_component: bool | None = None
    """True where it is a component of the world hookline:plugin, and not a core module."""


class LoadFailure(Resource):
    """Why a plugin is not what its resource asks for."""

    cause: LoadCause
    message: str
    """One sentence: what happened, why, and what to do."""
    stage: Stage | None = None
    """Set where nothing has failed: it is loaded for the first time, and this is as far as it is."""
    digest: str | None = None
    """Of the artifact that failed, where that was known."""


class BundlePlugin(Outbound):
    """One plugin as a pod runs it. Without an artifact it is a placeholder that fails closed."""

    name: Name
    namespace: str | None = None
    generation: int | None = None
    origin: str | None = None
    """Where the settings came from: a manifest's file, or the resource's uid."""
    artifact: BundleArtifact | None = None
    failure: LoadFailure | None = None
    """Why this is not what the resource asks for; the plugin runs as it last did, or fails closed."""
    hooks: list[Hook] = []
    """Which hooks are called; for a placeholder, which are answered closed."""
    priority: int = 0
    match: Match = Match()
    config: Config = Config()
    secret_paths: list[str] = []
    """Paths into ``config`` (with dots) whose values come from Secrets."""
    seal: Annotated[str, Field(max_length=64)] | None = None
    """Stands for those values in the revision: see ``sealed``."""
    credentials: dict[str, str] = Field(default={}, repr=False)
    """The values of Secrets that ``data_sources``, ``caches``, ``egress`` and ``kv`` name, by ``SecretKeyRef.id``."""
    permissions: list[PermissionName] = []
    egress: Annotated[list[EgressRule], Field(max_length=MAX_EGRESS, alias="egressRules")] = []
    """DANGER: not under ``egress``. There a sidecar of the version before reads texts, and where it finds anything else
    it ignores the whole bundle."""
    kv: KvSettings = KvSettings()
    limits: Limits = Limits()
    isolation: Isolation = Isolation()
    observers: Observers = Observers()
    auth: Auth = Auth()
    failure_policy: FailurePolicy = FailurePolicy()
    mode: Literal["Enforce", "Shadow"] = "Enforce"
    self_test: SelfTest = "IfPresent"
    probation: Probation = Probation()

    @property
    def revision(self) -> str:
        """Twelve hex digits that change with the artifact and with every setting, and with nothing else.

        DANGER: a name for people and reports. Who chooses the settings finds two that have the same in minutes, so
        nothing may be believed of one because it was proven of the other: that is ``full_revision``.
        """
        return revision_of(self.full_revision)

    @property
    def full_revision(self) -> str:
        """The SHA-256, in hexadecimal, that ``revision`` is the beginning of."""
        shown = self if self.seal is None else self.redacted()
        settings = shown.model_dump(
            mode="json", by_alias=True, exclude={"failure", "generation", "origin", "probation"}
        )
        # Operator and sidecar compare revisions, and may be of two versions: a field that came later counts only where
        # it says something.
        del settings["egressRules"]
        settings["egress"] = [
            each.old_form or each.model_dump(mode="json", by_alias=True, exclude_defaults=True) for each in shown.egress
        ]
        for name, default in _CAME_LATER.items():
            if getattr(shown, name) == default:
                del settings[to_camel(name)]
        for name, within, default in _CAME_LATER_WITHIN:
            if getattr(getattr(shown, name), within) == default and to_camel(name) in settings:
                del settings[to_camel(name)][to_camel(within)]
        for name in _OF_ARTIFACT if settings["artifact"] is not None else ():
            settings["artifact"].pop(name, None)
        if self.seal is not None:
            settings["seal"] = self.seal
        return _digest(settings)

    @property
    def has_secrets(self) -> bool:
        """Whether it holds values of Secrets."""
        return bool(self.secret_paths or self.credentials)

    def sealed(self, key: bytes) -> BundlePlugin:
        """The same with a seal, if it has values of Secrets: the same for the same values, plugin and key alone."""
        if not self.has_secrets:
            return self if self.seal is None else self.model_copy(update={"seal": None})
        # All of the settings, and not the values alone: whatever ``redacted`` takes out is in it for certain.
        told = _canonical(
            [self.namespace, self.name, self.config.parsed(), self.secret_paths]
            + ([self.credentials] if self.credentials else [])
        )
        return self.model_copy(update={"seal": hmac.digest(key, told, "sha256").hex()})

    def secrets(self) -> list[str]:
        """The values of Secrets, and their lines where they have several, for whoever looks for them; longest first.

        Not what is so short that it stands in any text.
        """
        found: set[str] = set()
        config = self.config.parsed() if self.secret_paths else {}
        for path in self.secret_paths:
            value: Any = config
            for part in path.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if isinstance(value, str):
                found |= {value, *value.splitlines()}
        for value in self.credentials.values():
            found |= {value, *value.splitlines()}
        return sorted((each for each in found if len(each) >= _SHORTEST_SECRET), key=len, reverse=True)

    def redacted(self) -> BundlePlugin:
        """The same with every value that came from a Secret replaced, and without what stands for them."""
        if not self.has_secrets:
            return self if self.seal is None else self.model_copy(update={"seal": None})
        config = self.config.parsed()
        for path in self.secret_paths:
            *parents, last = path.split(".")
            target: Any = config
            for part in parents:
                target = target.get(part) if isinstance(target, dict) else None
            if isinstance(target, dict) and last in target:
                target[last] = REDACTED
        credentials = dict.fromkeys(self.credentials, REDACTED)
        return self.model_copy(update={"config": Config(config), "credentials": credentials, "seal": None})


def revision_of(full_revision: str) -> str:
    """The name of a ``full_revision``, as it is shown and compared."""
    return full_revision[:_REVISION]


class Bundle(Resource):
    """The plugins of one pod, in the order of the chain: priority descending, then name."""

    plugins: list[BundlePlugin] = []

    @classmethod
    def of(cls, plugins: list[BundlePlugin]) -> Bundle:
        """A bundle of these plugins, put in order."""
        return cls(plugins=sorted(plugins, key=lambda plugin: (-plugin.priority, plugin.name)))

    @property
    def version(self) -> str:
        """The bundle's own content hash, twelve hex digits. Failures do not count: they change nothing.

        A name, as ``BundlePlugin.revision`` is: whether two bundles are the same is told by ``full_version``.
        """
        return _digest([[p.name, p.namespace, p.revision, *_proof(p)] for p in self.plugins])[:12]

    @property
    def full_version(self) -> str:
        """The SHA-256, in hexadecimal, of all that counts in ``version``."""
        return _digest([[p.name, p.namespace, p.full_revision, *_proof(p)] for p in self.plugins])

    def redacted(self) -> Bundle:
        """The same with every value that came from a Secret replaced."""
        return Bundle(plugins=[plugin.redacted() for plugin in self.plugins])


def _proof(plugin: BundlePlugin) -> list[str]:
    """What else of a plugin makes another bundle, although it runs the same."""
    evidence = plugin.artifact.evidence if plugin.artifact is not None else None
    return [evidence.sha256] if evidence is not None else []


_FIRST: Final = '"plugins":[\n'
_NEXT: Final = ",\n"
_LAST: Final = "\n]"


def write(bundle: Bundle) -> str:
    """A bundle as JSON, each plugin on a line of its own: so ``read`` need not parse all of their settings at once."""
    if not bundle.plugins:
        return '{"plugins":[]}'
    return f"{{{_FIRST}{_NEXT.join(plugin.model_dump_json(by_alias=True) for plugin in bundle.plugins)}{_LAST}}}"


def read(text: str, parse: Callable[[str], Any]) -> Any:
    """What ``parse`` makes of JSON that is a bundle, or has one as ``bundle``; its plugins perhaps as ``BundlePlugin``.

    Where each plugin stands on a line of its own, they are read one after the other, and so the settings of one of them
    are parsed at a time. No string of JSON holds the end of a line. Anything else is left to ``parse``, which raises
    what it raises.
    """
    head, found, rest = text.partition(_FIRST)
    lines, ended, tail = rest.rpartition(_LAST)
    if found and ended:
        try:
            data = parse(f'{head}"plugins":[]{tail}')
            around = data.get("bundle", data)
            if around["plugins"] == []:
                around["plugins"] = [BundlePlugin.model_validate(parse(line)) for line in lines.split(_NEXT)]
                return data
        except (ValueError, TypeError, KeyError, AttributeError):
            pass  # of the whole it can be said where it is wrong
    return parse(text)


def _digest(value: object) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
