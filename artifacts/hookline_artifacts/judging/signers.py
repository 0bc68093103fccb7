"""What is wrong with the signatures that a document asks for, and what is legal and risky. Pure.

Public keys are read, so that whoever wrote one wrong learns it at once. Whatever anybody sent is judged in bounded
steps: a pattern that would cost too much is not tried, and nothing is said of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from hookline_api.text import found
from hookline_api.trust import PROVENANCE, CosignKey, Ed25519Key, Signer, Verify
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.reference import DOCKER_HUB, DOCKER_HUB_HOSTS
from hookline_artifacts.trust.cosign import SIGN_PREDICATE
from hookline_artifacts.trust.keys import PublicKey, read_pem, read_raw
from hookline_artifacts.trust.patterns import matches, matches_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hookline_api.trust import Attestation, Document, KeylessIdentity, Signatures

_STEPS: Final = 200_000
"""Characters of patterns times characters of what they are tried on, for one document: a twentieth of a second at
the most."""
_SHORT: Final = {
    "custom": "https://cosign.sigstore.dev/attestation/v1",
    "cyclonedx": "https://cyclonedx.org/bom",
    "link": "https://in-toto.io/Link/v1",
    "openvex": "https://openvex.dev/ns",
    "slsaprovenance": "https://slsa.dev/provenance/v0.2",
    "slsaprovenance02": "https://slsa.dev/provenance/v0.2",
    "slsaprovenance1": "https://slsa.dev/provenance/v1",
    "spdx": "https://spdx.dev/Document",
    "spdxjson": "https://spdx.dev/Document",
    "vuln": "https://cosign.sigstore.dev/attestation/vuln/v1",
}
"""What cosign calls predicate types, and what it writes for that; cosign's ``attest --type``."""


@dataclass(slots=True)
class Findings:
    """Sentences that begin with the path of a field."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class _Placed(NamedTuple):
    """A signer, and where it and its key stand."""

    signer: Signer
    path: str
    key_path: str


def judge_signatures(
    asked: Signatures, *, where: str, plugin: str | None = None, repository: str | None = None, local: bool = False
) -> Findings:
    """What is wrong with ``asked``, which stands at ``where``.

    ``plugin`` and ``repository`` are those of the one plugin that it is for; the latter is empty for a source that is
    no registry. Without them it is for any. ``local``: it is for a manifest folder, which may name files.
    """
    return _Judge(asked, where, plugin, repository, local=local).findings()


def impossible(pattern: str) -> str:
    """Why a pattern fits no repository at all; empty where it may fit one."""
    if "://" in pattern:
        return "a repository has no scheme in front: write registry/repository"
    first, *parts = pattern.split("/")
    if "" in {first, *parts}:
        return "it has an empty part between slashes"
    if first == "**":
        return ""
    if not parts:
        return "it names no repository: write registry/repository, or registry/** for all of a registry"
    if any(":" in each for each in parts):
        return "a repository has no tag"
    if any(each.lower() != each for each in parts):
        return "repositories are in lower case"
    if first.lower() in DOCKER_HUB_HOSTS - {DOCKER_HUB}:
        return f"Docker Hub's registry is {DOCKER_HUB} here"
    if "*" not in first and not set(".:") & set(first) and first != "localhost" and first.lower() == first:
        return f"it begins with no registry: Docker Hub's is {DOCKER_HUB}"
    return ""


class _Judge:
    """One document's ``Signatures``."""

    def __init__(
        self, asked: Signatures, where: str, plugin: str | None, repository: str | None, *, local: bool
    ) -> None:
        self._asked = asked
        self._local = local
        self._where = where
        self._plugin = plugin
        self._repository = repository
        self._left = _STEPS
        self._found = Findings()
        self._keys: dict[str, PublicKey | None] = {}
        """By their texts; None for one that is wrong."""

    def findings(self) -> Findings:
        """Everything."""
        asked, where = self._asked, self._where
        any_of = [*_placed(asked.any_of, f"{where}.anyOf"), *_short_forms(asked, where)]
        all_of = [*_placed(asked.all_of, f"{where}.allOf")]
        if not asked.wanted and not (isinstance(asked, Verify) and asked.minimum_version is not None):
            self._warn(where, "asks for no signature: every artifact passes")
        for each in (*any_of, *all_of):
            self._judge_signer(each)
        usable = [each for each in any_of if self._may_count(each)]
        if any_of:
            self._judge_minimum(usable)
        for each in any_of:
            if usable and each not in usable:
                self._warn(each.path, f"counts for nothing, since it may not sign for {self._whom}")
        for each in all_of:
            if not self._may_count(each):
                self._found.problems.append(f"{each.path}: may not sign for {self._whom}, and allOf needs it")
        for index, attestation in enumerate(asked.attestations):
            self._judge_attestation(attestation, f"{where}.attestations[{index}]")
        self._judge_root()
        return self._found

    @property
    def _whom(self) -> str:
        if self._plugin is None:
            return "anything"
        of = {None: "", "": " of a source without a repository"}.get(self._repository, f" of {self._repository}")
        return f"plugin '{self._plugin}'{of}"

    def _warn(self, path: str, text: str) -> None:
        self._found.warnings.append(f"{path}: {text}")

    def _judge_signer(self, placed: _Placed) -> None:
        signer, path = placed.signer, placed.path
        if signer.key is not None and signer.key.pem is not None:
            self._key(placed)
        if signer.ed25519 is not None:
            if signer.ed25519.key is not None:
                self._key(placed)
            if signer.ed25519.legacy:
                self._warn(
                    f"{path}.ed25519.legacy", "such a signature says nothing of the manifest: who can push can change "
                    "the version, the permissions and the hooks that it names",
                )  # fmt: skip
        for document in _documents(signer):
            self._judge_document(document, f"{placed.key_path}.from")
        if signer.keyless is not None:
            self._judge_identity(signer.keyless, placed.key_path)
        for index, pattern in enumerate(signer.repositories):
            if why := impossible(pattern):
                self._found.problems.append(f"{path}.repositories[{index}]: {found(pattern)} fits nothing: {why}")
        for index, pattern in enumerate(signer.signed_as):
            if not pattern.strip("*/"):
                self._warn(f"{path}.signedAs[{index}]", "a signature for any repository counts here, too")

    def _judge_document(self, document: Document | None, path: str) -> None:
        if document is not None and document.file is not None and not self._local:
            self._found.problems.append(f"{path}.file: is for manifest folders only; a cluster has no files")

    def _judge_identity(self, identity: KeylessIdentity, path: str) -> None:
        if not identity.issuer.startswith("https://"):
            self._warn(f"{path}.issuer", f"{found(identity.issuer)} is no URL, and issuers are: https://…")
        prefix = identity.subject_prefix
        if prefix is not None and not prefix.endswith(("/", "@")):
            self._warn(
                f"{path}.subjectPrefix", f"{found(prefix)} also fits names that only begin alike, which somebody else "
                "may have; end it in a slash or an @",
            )  # fmt: skip
        if identity.repository is not None and not identity.repository.startswith(("https://", "*")):
            self._warn(f"{path}.repository", "certificates name repositories by their URLs: https://github.com/acme/*")

    def _judge_minimum(self, usable: list[_Placed]) -> None:
        """Whether enough different signers can count."""
        first: dict[str, str] = {}
        open_ended = False
        for each in usable:
            identity = self._identity(each)
            if identity is None:  # keys that are not known here
                open_ended = True
            elif identity in first:
                self._warn(each.path, f"is the same signer as {first[identity]}: both together count once")
            else:
                first[identity] = each.path
        needed = self._asked.minimum
        if open_ended or len(first) >= needed:
            return
        if not first:
            self._found.problems.append(f"{self._where}: none of the signers may sign for {self._whom}")
            return
        self._found.problems.append(
            f"{self._where}.minimum: is {needed}, and {len(first)} different signers at the most can sign for "
            f"{self._whom}"
        )

    def _identity(self, placed: _Placed) -> str | None:
        """What two entries have in common that count as one; None where that is not known here."""
        signer = placed.signer
        if signer.keyless is not None:
            return signer.keyless.model_dump_json()
        if any(_documents(signer)):
            return None
        key = self._key(placed)
        return key.id if key is not None else placed.path

    def _judge_attestation(self, attestation: Attestation, path: str) -> None:
        kind = attestation.predicate_type
        if kind in _SHORT:
            self._found.problems.append(
                f"{path}.predicateType: {kind} is cosign's short name for it: write {_SHORT[kind]}"
            )
        elif kind == SIGN_PREDICATE:
            self._found.problems.append(
                f"{path}.predicateType: {kind} is of plain signatures, and states nothing: ask for those in anyOf"
            )
        elif ":" not in kind:
            self._found.problems.append(
                f"{path}.predicateType: {found(kind)} is no URI, such as https://slsa.dev/provenance/v1"
            )
        elif PROVENANCE.fullmatch(kind) is None:
            for name, given in (("builder", attestation.builder), ("sourceRepository", attestation.source_repository)):
                if given is not None:
                    self._found.problems.append(
                        f"{path}.{name}: only SLSA provenance tells it (predicateType https://slsa.dev/provenance/v1)"
                    )
        signers = list(_placed(attestation.signers, f"{path}.signers"))
        for each in signers:
            self._judge_signer(each)
        if not any(self._may_count(each) for each in signers):
            self._found.problems.append(f"{path}.signers: none of them may sign for {self._whom}")

    def _judge_root(self) -> None:
        where = f"{self._where}.trustRoot"
        given = self._asked.trust_root
        self._judge_document(given, where)
        keyless = any(each.keyless is not None for each in _every(self._asked))
        if given is None and keyless:
            self._warn(
                where, "is not given, so keyless signatures are verified against Sigstore's public authority, "
                "as this version of Hookline has it",
            )  # fmt: skip
        if given is not None and not keyless:
            self._warn(where, "is for keyless signers, and there is none")

    def _key(self, placed: _Placed) -> PublicKey | None:
        """The key that a signer gives; the first time, what is wrong with it is a problem."""
        signer = placed.signer
        text = signer.key.pem if signer.key is not None else signer.ed25519.key if signer.ed25519 is not None else None
        if text is None:
            return None
        if text not in self._keys:
            read: Callable[..., PublicKey] = read_pem if signer.key is not None else read_raw
            try:
                self._keys[text] = read(text, what=f"{placed.key_path}:")
            except ConfigError as error:
                self._found.problems.append(str(error))
                self._keys[text] = None
        return self._keys[text]

    def _may_count(self, placed: _Placed) -> bool:
        """False where a signature by it counts for nothing that it is asked of here, as far as that may be tried."""
        signer = placed.signer
        possible = [each for each in signer.repositories if not impossible(each)]
        if signer.repositories and not possible:
            return False
        repository, plugin = self._repository, self._plugin
        # What has no repository fits no pattern, not even `**`.
        if possible and (repository == "" or (repository and not self._fits(matches_path, possible, repository))):
            return False
        return not signer.plugins or plugin is None or self._fits(matches, signer.plugins, plugin)

    def _fits(self, match: Callable[[str, str], bool], patterns: Sequence[str], text: str) -> bool:
        for pattern in patterns:
            self._left -= (len(pattern) + 1) * (len(text) + 1)
            if self._left < 0 or match(pattern, text):
                return True
        return False


def _placed(signers: Sequence[Signer], where: str) -> Iterator[_Placed]:
    for index, signer in enumerate(signers):
        path = f"{where}[{index}]"
        kind = "key" if signer.key is not None else "ed25519" if signer.ed25519 is not None else "keyless"
        inline = signer.key is not None and signer.key.pem is not None
        named = signer.ed25519 is not None and signer.ed25519.key is not None
        yield _Placed(signer, path, f"{path}.{kind}" + (".pem" if inline else ".key" if named else ""))


def _short_forms(asked: Signatures, where: str) -> Iterator[_Placed]:
    if not isinstance(asked, Verify):
        return
    short = [("keys", Signer(key=CosignKey(pem=each)), i) for i, each in enumerate(asked.keys)]
    short += [("ed25519", Signer(ed25519=Ed25519Key(key=each)), i) for i, each in enumerate(asked.ed25519)]
    short += [("keyless", Signer(keyless=each), i) for i, each in enumerate(asked.keyless)]
    for name, signer, index in short:
        path = f"{where}.{name}[{index}]"
        yield _Placed(signer, path, path)


def _every(asked: Signatures) -> list[Signer]:
    """All signers, whatever they are asked for."""
    short = asked.signatures.any_of if isinstance(asked, Verify) else asked.any_of
    return [*short, *asked.all_of, *(each for attestation in asked.attestations for each in attestation.signers)]


def _documents(signer: Signer) -> list[Document]:
    given = (signer.key.from_ if signer.key else None, signer.ed25519.from_ if signer.ed25519 else None)
    return [each for each in given if each is not None]
