"""Host functions of a plugin with every permission, over a store of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hookline_api.bundle import BundlePlugin
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
from host_calls import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable

    from hookline_runtime.host.kv import KvStore


@pytest.fixture
def host(kv: KvStore) -> Callable[..., PluginHost]:
    """Makes a plugin's host; all permissions unless said otherwise."""

    def make(name: str = "guest", **fields: object) -> PluginHost:
        fields.setdefault("permissions", EVERYTHING)
        return PluginHost(BundlePlugin.model_validate({"name": name, **fields}), HostContext(kv=kv))

    return make
