"""Whether the entry of a bundle and its module go together. Pure; whoever is handed an entry asks, the worker too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import ConfigError

if TYPE_CHECKING:
    from hookline_api.bundle import BundlePlugin
    from hookline_artifacts.module.inspection import ModuleInfo

_PAGE: Final = 65_536
"""Bytes of a page of WebAssembly memory."""


def check_entry(entry: BundlePlugin, info: ModuleInfo) -> None:
    """Whether the settings fit the module. Raises ConfigError."""
    missing = [hook.value for hook in entry.hooks if hook not in info.hooks]
    if missing:
        raise ConfigError(f"spec.hooks names {', '.join(missing)}, and the module exports only {', '.join(info.hooks)}")
    if info.memory_pages * _PAGE > entry.limits.memory:
        raise ConfigError(
            f"the module starts with {info.memory_pages * _PAGE} bytes of memory, "
            f"and limits.memory is {entry.limits.memory}"
        )
