"""The clusters as pytest fixtures, for every folder of tests."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import NoReturn

import pytest

from cluster import binaries
from cluster.access import Access  # noqa: TC001 - pytest reads fixtures' annotations
from cluster.control_plane import ControlPlane
from cluster.errors import NotPossibleHereError
from cluster.existing import Existing, open_cluster

# Whether the cluster of this run is somebody else's.
_foreign = pytest.StashKey[bool]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Programs are built when a test first asks for them: for minutes, in which somebody waits and reads."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        binaries.show = reporter.write_line


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """One real API server with its controllers and no node, for all tests of a run. Use a namespace of your own."""
    try:
        plane = ControlPlane(audited=True)
    except NotPossibleHereError as error:
        missing(error)
    with plane:
        yield plane


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Access]:
    """One cluster that runs pods, for all tests of a run. Use a namespace of your own."""
    try:
        opened = open_cluster()
    except NotPossibleHereError as error:
        missing(error)
    request.session.stash[_foreign] = isinstance(opened, Existing)
    with opened:
        yield opened


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """The same for what a test needs before it begins."""
    return (yield from pytest_runtest_call(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test that asks a foreign cluster for what only ours can do is skipped, with the reason."""
    try:
        return (yield)
    except NotPossibleHereError as error:
        if item.session.stash.get(_foreign, False):
            pytest.skip(str(error))
        missing(error)


def missing(error: NotPossibleHereError) -> NoReturn:
    """Skip; or fail under CI, which `make e2e` counts as: there everything has to be proven."""
    if os.environ.get("CI"):
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))
