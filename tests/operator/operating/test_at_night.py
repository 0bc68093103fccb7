"""What goes wrong at night, and what tired people do: it comes true again by itself, and the log says it once."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import aiohttp
import pytest

from hookline_api.distribution import PluginReport, Report
from hookline_artifacts.errors import FetchError
from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.revisions import Revision, Seal, body_of
from hookline_operator.serve.bundles import Bundles
from hookline_operator.serve.fleet import Fleet, PodState

CRDS = Path(__file__).parents[3] / "crds"


@pytest.mark.parametrize("kind", ["WasmPlugin", "WasmPluginRevision"])
async def test_an_operator_that_starts_before_the_definition_serves_what_comes_later(
    new_operator, tenant, module, control_plane, eventually, kind
):
    """It waits, /readyz and one line of the log say for what, and then it sees every plugin."""
    operator = new_operator()
    name = f"{kind.lower()}s"
    control_plane.kubectl("delete", "crd", f"{name}.hookline.dev")
    try:
        operator.start(wait=False)
        wanted = f"the API server does not know {kind}s: apply the chart's CustomResourceDefinitions (crds/)"
        await eventually(lambda: wanted in operator.log.read_text(), "word of what is missing")
        await eventually(lambda: wanted in (operator.not_ready() or []), "the reason")
        await asyncio.sleep(4)
        assert wanted in operator.not_ready()
    finally:
        control_plane.install_crd(CRDS / f"hookline.dev_{name}.yaml")
    await eventually(operator.ready, "readiness")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "Ready")
    assert operator.log.read_text().count(wanted) == 1


async def test_a_status_that_somebody_wrote_over_comes_true_again(operator, guarded, tenant, control_plane, eventually):
    """Also right after the operator wrote it itself."""
    await guarded(operator)
    for _ in range(3):
        control_plane.kubectl(
            "patch", "wasmplugin", "guard", f"--namespace={tenant.name}", "--subresource=status", "--type=merge",
            "-p", json.dumps({"status": {"loaded": "7/7"}}),
        )  # fmt: skip
        await eventually(lambda: tenant.status("guard")["loaded"] == "1/1", "the truth")


async def test_rights_that_are_missing_are_said_once_and_what_waited_for_them_is_done(
    operator, guarded, tenant, module, control_plane, eventually
):
    """Nothing has to be restarted when somebody gives them back."""
    sidecar = await guarded(operator)
    before, binding = sidecar.runs(), control_plane.get("clusterrolebinding", "hookline-operator")
    control_plane.kubectl("delete", "clusterrolebinding", "hookline-operator")
    tenant.plugin("guard", tenant.module("two", module("v2")))
    lost = f"the status of plugin '{tenant.name}/guard'"  # others of other tests may be on their way out
    await eventually(lambda: lost in operator.log.read_text(), "word of the lost right")
    await asyncio.sleep(8)
    assert operator.log.read_text().count(lost) == 1
    assert sidecar.runs() == before
    binding["metadata"] = {"name": "hookline-operator"}
    control_plane.apply(binding)
    await sidecar.until(lambda: sidecar.runs() != before)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")


async def test_a_leader_that_stood_still_leads_no_longer(
    new_operator, tenant, module, connect, eventually, control_plane
):
    """Longer than its Lease lasts: once it goes on, it sees that another leads, and stops before its own tries end."""
    operators = {each.name: each.start() for each in (new_operator(), new_operator())}

    def leading():
        return [each for each in operators.values() if each.metrics()["hookline_operator_leader"] == 1]

    (first,) = await eventually(leading, "leader")
    (second,) = (each for each in operators.values() if each is not first)
    tenant.pod("a")
    sidecar = await connect(second, tenant, "a")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await sidecar.until(sidecar.runs)
    before = sidecar.runs()
    first.process.send_signal(signal.SIGSTOP)
    try:
        await eventually(lambda: second.metrics()["hookline_operator_leader"] == 1, "another leader")
        tenant.plugin("guard", tenant.module("two", module("v2")))
        await sidecar.until(lambda: sidecar.runs() != before)
        await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    finally:
        first.process.send_signal(signal.SIGCONT)
    told = f"({first.name}) no longer leads"  # by the Lease, or by its own clock, whichever it comes to first
    await eventually(lambda: told in first.log.read_text(), "end of the old term")
    await eventually(lambda: leading() == [second], "one leader")
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")


async def test_a_sidecar_of_a_namespace_that_is_not_watched_is_told_so(
    new_operator, new_tenant, connect, control_plane
):
    """With 403, as docs/operate/sidecar.md has it: asking again would not help."""
    mine, other = new_tenant(), new_tenant()
    operator = new_operator(f"--namespace={mine.name}").start()
    control_plane.kubectl("delete", "clusterrolebinding", "hookline-operator")
    other.pod("a")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await connect(operator, other, "a")
    assert refused.value.status == 403


def test_the_late_end_of_a_plugin_does_not_take_its_successor_along():
    """Deleted and made again under the same name: the two objects' events come in no certain order."""
    catalogue = Catalogue()
    old, new = _plugin(uid="1"), _plugin(uid="2")
    catalogue.put_plugin(old, gone=False)
    catalogue.put_plugin(new, gone=False)
    catalogue.put_plugin(old, gone=True)
    known = catalogue.plugin(("shop", "guard"))
    assert known is not None
    assert known.uid == "2"
    catalogue.put_plugin(new, gone=True)
    assert catalogue.plugin(("shop", "guard")) is None


def test_a_connection_that_died_unnoticed_does_not_hide_the_one_that_a_pod_has_now():
    """Neither by what its replica goes on to say of it, nor by its end."""
    fleet = Fleet()
    fleet.put(_state("old"), replica="follower")
    fleet.put(_state("new"))
    fleet.put(_state("old"), replica="follower")
    assert fleet.states["pod"].runs("guard") == "new"
    fleet.drop("pod", replica="follower")
    assert fleet.states["pod"].runs("guard") == "new"
    assert fleet.of_replica("follower") == {}
    fleet.put(_state("newest"), replica="follower")
    fleet.drop("pod")
    assert fleet.states["pod"].runs("guard") == "newest"
    fleet.drop_replica("follower")
    assert fleet.states == {}


async def test_a_secret_that_cannot_be_read_is_asked_for_once_and_not_by_every_pod():
    """An API server in trouble has enough to do."""
    asked = []

    class NoSecrets:
        async def secret(self, _namespace, name):
            asked.append(name)
            raise FetchError("the API server is in trouble")

        config_map = secret

    catalogue = Catalogue()
    catalogue.put_version("Secret", ("shop", "limits"), "5")
    plugin = _plugin(uid="1", configFrom=[{"secretRef": {"name": "limits"}, "key": "k", "path": "p"}])
    catalogue.put_plugin(plugin, gone=False)
    artifact = {"digest": f"sha256:{'0' * 64}", "sha256": "0" * 64, "size": 8, "layout": "raw", "reference": "one"}
    data = {
        "plugin": "guard", "spec": plugin["spec"], "artifact": artifact, "hooks": ["authenticate"], "imports": [],
        "inputs": {"Secret/limits": "5"},
    }  # fmt: skip
    body = body_of(
        namespace="shop", plugin="guard", uid="1", number=1, template=json.dumps(data).encode(), seal=Seal()
    )  # fmt: skip
    catalogue.put_revision(("shop", "guard-1"), None, Revision.of(body, Seal()))
    bundles = Bundles(catalogue, NoSecrets(), key=lambda: b"k" * 32)
    known = catalogue.plugin(("shop", "guard"))
    offers = [await bundles.offer(known) for _ in range(20)]
    assert asked == ["limits"]
    assert "in trouble" in offers[-1].entry.failure.message


def _plugin(*, uid, **spec):
    metadata = {"namespace": "shop", "name": "guard", "uid": uid, "generation": 1}
    return {"metadata": metadata, "spec": {"source": {"configMap": {"name": "one"}}, **spec}}


def _state(revision):
    report = Report(plugins=[PluginReport(name="guard", state="Running", revision=revision)])
    return PodState(uid="pod", namespace="shop", name="web", report=report)
