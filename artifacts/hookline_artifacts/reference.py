"""References: the names of artifacts, as people write them in ``source.oci.reference``.

A reference is ``[oci://][registry/]repository[:tag][@sha256:…]`` in the grammar of the OCI distribution
specification, or ``oci-layout:PATH[:tag|@sha256:…]`` for an OCI layout folder. Short names mean what they mean
to docker: ``name`` is ``docker.io/library/name``, and no tag is ``latest``. Where a digest is given it decides,
and the tag is for people.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hookline_artifacts.errors import FetchError

DOCKER_HUB: Final = "docker.io"
DOCKER_HUB_HOSTS: Final = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")

_LAYOUT: Final = "oci-layout:"
_MAX_LENGTH: Final = 4096
_MAX_REPOSITORY: Final = 255
_MAX_PORT: Final = 65_535
# https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests
_REGISTRY: Final = re.compile(
    r"(?:(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
    r"(?:\.(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9]))*"
    r"|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?"
)
_PART: Final = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_SCHEME: Final = re.compile(
    r"(?!oci(?:-layout)?:)[A-Za-z][A-Za-z0-9+.-]{0,15}://"
)  # a URL's, or docker:// as skopeo has it
_BEFORE_AT: Final = re.compile(r"(?<![^/@\s])[^/@\s]++@(?!sha256:)")
"""What stands before an ``@``. It begins where nothing of it is before, so every character is read once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """An artifact in a registry. ``tag`` is never None where ``digest`` is."""

    registry: str
    """Host and port as written; Docker Hub under any of its names is ``docker.io``."""
    repository: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.registry}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def host(self) -> str:
        """Where the registry's API answers."""
        return "registry-1.docker.io" if self.registry == DOCKER_HUB else self.registry


@dataclass(frozen=True, kw_only=True, slots=True)
class LayoutReference:
    """An artifact in an OCI layout folder; without tag and digest, the only one there."""

    path: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{_LAYOUT}{self.path}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference | LayoutReference:
    """The reference that ``text`` is; raises FetchError (not transient) for anything else."""
    name, at, digest = text.rpartition("@")
    if not at:
        name, digest = text, ""
    if len(text) > _MAX_LENGTH:
        raise _refusal(text, "it is too long")
    if at and not DIGEST.fullmatch(digest):
        raise _refusal(text, "what follows the @ is not a sha256 digest")
    if (scheme := _SCHEME.match(text)) is not None:
        raise _refusal(text, f"a reference has no {scheme[0]} in front")
    name, tag = _split_tag(name.removeprefix(_LAYOUT).removeprefix("oci://"))
    if tag is not None and not _TAG.fullmatch(tag):
        raise _refusal(text, f"{tag!r:.40} is not a tag")
    if text.startswith(_LAYOUT):
        if not name or "\0" in name:
            raise _refusal(text, "it names no folder")
        return LayoutReference(path=name, tag=tag, digest=digest or None)

    registry, slash, repository = name.partition("/")
    if not slash or not (set(".:") & set(registry) or registry == "localhost" or registry.lower() != registry):
        registry, repository = DOCKER_HUB, name
    port = _REGISTRY.fullmatch(registry)
    if port is None or not 0 < int(port[1] or 1) <= _MAX_PORT:
        raise _refusal(text, f"{registry!r:.80} is not a host")
    if registry.lower() in DOCKER_HUB_HOSTS:
        registry = DOCKER_HUB
        repository = repository if "/" in repository else f"library/{repository}"
    if len(repository) > _MAX_REPOSITORY or not _REPOSITORY.fullmatch(repository):
        raise _refusal(text, f"{repository!r:.80} is not a repository (lower case, a-z 0-9 . _ - /)")
    return Reference(
        registry=registry,
        repository=repository,
        tag=tag or (None if digest else "latest"),
        digest=digest or None,
    )


def is_tag(text: str) -> bool:
    """Whether a text may be a tag."""
    return _TAG.fullmatch(text) is not None


def _split_tag(name: str) -> tuple[str, str | None]:
    head, colon, tag = name.rpartition(":")
    # registry:5000/name has a port there and no tag
    return (head, tag) if colon and "/" not in tag else (name, None)


def _without_userinfo(text: str) -> str:
    """The same without what may be a user with a password."""
    return _BEFORE_AT.sub(lambda found: "***@" if ":" in found[0][1:] else found[0], text)


def _refusal(text: str, why: str) -> FetchError:
    shown = _without_userinfo(text)
    return FetchError(
        f"{shown[:200]!r:.120} is not an artifact reference: {_without_userinfo(why)}; "
        "write registry/repository:tag or registry/repository@sha256:<64 hex digits>",
        transient=False,
    )
