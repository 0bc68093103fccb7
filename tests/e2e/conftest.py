"""What the tests of a whole cluster share; ``cluster`` itself is in scripts/cluster/fixtures.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import Access  # noqa: TC001 - pytest reads fixtures' annotations
from cluster.archive import machine, write_image

BUSYBOX = "hookline.test/busybox:1"


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
