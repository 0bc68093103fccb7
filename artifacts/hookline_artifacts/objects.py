"""Secrets and ConfigMaps: the seam to whoever has them, a cluster or a folder of manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping


class Objects(Protocol):
    """Where Secrets and ConfigMaps of a namespace come from."""

    async def secret(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        """The data of a Secret; None where there is none."""

    async def config_map(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        """The data of a ConfigMap, text and binary; None where there is none."""
