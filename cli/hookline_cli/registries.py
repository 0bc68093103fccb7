"""What a command line names: a reference, an OCI layout folder, or a file; and how registries are reached then."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hookline_artifacts.errors import ConfigError, FetchError
from hookline_artifacts.fetch import Fetcher
from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.login.access import RegistryAccess
from hookline_artifacts.net.proxies import Proxies, from_environment
from hookline_artifacts.reference import Reference, parse
from hookline_artifacts.store import ArtifactStore
from hookline_artifacts.targets import Session
from hookline_cli.bounded import read_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from hookline_artifacts.reference import LayoutReference
    from hookline_artifacts.targets import Target

_FILE_SUFFIXES: Final = (".wasm", ".tar.gz", ".tgz", ".tar")
_MAX_CA: Final = 1 << 20
_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"
_NAME: Final = "plugin"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """How registries are reached."""

    insecure: bool
    access: RegistryAccess
    docker_config: Path | None
    proxies: Proxies
    """Those of the environment: HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""

    @classmethod
    def of(cls, *, insecure: bool, ca: Path | None, docker_config: Path | None) -> Reach:
        """From ``frame.registry_options``. Raises ConfigError."""
        pem = None
        if ca is not None:
            pem = read_file(ca, most=_MAX_CA, what="--ca").decode(errors="replace")
            if _CERTIFICATE not in pem:
                raise ConfigError(f"--ca: {ca} has no certificate in PEM, which begins with {_CERTIFICATE}")
        if docker_config is not None and not docker_config.is_file():
            raise ConfigError(f"--docker-config: {docker_config} is not a file; 'docker login' writes one")
        try:
            proxies = from_environment(os.environ)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        access = RegistryAccess(ca_pem=pem, by_hand=True)
        return cls(insecure=insecure, access=access, docker_config=docker_config, proxies=proxies)

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Connections and logins, closed at the end."""
        session = Session.new(limits=FetchLimits(), docker_config=self.docker_config, proxies=self.proxies)
        try:
            yield session
        finally:
            await session.close()

    @contextlib.asynccontextmanager
    async def fetcher(self, received: Callable[[int], None] | None = None) -> AsyncIterator[Fetcher]:
        """What fetches modules, into a store that is gone at the end. ``received`` is told of bytes as they come."""
        with tempfile.TemporaryDirectory(prefix="hookline-") as folder:
            store = ArtifactStore(Path(folder))
            fetcher = Fetcher(store, docker_config=self.docker_config, proxies=self.proxies, received=received)
            try:
                yield fetcher
            finally:
                await fetcher.close()

    def target(self, session: Session, reference: Reference | LayoutReference) -> Target:
        """Where a reference is; a folder is relative to the working directory."""
        return session.target(reference, insecure=self.insecure, access=self.access, base=Path.cwd())


def target_of(text: str) -> Path | Reference | LayoutReference:
    """What a TARGET is. Raises FetchError."""
    path = Path(text)
    if not text.startswith(("oci:", "oci-layout:")) and (path.is_file() or _is_file_name(text)):
        if not path.is_file():
            raise FetchError(f"there is no file {text!r:.200}", transient=False)
        return path
    return parse(text)


def _is_file_name(text: str) -> bool:
    return text.startswith((".", "/")) or text.lower().endswith(_FILE_SUFFIXES)


def repository_of(reference: Reference | LayoutReference) -> str:
    """``registry/repository``; empty for a folder."""
    return f"{reference.registry}/{reference.repository}" if isinstance(reference, Reference) else ""


def source_of(text: str, *, insecure: bool) -> tuple[dict[str, Any], str]:
    """A TARGET as ``spec.source``, and a name for its plugin."""
    place = target_of(text)
    if isinstance(place, Path):
        return {"file": {"path": str(place.absolute())}}, _short(place.name.partition(".")[0])
    return {"oci": {"reference": text, "insecure": insecure}}, _short(_last(place))


def _last(place: Reference | LayoutReference) -> str:
    name: str = getattr(place, "repository", "") or getattr(place, "path", "")
    return name.rstrip("/").rpartition("/")[2]


def _short(text: str) -> str:
    """A name that a plugin may have."""
    found = "".join(each if each.isascii() and each.isalnum() else "-" for each in text.lower()).strip("-")
    return found or _NAME
