"""The operator's settings, from its command line and its environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from hookline_api.commands import Address
    from hookline_artifacts.net.addresses import Network
    from hookline_artifacts.net.proxies import Proxies


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """One operator's settings; ``hookline_operator.cli`` explains each."""

    namespaces: tuple[str, ...]
    """Empty: all."""
    listen: Address
    health: Address
    service: str
    own_namespace: str
    pod_name: str
    pod_ip: str
    service_account: str
    cache: Path
    cache_size: int
    """Bytes."""
    webhooks: str
    sidecar_image: str
    sidecar_image_pull_policy: str
    sidecar_resources: dict[str, str]
    """Fields of ``InjectionSettings``, such as ``cpu_request``, as far as they were given."""
    sidecar_log_level: str
    tls_secret: str
    key_secret: str
    ca_config_map: str
    lease: str
    migrate: bool
    """Whether ``ControllerRevision`` objects of an older version are read."""
    token: Path
    """The file with this replica's own token, for its peers."""
    kubeconfig: Path | None
    allow_source_addresses: tuple[Network, ...] = ()
    """Addresses that may be asked for modules, of those that usually may not: ``AddressPolicy.allowed``."""
    image_volumes: bool = False
    """Whether the cluster's API server and its nodes have image volumes."""
    mirrors: Path | None = None
    """A file that says which mirrors are asked before which registries."""
    proxies: Proxies | None = None
    """Through whom registries are asked; None: nobody."""
