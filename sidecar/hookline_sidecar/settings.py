"""What the sidecar was told on its command line or in its environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hookline_api.commands import Address
    from hookline_artifacts.net.proxies import Proxies

TRUST_POLICIES: Final = Path("/etc/hookline/trust")
"""Where an image has policies, or the cluster's owner mounts some. It is read wherever it is, whatever else is given:
the command line of an injected sidecar is the operator's."""
ADMIN_SOCKET: Final = "admin.sock"
"""In the state folder."""


def default_state(environment: Mapping[str, str]) -> Path:
    """The state folder where nothing says another one."""
    # https://specifications.freedesktop.org/basedir-spec/: state that should outlive a restart
    base = environment.get("XDG_STATE_HOME")
    if base:
        return Path(base) / "hookline"
    try:
        return Path.home() / ".local" / "state" / "hookline"
    except RuntimeError:  # a container's user often has no home
        return Path("/var/lib/hookline")


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorSettings:
    """How the operator is reached."""

    url: str
    """``https://HOST[:PORT]``."""
    ca: Path | None
    """Authorities in PEM; None for the system's."""
    token: Path
    images: Path | None = None
    """A folder with images that the node has mounted, where modules may be; None for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One sidecar's settings; ``hookline_sidecar.cli`` explains each."""

    plugins: Path | None
    operator: OperatorSettings | None
    """Exactly one of ``plugins`` and ``operator`` is there."""
    state: Path
    listen: Address | None
    socket: Path | None
    socket_mode: int
    socket_group: int | None
    """Number of the group that the socket is given to; None for that of the process."""
    health: Address | None
    """Where health and metrics alone are answered, with no text of plugins."""
    admin: Address | None
    """Where all of the admin surface is; on another address than this machine's own, for the token's bearer."""
    admin_token: Path | None
    """A file: who knows what is in it may use the protected paths of ``admin``. None: nobody may, there."""
    workers: int
    max_body: int
    """Bytes of a hook call's body that are read at all."""
    body_timeout: float
    """Seconds for a body to arrive."""
    drain: float
    """Seconds for calls under way to end after SIGTERM."""
    auth_headers: str = "any"
    """How the proxy tells ``/v1/auth`` the original request: a key of ``original.PROXIES``."""
    cache_memory: int = 64 * 2**20
    """Bytes that the plugins' caches in memory may take together."""
    mirrors: Path | None = None
    """A file that says which mirrors are asked before which registries; for ``plugins`` alone."""
    proxies: Proxies | None = None
    """Through whom registries are asked; None: nobody."""
    trust_policies: tuple[Path, ...] = ()
    """Files and folders of ``PluginTrustPolicy`` documents."""
    log_decisions: str = "off"
    """off, decisions or inputs: see ``hooks.decision_log``."""
    memory: int | None = None
    """Bytes that all of the sidecar may take; None for what its cgroup allows."""
