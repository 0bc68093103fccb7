"""A registry with the referrers API, and how a test resolves a plugin that asks for signatures."""

from __future__ import annotations

import contextlib
import subprocess

import pytest

from cluster.binaries import binary
from cluster.errors import NotPossibleHereError
from cluster.fixtures import missing
from hookline_artifacts.resolve import resolve
from registries import Registry
from signed_artifacts import NoObjects, Place, digest_of, plugin, put
from waiting import PATIENCE_S


@pytest.fixture(scope="session")
def referrers_registry():
    """go-containerregistry's registry."""
    try:
        program = binary("registry")
    except NotPossibleHereError as error:
        missing(error)
    command = [program, "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, contextlib.ExitStack() as stack:
        stack.callback(process.wait, PATIENCE_S)
        stack.callback(process.terminate)
        yield Registry(host=process.stdout.readline().strip())


@pytest.fixture
def resolve_signed(fetcher):
    """Resolves a plugin of a source with these settings of ``spec.verify``."""

    async def run(source, *, base=None, **verify):
        dumped = source if isinstance(source, dict) else {"oci": source.model_dump(by_alias=True, exclude_unset=True)}
        return await resolve(plugin(dumped, **verify), fetcher=fetcher, objects=NoObjects(), base=base)

    return run


@pytest.fixture
def place(server):
    """The artifact, unsigned."""
    put(server, "unsigned", "acme/p")
    return Place(server, digest_of("unsigned"))
