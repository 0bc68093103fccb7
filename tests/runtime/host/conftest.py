"""Host functions of a plugin with every permission, over a store of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hookline_api.bundle import BundlePlugin
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
from host_calls import EVERYTHING, calls
from kv_scopes import Background, InPod, OnServer, new_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hookline_runtime.host.kv import KvStore

Scoped = tuple[PluginHost, dict[str, Any]]


@pytest.fixture
def host(kv: KvStore) -> Callable[..., PluginHost]:
    """Makes a plugin's host; all permissions unless said otherwise."""

    def make(name: str = "guest", **fields: object) -> PluginHost:
        fields.setdefault("permissions", EVERYTHING)
        return PluginHost(BundlePlugin.model_validate({"name": name, **fields}), HostContext(kv=kv))

    return make


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    """An event loop for tests that have none."""
    made = Background()
    yield made
    made.close()


@pytest.fixture(params=["Pod", "Cluster"])
def keys(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[InPod | OnServer]:
    """Plugins' keys, in both places that they may be in."""
    if request.param == "Pod":
        yield InPod(request.getfixturevalue("kv"), monkeypatch)
        return
    made = OnServer(request.getfixturevalue("background"), request.getfixturevalue("redis"))
    yield made
    made.close()


@pytest.fixture(params=["Pod", "Cluster"])
def scoped(request: pytest.FixtureRequest, host: Callable[..., PluginHost]) -> Iterator[Callable[..., Scoped]]:
    """Makes a plugin's host, and its functions as plain calls: with its keys in both places that they may be in."""
    if request.param == "Pod":
        yield lambda name="guest": ((made := host(name)), calls(made))
        return
    background, made, namespace = request.getfixturevalue("background"), [], new_namespace()
    kv = {"scope": "Cluster", "valkey": request.getfixturevalue("redis").settings()}

    def make(name: str = "guest") -> Scoped:
        made.append(host(name, namespace=namespace, kv=kv))
        return made[-1], background.calls(made[-1])

    yield make
    background.do(lambda: [each.close() for each in made])
