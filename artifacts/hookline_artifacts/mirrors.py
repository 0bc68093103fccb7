"""Which mirrors are asked for which references: a file of the administrator's, read again when it changes.

::

    registries:
      - prefix: ghcr.io/acme            # a registry, or a registry and the beginning of a path
        mirrors:                        # in this order; the registry itself comes last
          - location: mirror.example.com/ghcr/acme
          - location: mirror-2.example.com:5000/acme
            insecure: true              # plain HTTP
            caFile: mirror-2.crt        # PEM, beside this file; or ca, the PEM itself

The longest prefix that fits counts, as in containers-registries.conf(5). What follows it in a reference follows the
location too: ``ghcr.io/acme/guard:v1`` is asked of ``mirror.example.com/ghcr/acme/guard:v1``. A file has YAML or JSON.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import yaml
from pydantic import ConfigDict, Field, ValidationError

from hookline_api.base import Resource
from hookline_api.sentences import first
from hookline_artifacts.errors import FetchError
from hookline_artifacts.net.certificates import MAX_PEM
from hookline_artifacts.reference import Reference, parse
from hookline_artifacts.threads import in_thread, open_at_once

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_FILE: Final = 1 << 20
_MAX_MIRRORS: Final = 8
_LOOKED_S: Final = 2.0
"""Seconds until it is looked again whether the file is another."""
_PLAIN: Final = "http://"
_ANY_TAG: Final = "latest"

log = logging.getLogger("hookline.mirrors")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mirror:
    """A repository that may have what another one has."""

    reference: Reference
    insecure: bool
    ca_pem: str | None = None
    """Trusted beside the system's authorities."""
    of_resource: bool = False
    """Whether the resource itself names it."""


class _Location(Resource):
    model_config = ConfigDict(extra="forbid")

    location: Annotated[str, Field(min_length=1, max_length=512)]
    insecure: bool = False
    ca: Annotated[str, Field(max_length=MAX_PEM)] | None = None
    ca_file: Annotated[str, Field(min_length=1, max_length=4096)] | None = None


class _Rule(Resource):
    model_config = ConfigDict(extra="forbid")

    prefix: Annotated[str, Field(min_length=1, max_length=512)]
    mirrors: Annotated[list[_Location], Field(min_length=1, max_length=_MAX_MIRRORS)]


class _Document(Resource):
    model_config = ConfigDict(extra="forbid")

    registries: Annotated[list[_Rule], Field(max_length=1000)]


class MirrorTable:
    """The mirrors of each prefix."""

    def __init__(self, mirrors: dict[str, tuple[Mirror, ...]]) -> None:
        """``mirrors`` has prefixes without a slash at the end; their references have a tag that means nothing."""
        self._mirrors = mirrors

    def of(self, reference: Reference) -> tuple[Mirror, ...]:
        """Those of a reference, in order; with its own tag and digest."""
        path = reference.repository
        prefix = f"{reference.registry}/{path}"
        while prefix not in self._mirrors:
            prefix, slash, _ = prefix.rpartition("/")
            if not slash:
                return ()
        rest = f"{reference.registry}/{path}".removeprefix(prefix)
        return tuple(
            dataclasses.replace(each, reference=_named(each.reference, reference, rest))
            for each in self._mirrors[prefix]
        )


def _named(mirror: Reference, reference: Reference, rest: str) -> Reference:
    return dataclasses.replace(
        reference, registry=mirror.registry, repository=(mirror.repository + rest).removeprefix("/")
    )


NO_MIRRORS: Final = MirrorTable({})


def own_mirrors(texts: Sequence[str], reference: Reference) -> tuple[Mirror, ...]:
    """Those that a resource names: ``registry/repository``, or ``http://registry/repository``. Raises FetchError."""
    found = []
    for text in texts:
        plain = text.startswith(_PLAIN)
        try:
            named = _repository(text.removeprefix(_PLAIN))
        except ValueError as error:
            raise FetchError(f"spec.source.oci.mirrors: {text!r:.80} {error}", transient=False) from None
        found.append(Mirror(reference=_named(named, reference, ""), insecure=plain, of_resource=True))
    return tuple(found)


def read_table(path: Path) -> MirrorTable:
    """The table in a file. Raises ValueError with a sentence."""
    text = _read(path, _MAX_FILE)
    try:
        loaded = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - a safe one
        document = _Document.model_validate({"registries": []} if loaded is None else loaded)
    except yaml.YAMLError:
        raise ValueError(f"{path} is neither YAML nor JSON") from None
    except ValidationError as error:
        raise ValueError(f"{path}: {first(error)}") from None
    return MirrorTable({_prefix(rule.prefix, path): _mirrors(rule, path) for rule in document.registries})


def _mirrors(rule: _Rule, path: Path) -> tuple[Mirror, ...]:
    found = []
    for each in rule.mirrors:
        try:
            reference = _repository(each.location, may_be_host=True)
        except ValueError as error:
            raise ValueError(f"{path}: the location {each.location!r:.80} {error}") from None
        if each.ca is not None and each.ca_file is not None:
            raise ValueError(f"{path}: {each.location} has both ca and caFile; give one of them")
        ca_pem = _read(path.parent / each.ca_file, MAX_PEM) if each.ca_file is not None else each.ca
        found.append(Mirror(reference=reference, insecure=each.insecure, ca_pem=ca_pem))
    return tuple(found)


def _prefix(text: str, path: Path) -> str:
    try:
        found = _repository(text.rstrip("/"), may_be_host=True)
    except ValueError as error:
        raise ValueError(f"{path}: the prefix {text!r:.80} {error}") from None
    return f"{found.registry}/{found.repository}".rstrip("/")


def _repository(text: str, *, may_be_host: bool = False) -> Reference:
    """What a text names that is a registry with a path, or one without; raises ValueError for how a sentence ends."""
    host, slash, _ = text.partition("/")
    if not slash and may_be_host:
        found = parse(f"{host}/x") if _is_host(host) else None
        if isinstance(found, Reference) and found.registry:
            return dataclasses.replace(found, repository="")
    try:
        named = parse(text)
    except FetchError:
        named = None
    is_whole = isinstance(named, Reference) and slash and _is_host(host)
    if not is_whole or not isinstance(named, Reference) or named.digest is not None or named.tag != _ANY_TAG:
        raise ValueError("is not registry/repository, without a tag and a digest")
    if ":" in text.rpartition("/")[2]:
        raise ValueError("is not registry/repository, without a tag and a digest")
    return named


def _is_host(text: str) -> bool:
    return bool(set(".:") & set(text)) or text == "localhost"


def _read(path: Path, most: int) -> str:
    try:
        with open(path, "rb", opener=open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError(f"{path} is not a regular file")
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f"{path} has more than {most} bytes")
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


class MirrorFile:
    """The table of a file, as it is now. What is wrong in a new version is logged, and the one before it stays."""

    def __init__(self, path: Path | None) -> None:
        """Read it. ``None`` is no file, and no mirrors. Raises ValueError."""
        self._path = path
        self._table = NO_MIRRORS if path is None else read_table(path)
        self._seen = _sight(path)
        self._looked = time.monotonic()

    async def table(self) -> MirrorTable:
        """The table, at most some seconds old."""
        if self._path is not None and time.monotonic() - self._looked > _LOOKED_S:
            self._looked = time.monotonic()
            await in_thread(self._look, self._path)
        return self._table

    def _look(self, path: Path) -> None:
        sight = _sight(path)
        if sight == self._seen:
            return
        self._seen = sight
        try:
            self._table = read_table(path)
            log.info("the mirrors are read again from %s", path)
        except ValueError as error:
            log.warning("%s; the mirrors that were read before stay", error)


def _sight(path: Path | None) -> tuple[int, int, int] | None:
    """What differs where the file does; a ConfigMap's is another file each time."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_ino, found.st_size)
