"""docs/operate/backup.md: what is kept is enough, and what happens without the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import ClusterError

ROOT = Path(__file__).parents[3]
SECRETS = ("hookline-operator-tls", "hookline-operator-key")


@pytest.fixture
def backup(tenant, tmp_path):
    """Exports what the page says, with the page's commands; puts it back with the page's script."""

    class Backup:
        def take(self, home):
            namespace = f"--namespace={tenant.name}"
            found = {
                "wasmplugins": tenant.plane.kubectl("get", "wasmplugins", namespace, "--output=json"),
                "secrets": tenant.plane.kubectl("get", "secret", *SECRETS, f"--namespace={home}", "--output=json"),
            }
            for name, text in found.items():
                (tmp_path / f"{name}.json").write_text(text)

        def put_back(self, what, *, without=()):
            script = ROOT / "scripts" / "restorable.py"
            done = subprocess.run(
                [sys.executable, script, tmp_path / f"{what}.json"], capture_output=True, text=True, check=True
            )
            items = json.loads(done.stdout)["items"]
            if wanted := [each for each in items if each["metadata"]["name"] not in without]:
                tenant.plane.apply(*wanted)

    return Backup()


def lose(tenant, home, *, revisions=True):
    """Delete what an uninstallation and a lost namespace take with them; wait until it has gone."""
    tenant.plane.kubectl("delete", "wasmplugin", "--all", f"--namespace={tenant.name}")
    if revisions:
        tenant.plane.kubectl("delete", "wasmpluginrevisions", "--all", f"--namespace={tenant.name}")
    tenant.plane.kubectl("delete", "secret", *SECRETS, f"--namespace={home}")
    tenant.plane.kubectl("delete", "configmap", "hookline-ca", f"--namespace={home}")


def authority(tenant, home):
    """What the operator publishes; None where there is none."""
    try:
        return tenant.plane.get("configmap", "hookline-ca", f"--namespace={home}")["data"]["ca.crt"]
    except ClusterError:
        return None


@pytest.mark.parametrize("without", [(), SECRETS], ids=["whole", "without the Secrets"])
async def test_what_was_kept_is_put_back(new_operator, backup, tenant, module, connect, eventually, without):
    """Plugins are Ready as before, where nothing was left; with the Secrets, sidecars know the operator again."""
    first = new_operator().start()
    tenant.pod("a")
    sidecar = await connect(first, tenant, "a")
    source = tenant.module("one", module("v1"))
    tenant.plugin("guard", source, priority=7)
    await sidecar.until(sidecar.runs)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    ran, trusted = sidecar.runs(), authority(tenant, first.home)
    backup.take(first.home)
    first.stop()
    lose(tenant, first.home)

    backup.put_back("secrets", without=without)
    second = new_operator().start()
    backup.put_back("wasmplugins")
    again = await connect(second, tenant, "a")
    await again.until(again.runs)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready again")
    assert again.runs() == ran
    assert tenant.get("guard")["spec"]["priority"] == 7
    assert (authority(tenant, second.home) == trusted) is (not without)


async def test_without_key_and_status_it_is_resolved_anew(new_operator, tenant, module, connect, eventually):
    """Nobody vouches for what was kept, so it is not believed, and the same comes of it."""
    first = new_operator().start()
    tenant.pod("a")
    sidecar = await connect(first, tenant, "a")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await sidecar.until(sidecar.runs)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    ran, (kept,) = sidecar.runs(), tenant.revisions()
    first.stop()
    tenant.plane.kubectl("delete", "secret", SECRETS[1], f"--namespace={first.home}")
    tenant.plane.kubectl("patch", "wasmplugin", "guard", f"--namespace={tenant.name}", "--subresource=status",
                         "--type=merge", "-p", json.dumps({"status": None}))  # fmt: skip
    second = new_operator().start()
    again = await connect(second, tenant, "a")
    await again.until(again.runs)
    assert again.runs() == ran
    await eventually(lambda: [each["seal"] != kept["seal"] for each in tenant.revisions()] == [True], "the new seal")
    assert second.metrics()["hookline_operator_revisions_refused"] >= 1
    await eventually(lambda: "has no seal of this operator's key" in second.log.read_text(), "a line")
