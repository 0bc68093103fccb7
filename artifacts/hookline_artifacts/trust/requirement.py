"""Requirements: ``Signatures`` of a resource with their keys read, ready to be held against evidence."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from hookline_api.text import listed
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.threads import in_thread, open_at_once
from hookline_artifacts.trust import keyless
from hookline_artifacts.trust.keys import PublicKey, read_pem, read_raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_api.trust import Attestation, Document, KeylessIdentity, Signatures, Signer
    from hookline_artifacts.objects import Objects

MAX_KEYS: Final = 64
"""Public keys of one document."""
MAX_DOCUMENT: Final = 1 << 20
"""Bytes of one key, or of a trust root: Sigstore's own has 8 KiB."""
_ROOT: Final = "trusted_root.json"
_PUBLIC: Final = ".pub"


@dataclass(frozen=True, kw_only=True, slots=True)
class Authority:
    """A signer with its keys."""

    kind: Literal["key", "keyless", "ed25519"]
    label: str
    """For people."""
    keys: tuple[PublicKey, ...] = ()
    identity: KeylessIdentity | None = None
    legacy: bool = False
    repositories: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    signed_as: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """An attestation that is asked for, with its signers."""

    asked: Attestation
    signers: tuple[Authority, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Requirement:
    """Which signatures are needed."""

    any_of: tuple[Authority, ...] = ()
    minimum: int = 1
    all_of: tuple[Authority, ...] = ()
    statements: tuple[Statement, ...] = ()
    trust_root: bytes | None = field(default=None, repr=False)
    """``trusted_root.json``; None for that of Sigstore's public authority."""
    fingerprint: str = ""
    """Another for whatever asks for anything else: of the rules, and of the keys that they name."""

    @property
    def authorities(self) -> list[Authority]:
        """All signers that it names."""
        return [*self.any_of, *self.all_of, *(each for statement in self.statements for each in statement.signers)]


async def load(
    signatures: Signatures, *, objects: Objects, namespace: str | None, base: Path | None, where: str
) -> Requirement:
    """Read the keys that ``signatures`` names. Raises ConfigError, and FetchError where ``objects`` cannot be asked.

    ``namespace`` is that of its Secrets and ConfigMaps, ``base`` the folder of its files; without it there are none.
    ``where`` is where ``signatures`` stands, for sentences.
    """
    reader = _Reader(objects, namespace, base)
    any_of = [await reader.authority(each, f"{where}.anyOf[{i}]") for i, each in enumerate(signatures.any_of)]
    all_of = [await reader.authority(each, f"{where}.allOf[{i}]") for i, each in enumerate(signatures.all_of)]
    statements = []
    for i, attestation in enumerate(signatures.attestations):
        at = f"{where}.attestations[{i}].signers"
        signers = [await reader.authority(each, f"{at}[{j}]") for j, each in enumerate(attestation.signers)]
        statements.append(Statement(asked=attestation, signers=tuple(signers)))
    root = None
    if signatures.trust_root is not None:
        root = await reader.root(signatures.trust_root, f"{where}.trustRoot")
    made = Requirement(
        any_of=tuple(any_of),
        minimum=signatures.minimum,
        all_of=tuple(all_of),
        statements=tuple(statements),
        trust_root=root,
    )
    told = hashlib.sha256(signatures.model_dump_json(by_alias=True).encode())
    for authority in made.authorities:
        told.update("".join([authority.kind, *(each.id for each in authority.keys)]).encode())
    if any(each.kind == "keyless" for each in made.authorities):
        # A root by which nothing can be verified is a fault in the settings. That of Sigstore's public authority is
        # another one with another version of its package.
        where = where if root is None else f"{where}.trustRoot"
        told.update((await in_thread(keyless.check_root, root, where)).encode())
    return Requirement(
        any_of=made.any_of,
        minimum=made.minimum,
        all_of=made.all_of,
        statements=made.statements,
        trust_root=root,
        fingerprint=told.hexdigest()[:32],
    )


class _Reader:
    """Reads keys for the signers of one document."""

    def __init__(self, objects: Objects, namespace: str | None, base: Path | None) -> None:
        self._objects = objects
        self._namespace = namespace
        self._base = base

    async def authority(self, signer: Signer, where: str) -> Authority:
        keys: tuple[PublicKey, ...] = ()
        if signer.key is not None:
            kind: Literal["key", "keyless", "ed25519"] = "key"
            if signer.key.pem is not None:
                keys = await in_thread(_each, read_pem, {f"{where}.key.pem": signer.key.pem})
            elif signer.key.from_ is not None:
                keys = await in_thread(_each, read_pem, await self._keys(signer.key.from_, f"{where}.key.from"))
        elif signer.ed25519 is not None:
            kind = "ed25519"
            if signer.ed25519.key is not None:
                keys = await in_thread(_each, read_raw, {f"{where}.ed25519.key": signer.ed25519.key})
            elif signer.ed25519.from_ is not None:
                found = await self._keys(signer.ed25519.from_, f"{where}.ed25519.from")
                keys = await in_thread(_each, read_raw, found)
        else:
            kind = "keyless"
        return Authority(
            kind=kind,
            label=signer.name or _label(signer, keys),
            keys=keys,
            identity=signer.keyless,
            legacy=signer.ed25519 is not None and signer.ed25519.legacy,
            repositories=tuple(signer.repositories),
            plugins=tuple(signer.plugins),
            signed_as=tuple(signer.signed_as),
        )

    async def root(self, document: Document, where: str) -> bytes:
        (found,) = (await self._read(document, where, lambda name: name == _ROOT)).values()
        return found

    async def _keys(self, document: Document, where: str) -> dict[str, str]:
        """The texts of keys, each by where it stands."""
        found = await self._read(document, where, lambda name: name.endswith(_PUBLIC))
        if len(found) > MAX_KEYS:
            raise ConfigError(f"{where}: there are {len(found)} keys, and {MAX_KEYS} are allowed")
        try:
            return {f"{where}: {name}": data.decode() for name, data in sorted(found.items())}
        except UnicodeDecodeError:
            raise ConfigError(f"{where}: a public key is not text") from None

    async def _read(self, document: Document, where: str, meant: Callable[[str], bool]) -> dict[str, bytes]:
        """The parts of a document by name: the key that it names, or those that ``meant`` names."""
        if document.file is not None:
            if self._base is None:
                raise ConfigError(f"{where}.file: is for manifest folders and for policies that are files")
            path = self._base / document.file
            found = await in_thread(_files, path, meant)
            shown, key, data = f"the file {document.file}", None, None
        else:
            reference = document.secret or document.config_map
            assert reference is not None  # noqa: S101 - the model has exactly one
            kind = "Secret" if document.secret is not None else "ConfigMap"
            ask = self._objects.secret if document.secret is not None else self._objects.config_map
            data = await ask(self._namespace, reference.name)
            shown, key = f"the {kind} '{reference.name}'", reference.key
            if data is None:
                raise ConfigError(f"{where}: there is no {kind} '{reference.name}'")
            found = {name: value for name, value in data.items() if (name == key if key else meant(name))}
        if not found:
            what = f"the key '{key}'" if key else f"{_ROOT} or *{_PUBLIC}"
            there = f"; it has {listed(data)}" if data else ""
            raise ConfigError(f"{where}: {shown} has none of {what}{there}")
        if sum(map(len, found.values())) > MAX_DOCUMENT:
            raise ConfigError(f"{where}: {shown} has more than {MAX_DOCUMENT} bytes")
        return found


def _each(read: Callable[..., PublicKey], texts: dict[str, str]) -> tuple[PublicKey, ...]:
    """Keys, read. Raises ConfigError. For a thread: a resource may name ten thousand, each a tenth of a millisecond."""
    return tuple(read(text, what=where) for where, text in texts.items())


def _files(path: Path, meant: Callable[[str], bool]) -> dict[str, bytes]:
    """A file, or those in a folder that are meant. Raises ConfigError."""
    try:
        if not path.is_dir():
            return {path.name: _file(path)}
        names = sorted(each.name for each in path.iterdir() if meant(each.name))
        return {name: _file(path / name) for name in names[: MAX_KEYS + 1]}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _file(path: Path) -> bytes:
    with open(path, "rb", opener=open_at_once) as file:
        return file.read(MAX_DOCUMENT + 1)


def _label(signer: Signer, keys: tuple[PublicKey, ...]) -> str:
    if signer.keyless is not None:
        identity = signer.keyless
        return identity.subject or f"{identity.subject_prefix or identity.repository}"
    return " or ".join(each.id[:19] for each in keys[:3]) or "a key"
