"""docs/start/cluster.md: its commands, on a cluster.

The fixtures have done what its first five do: ``make e2e`` built the images, brought up a cluster and loaded them, and
``installation`` ran ``helm install``. The next three are run as they stand on the page, in a namespace of the test.
What the last two ask through the Service is asked of each of its pods.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from installation import ROOT, Tenant, image

if TYPE_CHECKING:
    from pathlib import Path

_PAGE = (ROOT / "docs" / "start" / "cluster.md").read_text()
_BLOCKS = re.findall(r"^```sh\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line) for block in _BLOCKS for line in block.splitlines()]


@pytest.fixture
def given(tmp_path: Path) -> dict[str, str]:
    """What a command names, and what stands for it here: a module that was just built, an image that the node has."""
    build: list[str | Path] = [sys.executable, ROOT / "examples" / "build.py", "--out", tmp_path]
    subprocess.run([*build, "--only", "api-keys"], check=True, capture_output=True)
    proxy = tmp_path / "proxy.yaml"
    text = (ROOT / "examples" / "kubernetes" / "proxy.yaml").read_text()
    proxy.write_text(text.replace("nginx:1.28", image("nginx")))
    return {
        "--from-file=plugin.wasm=build/plugins/api-keys.wasm": f"--from-file=plugin.wasm={tmp_path / 'api-keys.wasm'}",
        "examples/kubernetes/proxy.yaml": str(proxy),
        "examples/quickstart/wasmplugin.yaml": str(ROOT / "examples" / "quickstart" / "wasmplugin.yaml"),
    }


def test_the_quickstart_guards_a_proxy(tenant: Tenant, given: dict[str, str]) -> None:
    """From the module in a ConfigMap to the answers that the page tells of."""
    verbs = [each[:2] for each in COMMANDS]
    assert verbs == [
        ["make", "plugins"],
        ["python3", "scripts/images.py"],
        ["eval", "$(make cluster | tail -n 1)"],
        ["for", "name"],
        ["helm", "install"],
        ["kubectl", "create"],
        ["kubectl", "apply"],
        ["kubectl", "wait"],
        ["kubectl", "port-forward"],
        ["curl", "-i"],
    ]
    for command in COMMANDS[5:8]:
        tenant.kubectl(*(given.get(each, each) for each in command[1:]))
    assert COMMANDS[8][2:] == ["service/proxy", "8080:80", ">/dev/null", "&"]
    assert COMMANDS[9][2:4] == ["localhost:8080/reports", "-H"]
    name, _, value = COMMANDS[9][4].partition(": ")
    assert tenant.cluster.get("service", "proxy", f"--namespace={tenant.name}")["spec"]["ports"][0]["port"] == 80
    for pod in tenant.rolled_out():
        assert pod.asks("reports", {name: value}) == (200, "hello, reports")
        assert pod.asks("reports")[0] == 403
        assert pod.asks("reports", {name: "another-key"})[0] == 401
