"""Who must have signed a plugin: the part of ``spec.verify`` and of ``PluginTrustPolicy`` that they share.

A *signer* is one key or identity whose signature counts. Signers are combined by ``anyOf`` with a ``minimum`` and by
``allOf``; *attestations* are further statements that a signer must have made. Whatever asks for a signature never runs
without one.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from hookline_api.base import Name, Resource

MAX_SIGNERS: Final = 16
MAX_ATTESTATIONS: Final = 8
MAX_KEY: Final = 4096
"""Characters of a public key in PEM. RSA with 8192 bits has 1,500."""
MAX_PATTERNS: Final = 32
_VERSION: Final = r"^v?[0-9]{1,9}(\.[0-9]{1,9}){0,3}(-[0-9A-Za-z.-]{1,64})?(\+[0-9A-Za-z.-]{1,64})?$"

PublicKey = Annotated[str, Field(min_length=1, max_length=MAX_KEY)]
"""A public key in PEM."""
RawKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$", max_length=44)]
"""An Ed25519 public key: 32 bytes in base64."""
Version = Annotated[str, Field(pattern=_VERSION, max_length=128)]
"""As semver.org has it; ``v1`` and ``1.2`` are read as 1.0.0 and 1.2.0."""
RepositoryPattern = Annotated[str, Field(pattern=r"^[^\s@]+$", max_length=512)]
"""``registry/repository``, with ``*`` for any characters but a slash, and ``**`` as a part of its own for any parts."""
NamePattern = Annotated[str, Field(pattern=r"^[-a-z0-9.*]+$", max_length=253)]
"""A plugin's name, with ``*`` for any characters."""


def _one_of(*names: str) -> ConfigDict:
    """For a model of whose fields exactly one is given."""
    given = " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in names)
    rule: JsonValue = {"rule": f"{given} == 1", "message": f"give exactly one of {', '.join(names)}"}
    return ConfigDict(json_schema_extra={"x-kubernetes-validations": [rule]})


def _check_one(model: BaseModel, *names: str) -> None:
    fields = {(field.alias or name): name for name, field in type(model).model_fields.items()}
    if sum(getattr(model, fields[name]) is not None for name in names) != 1:
        raise ValueError(f"give exactly one of {', '.join(names)}")


class ObjectKey(Resource):
    """One key of a Secret or a ConfigMap."""

    name: Name
    key: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """Default: every key whose name ends in ``.pub``, or ``trusted_root.json`` for a trust root."""


class Document(Resource):
    """Where keys or a trust root are kept: exactly one of the fields.

    In a ``WasmPlugin`` objects are those of its namespace, in a ``PluginTrustPolicy`` those of the operator's.
    """

    model_config = _one_of("secret", "configMap", "file")

    secret: ObjectKey | None = None
    config_map: ObjectKey | None = None
    file: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A file, or a folder of ``*.pub``, beside the document. Only in manifest folders, and in policies that are
    files."""

    @model_validator(mode="after")
    def _one(self) -> Document:
        _check_one(self, "secret", "configMap", "file")
        return self


class CosignKey(Resource):
    """A public key with which cosign's signatures are verified: ECDSA on P-256, P-384 or P-521, RSA, or Ed25519."""

    model_config = _one_of("pem", "from")

    pem: PublicKey | None = None
    from_: Annotated[Document | None, Field(alias="from")] = None
    """Where there are several keys, a signature by any of them counts."""

    @model_validator(mode="after")
    def _one(self) -> CosignKey:
        _check_one(self, "pem", "from")
        return self


class Ed25519Key(Resource):
    """A public key with which a detached Ed25519 signature is verified, as HeliosDB makes them."""

    model_config = _one_of("key", "from")

    key: RawKey | None = None
    """32 bytes in base64."""
    from_: Annotated[Document | None, Field(alias="from")] = None
    """Where there are several keys, a signature by any of them counts."""
    legacy: bool = False
    """Whether a signature over the module's bytes alone counts, as HeliosDB's tool makes it. Such a one says nothing of
    the manifest beside the module. Default false."""

    @model_validator(mode="after")
    def _one(self) -> Ed25519Key:
        _check_one(self, "key", "from")
        return self


class KeylessIdentity(Resource):
    """An identity that a Sigstore authority has certified (Fulcio), whose signatures are in its log (Rekor)."""

    model_config = _one_of("subject", "subjectPrefix", "repository")

    issuer: Annotated[str, Field(min_length=1, max_length=2048)]
    """Who vouches for the identity, such as ``https://token.actions.githubusercontent.com``."""
    subject: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    """The identity, exactly: an address, or the URL of a workflow."""
    subject_prefix: Annotated[str, Field(min_length=8, max_length=2048)] | None = None
    """What the identity begins with. It should end in a slash or an ``@``."""
    repository: Annotated[str, Field(min_length=8, max_length=512)] | None = None
    """Any workflow of these source repositories: ``https://github.com/acme/*``. A ``*`` stands for any characters but a
    slash. Compared with the certificate's source repository."""

    @model_validator(mode="after")
    def _one(self) -> KeylessIdentity:
        _check_one(self, "subject", "subjectPrefix", "repository")
        return self


class Signer(Resource):
    """A key or an identity whose signature counts: exactly one of ``key``, ``keyless`` and ``ed25519``."""

    model_config = _one_of("key", "keyless", "ed25519")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._ ]{0,61}[A-Za-z0-9])?$", max_length=63)] | None = (
        None
    )
    """What people call it, in statuses and Events."""
    key: CosignKey | None = None
    keyless: KeylessIdentity | None = None
    ed25519: Ed25519Key | None = None
    repositories: Annotated[list[RepositoryPattern], Field(max_length=MAX_PATTERNS)] = []
    """It counts for artifacts of these repositories only. Default: any."""
    plugins: Annotated[list[NamePattern], Field(max_length=MAX_PATTERNS)] = []
    """It counts for plugins of these names only. Default: any."""
    signed_as: Annotated[list[RepositoryPattern], Field(max_length=MAX_PATTERNS)] = []
    """Repositories that a signature may name instead of the plugin's own, where an artifact was copied from there with
    its signature."""

    @model_validator(mode="after")
    def _one(self) -> Signer:
        _check_one(self, "key", "keyless", "ed25519")
        return self


class Attestation(Resource):
    """A statement about the artifact that one of the signers must have made (in-toto)."""

    predicate_type: Annotated[str, Field(min_length=1, max_length=512)]
    """What is stated: ``https://slsa.dev/provenance/v1``, ``https://spdx.dev/Document``,
    ``https://cyclonedx.org/bom``."""
    signers: Annotated[list[Signer], Field(min_length=1, max_length=MAX_SIGNERS)]
    """One of them is enough."""
    builder: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """SLSA provenance: who built it, with ``*`` as in ``repositories``."""
    source_repository: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """SLSA provenance: from which repository, such as ``https://github.com/acme/*``."""


class Signatures(Resource):
    """Which signatures are needed: ``minimum`` of ``anyOf``, all of ``allOf``, and every attestation."""

    any_of: Annotated[list[Signer], Field(max_length=MAX_SIGNERS)] = []
    minimum: Annotated[int, Field(ge=1, le=MAX_SIGNERS)] = 1
    """How many different signers of ``anyOf`` it takes. Two that have signed with the same key count as one.
    Default 1."""
    all_of: Annotated[list[Signer], Field(max_length=MAX_SIGNERS)] = []
    attestations: Annotated[list[Attestation], Field(max_length=MAX_ATTESTATIONS)] = []
    trust_root: Document | None = None
    """Sigstore's ``trusted_root.json``, by which keyless signatures are verified without asking anybody. Default: that
    of Sigstore's public authority, as this version of Hookline has it."""

    @property
    def wanted(self) -> bool:
        """True where any signature is asked for."""
        return bool(self.any_of or self.all_of or self.attestations)

    @model_validator(mode="after")
    def _can_be_met(self) -> Signatures:
        there = len(self.any_of) + self._short_forms()
        if self.minimum > max(1, there):
            raise ValueError(f"minimum is {self.minimum}, and anyOf has only {there}")
        return self

    def _short_forms(self) -> int:
        return 0


class Verify(Signatures):
    """Signatures that the plugin needs. A resource that asks for a signature never runs without one.

    ``keys``, ``ed25519`` and ``keyless`` are short for entries of ``anyOf``.
    """

    keys: Annotated[list[PublicKey], Field(max_length=MAX_SIGNERS)] = []
    """Public keys in PEM, as cosign makes them."""
    ed25519: Annotated[list[RawKey], Field(max_length=MAX_SIGNERS)] = []
    """Public keys of 32 bytes in base64, as HeliosDB's ``plugin.sig`` uses them."""
    keyless: Annotated[list[KeylessIdentity], Field(max_length=MAX_SIGNERS)] = []
    minimum_version: Version | None = None
    """The lowest version that may run, as the artifact tells it. One that tells none is refused then."""
    allow_downgrade: bool = False
    """Whether a tag that moves to a lower version than the one that runs is followed. A resource that names another
    reference is always followed. Default false."""

    @property
    def wanted(self) -> bool:
        """True where any signature is asked for."""
        return bool(self.keys or self.ed25519 or self.keyless) or super().wanted

    @property
    def signatures(self) -> Signatures:
        """The same without short forms."""
        short = [Signer(key=CosignKey(pem=each)) for each in self.keys]
        short += [Signer(ed25519=Ed25519Key(key=each)) for each in self.ed25519]
        short += [Signer(keyless=each) for each in self.keyless]
        return Signatures(
            any_of=[*self.any_of, *short],
            minimum=self.minimum,
            all_of=self.all_of,
            attestations=self.attestations,
            trust_root=self.trust_root,
        )

    def _short_forms(self) -> int:
        return len(self.keys) + len(self.ed25519) + len(self.keyless)


def documents(signatures: Signatures) -> list[Document]:
    """Every document that keys or a trust root come from."""
    signers = [*signatures.any_of, *signatures.all_of, *(each for a in signatures.attestations for each in a.signers)]
    found = [each.key.from_ for each in signers if each.key is not None]
    found += [each.ed25519.from_ for each in signers if each.ed25519 is not None]
    return [each for each in [*found, signatures.trust_root] if each is not None]


PROVENANCE: Final = re.compile(r"https://slsa\.dev/provenance/v(0\.2|1(\.[0-9])?)")
"""The predicate types in which ``builder`` and ``sourceRepository`` are found; https://slsa.dev/spec/v1.0/provenance."""
