"""Secrets and ConfigMaps: the seam to whoever has them, a cluster or a folder of manifests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from hookline_api.text import did_you_mean, listed

if TYPE_CHECKING:
    from collections.abc import Mapping


class Objects(Protocol):
    """Where Secrets and ConfigMaps of a namespace come from."""

    async def secret(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        """The data of a Secret; None where there is none."""

    async def config_map(self, namespace: str | None, name: str) -> Mapping[str, bytes] | None:
        """The data of a ConfigMap, text and binary; None where there is none."""


def without_key(kind: str, name: str, key: str, data: Mapping[str, bytes] | None) -> str:
    """That there is no such key, and which keys there are: their names, and nothing of their values."""
    missing = f"there is no {kind} '{name}' with the key '{key}'"
    if data is None:
        return missing
    there = f"that {kind} has {listed(data)}{did_you_mean(key, sorted(data)[:64])}" if data else f"that {kind} is empty"
    return f"{missing}; {there}"
