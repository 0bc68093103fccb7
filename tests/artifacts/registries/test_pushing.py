"""docs/author/pushing.md: what its commands push, Hookline pulls. The very commands, against a real registry."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from pathlib import Path

import pytest

from cluster.binaries import binary
from cluster.errors import NotPossibleHereError
from cluster.fixtures import missing
from waiting import PATIENCE_S

PAGE = (Path(__file__).parents[3] / "docs" / "author" / "pushing.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = ("oras push", "crane append", "curl -fsS")


@pytest.fixture
def run(tmp_path):
    """Runs a block of the page where a registry of this machine stands for the page's; what it printed."""

    async def run(block, host, *tools):
        script = block.replace("https://registry.example.com", f"http://{host}").replace("registry.example.com", host)
        (tmp_path / "home").mkdir()
        path = os.pathsep.join([*(str(tool.parent) for tool in tools), "/usr/local/bin:/usr/bin:/bin"])
        environment = {"PATH": path, "HOME": str(tmp_path / "home")}
        done = await asyncio.to_thread(
            subprocess.run, ["sh", "-eu", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("command", COMMANDS)
async def test_what_the_page_pushes_is_pulled(registry, fetcher, oci, run, need, tmp_path, command):
    """By the tool that the page names, and with none but curl."""
    (block,) = (each for each in BLOCKS if command in each)
    tools = []
    if command.startswith("curl"):
        need("curl", "curl")
    else:
        try:
            tools.append(await asyncio.to_thread(binary, command.split()[0]))
        except NotPossibleHereError as error:
            missing(error)
    module = oci.module(command, 1000)
    (tmp_path / "plugin.wasm").write_bytes(module)
    block = block.replace("plugins/guard", f"pushed/{command.split()[0]}")
    # Plain HTTP is for registries that are called localhost.
    said = await run(block, registry.host.replace("127.0.0.1", "localhost"), *tools)
    artifact = await fetcher.fetch_oci(registry.source(f"pushed/{command.split()[0]}:1.0.0"))
    assert artifact.path.read_bytes() == module
    if command.startswith("curl"):
        assert said.strip().endswith(f"pushed/curl@{artifact.digest}")


def test_the_page_has_a_way_for_each_tool():
    """Docker's is a build, which takes a daemon; what it makes is a layer with the module, as crane's.

    What our own tool pushes is in tests/cli/publish.
    """
    pushes = [block for block in BLOCKS if not block.startswith(("cosign sign", "hookline push"))]
    assert len(pushes) == len(COMMANDS) + 1
    assert any("docker push" in block for block in pushes)
