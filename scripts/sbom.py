"""Says what an image is made of: a software bill of materials, as CycloneDX 1.6.

Its Python packages are those of the lock, each with the hashes that the lock allows. Where the image is there too, only
what it holds is named, its Debian packages as well, and a package that the lock does not know is an error.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.parser import HeaderParser
from pathlib import Path
from typing import IO, Final

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_OURS: Final = "hookline"
_DPKG: Final = "var/lib/dpkg/status"
_METADATA: Final = re.compile(r"(^|/)site-packages/[^/]+\.dist-info/METADATA$")


class SbomError(Exception):
    """Why an image cannot be described truly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Locked:
    """A package of a lock: its name as PyPI writes it, its version, and the SHA-256 of each file it may come in."""

    name: str
    version: str
    sha256: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What an image holds: Python packages and Debian packages, each as names and versions."""

    python: frozenset[tuple[str, str]]
    debian: frozenset[tuple[str, str]]


def read_lock(text: str) -> list[Locked]:
    """The packages of a lock of ``requirements/``, in its order."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words, *hashes = line.split("--hash=sha256:")
        requirement = Requirement(words)
        (pin,) = requirement.specifier
        name, sha256 = canonicalize_name(requirement.name), tuple(each.strip() for each in hashes)
        found.append(Locked(name=name, version=pin.version, sha256=sha256))
    return found


def read_image(archive: Path) -> Contents:
    """What is in an archive as ``docker save`` and buildah write it.

    Raises:
        SbomError: It lacks Debian's list of packages, or names no layers.
    """
    python: set[tuple[str, str]] = set()
    debian: frozenset[tuple[str, str]] | None = None
    with tarfile.open(archive) as image:
        for layer in _layers(image):
            with tarfile.open(fileobj=layer) as files:
                for file in files:
                    content = files.extractfile(file) if file.isfile() else None
                    path = file.name.removeprefix("./")
                    if content and path == _DPKG:
                        debian = frozenset(_dpkg(content.read().decode()))  # the last layer's is the image's
                    elif content and _METADATA.search(path):
                        said = HeaderParser().parsestr(content.read().decode())
                        python.add((canonicalize_name(said["Name"]), said["Version"]))
    if debian is None:
        raise SbomError(f"{archive.name} has no {_DPKG}: it is made of something else than Debian's packages")
    return Contents(python=frozenset(python), debian=debian)


def _layers(image: tarfile.TarFile) -> Iterator[IO[bytes]]:
    for name in json.loads(_file(image, "manifest.json").read())[0]["Layers"]:
        yield _file(image, name)


def _file(image: tarfile.TarFile, name: str) -> IO[bytes]:
    try:
        found = image.extractfile(name)
    except KeyError:
        found = None
    if found is None:
        raise SbomError(f"the image archive has no {name}")
    return found


def _dpkg(status: str) -> Iterator[tuple[str, str]]:
    for paragraph in status.split("\n\n"):
        said = HeaderParser().parsestr(paragraph)
        if (said["Status"] or "").endswith(" installed"):
            yield said["Package"], said["Version"]


def describe(*, name: str, version: str, lock: Path, image: Path | None, made: int) -> str:
    """The bill of materials of ``hookline-{name}`` as JSON.

    ``made`` is a time in seconds since 1970: the same input gives the same text, whenever it is written.

    Raises:
        SbomError: The image holds a Python package in another version than the lock, or one that the lock lacks.
    """
    known = read_lock(lock.read_text())
    root = Component(
        name=f"hookline-{name}", version=version, type=ComponentType.CONTAINER, bom_ref=f"hookline-{name}",
        hashes=[_sha256(sha256_of(image))] if image else [],
    )  # fmt: skip
    parts = [Component(name=_OURS, version=version, type=ComponentType.APPLICATION, bom_ref=f"{_OURS}@{version}")]
    if image:
        contents = read_image(image)
        known = _held(known, contents.python - {(_OURS, version)}, image.name)
        parts += [_debian(*package) for package in sorted(contents.debian)]
    parts += [_python(package) for package in known]
    bom = Bom(components=parts)
    bom.metadata.component = root
    bom.metadata.timestamp = datetime.fromtimestamp(made, UTC)
    bom.register_dependency(root, parts)
    # Of what it says: two images never share a number, and one has the same number on every machine.
    said = "\n".join([f"{name} {version}", *(str(part.bom_ref.value) for part in parts), *map(str, root.hashes)])
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, said)
    return str(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)) + "\n"


def _held(known: Sequence[Locked], held: Iterable[tuple[str, str]], where: str) -> list[Locked]:
    """Of the lock, what the image holds. The rest is for other platforms."""
    by_name = {(package.name, package.version): package for package in known}
    strangers = [f"{name} {version}" for name, version in sorted(held) if (name, version) not in by_name]
    if strangers:
        raise SbomError(f"{where} holds what its lock does not: {', '.join(strangers)}")
    return [by_name[each] for each in sorted(held)]


def _python(package: Locked) -> Component:
    purl = PackageURL(type="pypi", name=package.name, version=package.version)
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION, url=XsUri(purl.to_string()),
        comment="one of the files with these digests, as the lock allows", hashes=map(_sha256, package.sha256),
    )  # fmt: skip
    return Component(
        name=package.name, version=package.version, bom_ref=purl.to_string(), purl=purl, external_references=[files]
    )


def _debian(name: str, version: str) -> Component:
    purl = PackageURL(type="deb", namespace="debian", name=name, version=version)
    return Component(name=name, version=version, bom_ref=purl.to_string(), purl=purl)


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def sha256_of(path: Path) -> str:
    """The digest of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
