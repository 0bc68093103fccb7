"""What the tests of a whole cluster share; ``cluster`` itself is in testbed/cluster/fixtures.py."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cluster import Access, NotPossibleHereError
from cluster.archive import machine, write_image
from installation import Installation, Tenant
from local_registry import LocalRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

BUSYBOX = "hookline.test/busybox:1"
_installed = pytest.StashKey[Installation]()


@pytest.fixture
def namespace(cluster: Access, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace per test, named after it."""
    with cluster.namespace(request.node.name.replace("_", "-")[:60].strip("-")) as name:
        yield name


@pytest.fixture(scope="session")
def busybox(cluster: Access, need: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an image that has a shell, wget, httpd and nslookup as ``/busybox``."""
    program = Path(need("busybox", "busybox-static"))
    archive = tmp_path_factory.mktemp("images") / "busybox.tar"
    cluster.load_image(write_image(archive, name=BUSYBOX, program=program, architecture=machine()), BUSYBOX)
    return BUSYBOX


@pytest.fixture(scope="session")
def installation(
    cluster: Access, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Installation]:
    """Hookline, installed by its chart with two replicas, for all tests of a run."""
    made = Installation(cluster, tmp_path_factory.mktemp("images"))
    pytestconfig.stash[_installed] = made
    made.install()
    yield made
    del pytestconfig.stash[_installed]
    made.remove()


@pytest.fixture
def new_tenant(installation: Installation, request: pytest.FixtureRequest) -> Iterator[Callable[[], Tenant]]:
    """Makes namespaces named after the test, under the Pod Security Standard ``restricted``."""
    base = request.node.name.replace("_", "-").replace("[", "-").strip("]-")[:50].strip("-")
    with contextlib.ExitStack() as stack:
        made: list[Tenant] = []
        installation.rolled_out()  # whatever the test before has broken

        def make() -> Tenant:
            name = f"{base}-{len(made) + 1}"
            made.append(Tenant(installation.cluster, stack.enter_context(installation.cluster.namespace(name))))
            return made[-1].prepare()

        yield make


@pytest.fixture
def tenant(new_tenant: Callable[[], Tenant]) -> Tenant:
    """One."""
    return new_tenant()


@pytest.fixture(scope="session")
def registry(
    cluster: Access, need: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalRegistry]:
    """A registry on this machine that serves anybody, at an address that pods reach."""
    yield from _registry(cluster, need, tmp_path_factory.mktemp("registry"), password=False)


@pytest.fixture(scope="session")
def password_registry(
    cluster: Access, need: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalRegistry]:
    """The same, but it wants a password."""
    yield from _registry(cluster, need, tmp_path_factory.mktemp("registry"), password=True)


def _registry(
    cluster: Access, need: Callable[[str, str], str], folder: Path, *, password: bool
) -> Iterator[LocalRegistry]:
    program = need("docker-registry", "docker-registry")
    made = LocalRegistry(program, folder, address=cluster.gateway, password=password)
    made.start()
    yield made
    made.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What one looks at on a cluster, beside the failure."""
    report = yield
    installed = item.config.stash.get(_installed, None)
    known = getattr(item, "fixturenames", ())
    if report.failed and installed is not None and "installation" in known and report.when != "teardown":
        with contextlib.suppress(NotPossibleHereError):
            report.sections.append(("the cluster", installed.describe()))
    return report
