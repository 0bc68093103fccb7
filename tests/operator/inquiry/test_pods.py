"""What a pod's own sidecar says goes before what the status says of all pods.

The sidecar is a real one, with a folder: the commands that kubectl runs in the pod are run beside it.
"""

from __future__ import annotations

import asyncio

import pytest

import sidecars
from kubectl_plugin import KubectlPlugin

guests, new_sidecar = sidecars.guests, sidecars.new_sidecar


@pytest.fixture
def in_the_pod(control_plane, new_sidecar, guests, tmp_path):
    """``kubectl hookline``, where each pod has a sidecar that runs one plugin, and cannot fetch the other."""
    made = new_sidecar(workers=1)
    made.folder.plugin("guard", guests.saying("hello"))
    made.folder.plugin("other")
    made.start(wait=False)
    made.wait_plugin("guard", state="Running")
    return KubectlPlugin(tmp_path / "bin", control_plane.kubeconfig, state=made.state)


async def test_the_pods_own_sidecar_is_asked(operator, in_the_pod, tenant, module, connect, eventually):
    """Its times are there, and what it cannot do is told with its name, though the status says that all is well."""
    tenant.pod("web")
    for name in ("guard", "other"):
        tenant.plugin(name, tenant.module(name, module(name)))
    sidecar = await connect(operator, tenant, "web")
    await sidecar.until(lambda: len(sidecar.runs()) == 2)
    for name in ("guard", "other"):
        await eventually(lambda name=name: tenant.ready(name) == ("True", "Ready"), f"{name} is Ready")

    async def said(*arguments):
        return await asyncio.to_thread(in_the_pod, *arguments, "-n", tenant.name, "--json")

    found = await said("why", "guard", "web")
    assert found.code == 0, found
    assert found.stage("compile")["seconds"] > 0
    assert found.stage("switch")["at"].endswith("Z")
    assert found.json["pod"] == "web"
    assert found.json["revisions"][0]["digest"].startswith("sha256:")
    assert [each["reason"] for each in found.json["events"]]
    found = await said("why", "other", "web")
    assert (found.code, found.json["stoppedAt"]) == (1, "pull"), found
    assert found.json["message"].startswith("pod 'web': the file other.wasm cannot be read")
    found = await said("status", "guard")
    (pod,) = found.json["pods"]
    assert (pod["pod"], pod["plugin"]["state"]) == ("web", "Running")
