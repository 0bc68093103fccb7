"""The runtime is a library: who embeds it gets an engine and a store, and neither servers nor clients."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import hookline_runtime

_ELSEWHERE = (
    "aiohttp",
    "yarl",
    "uvloop",
    "watchfiles",
    "yaml",
    "prometheus_client",
    "hookline_serving",
    "hookline_client",
    "psycopg",
    "pglast",
)
_BACKENDS = "hookline_runtime.host.backends."
"""What is imported where a plugin needs it alone."""
_MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(hookline_runtime.__path__, "hookline_runtime.")
    if not module.ispkg and not module.name.startswith(_BACKENDS)
)


def _loads(*modules: str) -> list[str]:
    """Which of those that belong elsewhere a new process has loaded with these."""
    script = f"import sys, {', '.join(modules)}\nprint(*sorted({set(_ELSEWHERE)} & sys.modules.keys()))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return ended.stdout.split()


@pytest.mark.parametrize("module", ["hookline_runtime", "hookline_runtime.runtime"])
def test_who_embeds_the_runtime_loads_no_http_library(module):
    """What a program that runs plugins by itself imports."""
    assert _loads(module) == []


def test_no_module_of_the_runtime_loads_an_http_library():
    """Whichever is imported, also by way of what it imports: a worker pays for what it uses."""
    assert len(_MODULES) > 20
    assert _loads(*_MODULES) == []


def test_that_would_be_seen():
    """Else the tests above would hold of anything."""
    assert "aiohttp" in _loads("hookline_serving")
    assert "aiohttp" in _loads(f"{_BACKENDS}http")


@pytest.mark.parametrize(
    ("settings", "loaded"),
    [
        ({}, []),
        ({"permissions": ["http.fetch"]}, []),
        ({"egress": [{"host": "example.com"}]}, []),
        ({"permissions": ["http.fetch"], "egress": [{"host": "example.com"}]}, ["aiohttp", "yarl"]),
    ],
)
def test_only_a_plugin_that_may_ask_somebody_loads_an_http_library(settings, loaded):
    """It takes 22 MiB, and a tenth of a second."""
    script = f"""
import sys
from hookline_api.bundle import BundlePlugin
from hookline_runtime.host.context import HostContext
from hookline_runtime.host.functions import PluginHost
PluginHost(BundlePlugin.model_validate({{"name": "guest", **{settings}}}), HostContext())
print(*sorted({set(_ELSEWHERE)} & sys.modules.keys()))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == loaded


@pytest.mark.parametrize("child", ["hookline_runtime.guest.compiling", "hookline_artifacts.schema"])
def test_a_child_that_compiles_or_checks_imports_what_it_needs(child):
    """One begins for each module and each check, behind everything else: no models, no event loop, no components."""
    unneeded = ("pydantic", "asyncio", "orjson", "jsonschema", "wasmtime.component", "hookline_artifacts.apart")
    script = f"import sys, {child}\nprint(*sorted({{*{unneeded}}} & sys.modules.keys()))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
