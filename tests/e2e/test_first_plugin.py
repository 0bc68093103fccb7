"""docs/first-plugin.md on a cluster: what its commands push and apply decides in a proxy's pod."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from installation import HOOKS, Tenant
from kubectl_plugin import KubectlPlugin

PAGE = (Path(__file__).parents[2] / "docs" / "first-plugin.md").read_text()


def commands(heading):
    """Those under a heading, one a line."""
    section = re.split(rf"^## {heading}$", PAGE, flags=re.MULTILINE)[1].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture
def terminal(tmp_path):
    """Runs a command of the page in the project's folder; what it prints."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def run(line):
        folder = tmp_path / "my-guard"
        where = folder if folder.exists() else tmp_path
        done = subprocess.run(
            ["sh", "-c", line], cwd=where, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


def test_the_first_plugin_comes_from_a_registry_into_a_pod(installation, registry, terminal, tmp_path):
    """Made in C, pushed, judged, applied, explained; and the proxy's hook gets its decision."""
    for line in commands("C"):
        if not line.startswith("cd "):
            terminal(line)
    push, inspect = (line.replace("registry.example.com", registry.host) for line in commands("Push it"))
    assert "sha256:" in terminal(f"{push} --insecure")
    assert "pre_query" in terminal(f"{inspect} --insecure")
    manifest = tmp_path / "my-guard" / "wasmplugin.yaml"
    document = yaml.safe_load(manifest.read_text())
    document["spec"]["source"]["oci"] = {"reference": push.split()[-1], "insecure": True}
    manifest.write_text(yaml.safe_dump(document))
    check, apply, why = commands("Apply it")
    terminal(check)
    with installation.cluster.namespace("first-plugin") as name:
        tenant = Tenant(installation.cluster, name).prepare()
        (pod,) = tenant.proxies(1, settings=HOOKS)
        assert apply == "kubectl apply -f wasmplugin.yaml"
        tenant.kubectl("apply", "-f", str(manifest))
        tenant.ready("my-guard")
        hookline = KubectlPlugin(tmp_path / "bin", installation.cluster.kubeconfig)
        explained = hookline(*why.removeprefix("kubectl hookline ").split(), "-n", name)
        assert explained.code == 0, explained.out + explained.err
        decision = pod.hook("pre_query", {"query": "SELECT 1", "tables": ["salaries"]})
        assert decision["value"] == "salaries is not for you"
        assert decision["plugin"] == "my-guard"
