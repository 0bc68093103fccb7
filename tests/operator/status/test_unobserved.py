"""A status that cannot be written is written once it can, and one that nobody looks after says so."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.kube import KubeError
from hookline_operator.lead.heartbeat import keep_confirming
from hookline_operator.lead.unwritten import Unwritten
from hookline_operator.metrics import Metrics

CRDS = Path(__file__).parents[3] / "crds"


@pytest.fixture
def whole(control_plane, crd):
    """Whatever a test does to the definitions, the next one finds them whole."""
    yield
    for each in sorted(CRDS.glob("*.yaml")):
        control_plane.install_crd(each)


async def test_a_status_is_written_once_the_definition_has_its_subresource_again(
    operator, guarded, tenant, module, control_plane, eventually, whole
):
    """Without it the API server answers as if the plugin were gone; nobody has to touch the resource for the mend."""
    sidecar = await guarded(operator)
    before = sidecar.runs()
    gone = [{"op": "remove", "path": "/spec/versions/0/subresources"}]
    control_plane.kubectl("patch", "crd", "wasmplugins.hookline.dev", "--type=json", "-p", json.dumps(gone))
    said = (
        f"the status of plugin '{tenant.name}/guard' cannot be written: WasmPlugins have no status subresource: apply "
        "the chart's CustomResourceDefinitions (crds/)"
    )
    tenant.plugin("guard", tenant.module("two", module("v2")))
    await sidecar.until(lambda: sidecar.runs() != before)
    await eventually(lambda: said in operator.log.read_text(), "a line")
    tries = 'hookline_operator_status_failures_total{reason="no_subresource"}'
    await eventually(lambda: operator.metrics().get(tries, 0) > 1, "another try")
    assert operator.metrics()["hookline_operator_statuses_unwritten"] > 0
    control_plane.install_crd(CRDS / "hookline.dev_wasmplugins.yaml")
    began = time.monotonic()
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    sys.stdout.write(f"written after: {time.monotonic() - began:.1f} s\n")
    await eventually(lambda: operator.metrics()["hookline_operator_statuses_unwritten"] == 0, "nothing left")
    assert operator.log.read_text().count(said) == 1


async def test_a_definition_of_the_version_before_gets_what_it_takes_and_that_once(
    operator, tenant, module, control_plane, eventually, whole
):
    """Fewer fields and eight conditions, or it takes nothing at all; and no look is a reason to write that again."""
    at = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties"
    older = [
        {"op": "replace", "path": f"{at}/conditions/maxItems", "value": 8},
        {"op": "remove", "path": f"{at}/pods/properties/unguarded"},
        {"op": "remove", "path": f"{at}/failures/items/properties/hook"},
        {"op": "remove", "path": f"{at}/rolledBack"},
    ]
    control_plane.kubectl("patch", "crd", "wasmplugins.hookline.dev", "--type=json", "-p", json.dumps(older))
    tenant.plugin("guard", tenant.module("one", module("v1")), selector={"matchLabels": {"app": "none"}})
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "a status")
    assert "Observed" not in tenant.status("guard")["conditions"]

    def said() -> int:
        return operator.log.read_text().count("apply the chart's CustomResourceDefinitions")

    await eventually(said, "a line")  # the status stands there before the operator knows of it
    writes = 'hookline_operator_api_writes_total{kind="status"}'
    tenant.plugin("other", tenant.module("two", module("v2")), selector={"matchLabels": {"app": "none"}})
    await eventually(lambda: tenant.ready("other") == ("Unknown", "NoMatchingPods"), "another's status")
    before = operator.metrics()[writes]
    for name in ("a", "b", "c"):  # each of which is a look at both
        tenant.pod(name, labels={"app": "web"})
    tenant.plugin("third", tenant.module("three", module("v3")), selector={"matchLabels": {"app": "none"}})
    await eventually(lambda: tenant.ready("third") == ("Unknown", "NoMatchingPods"), "one that came later")
    assert operator.metrics()[writes] - before <= 3  # of the third alone
    assert said() == 1


async def test_the_last_operator_leaves_no_status_that_says_true(
    operator, guarded, tenant, connect, control_plane, eventually
):
    """Who comes back puts it right, and makes no Event of its own absence."""
    await guarded(operator)
    ready = tenant.status("guard")["conditions"]["Ready"]

    def events():
        found = control_plane.get("events", f"--namespace={tenant.name}")["items"]
        mine = [each for each in found if each["involvedObject"]["name"] == "guard"]
        return sorted((each["metadata"]["name"], each["reason"]) for each in mine)

    operator.stop()
    told = events()  # once none is on its way any more
    assert not [reason for _, reason in told if reason in {"NotObserved", "Unknown"}]
    left = tenant.status("guard")["conditions"]
    assert (left["Ready"]["status"], left["Ready"]["reason"]) == ("Unknown", "NotObserved")
    assert f"True ({ready['reason']}): {ready['message']}" in left["Ready"]["message"]
    assert left["Observed"]["status"] == "False"
    operator.start()
    await connect(operator, tenant, "a")
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    again = tenant.status("guard")["conditions"]
    assert again["Ready"]["message"] == ready["message"]
    assert (again["Observed"]["status"], again["Observed"]["reason"]) == ("True", "Watched")
    assert events() == told


async def test_a_leader_with_another_replica_behind_it_marks_nothing(
    new_operator, tenant, module, eventually, control_plane
):
    """The other one leads at once, and what was true is true still."""
    operators = [each.start() for each in (new_operator(), new_operator())]

    def leading():
        return [each for each in operators if each.metrics()["hookline_operator_leader"] == 1]

    (first,) = await eventually(leading, "leader")
    (second,) = (each for each in operators if each is not first)
    await eventually(lambda: f"connected to the leader {first.name}" in second.log.read_text(), "a follower")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await eventually(lambda: tenant.ready("guard"), "a status")
    before = tenant.status("guard")["conditions"]["Ready"]
    first.stop()
    assert tenant.status("guard")["conditions"]["Ready"] == before
    assert "no other replica runs" not in first.log.read_text()
    operators.remove(first)
    await eventually(leading, "another leader")


async def test_a_status_that_does_not_change_is_confirmed_now_and_then(new_operator, tenant, module, eventually):
    """Only the time of its condition Observed moves."""
    often = "from hookline_operator.lead.heartbeat import keep_confirming as k; k.__kwdefaults__['visit_s'] = 1.0"
    new_operator(first=often).start()
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await eventually(lambda: (tenant.status("guard").get("conditions") or {}).get("Observed"), "a heartbeat")
    await eventually(lambda: tenant.ready("guard")[1] != "Pending", "the end of it")
    first = tenant.status("guard")

    def later():
        now = tenant.status("guard")
        moved = now["conditions"]["Observed"].pop("lastTransitionTime")
        return now if moved > first["conditions"]["Observed"]["lastTransitionTime"] else None

    second = await eventually(later, "another")
    del first["conditions"]["Observed"]["lastTransitionTime"]
    assert second == first


class _EnoughError(Exception):
    """The test has seen what it wanted."""


async def test_who_does_not_see_confirms_nothing():
    """Of what is not known it cannot be said that it is true."""
    catalogue, asked = Catalogue(), []
    for name in ("a", "b"):
        metadata = {"namespace": "shop", "name": name, "uid": name, "generation": 1}
        catalogue.put_plugin({"metadata": metadata, "spec": {}}, gone=False)
    looks = iter([False, False, True, True])

    def confirm(plugin):
        asked.append(plugin.name)
        if len(asked) == 2:
            raise _EnoughError

    with pytest.raises(_EnoughError):
        await keep_confirming(catalogue, confirm, lambda: next(looks), visit_s=0.01)
    assert asked == ["a", "b"]


async def test_a_404_means_gone_only_where_the_plugin_is(caplog):
    """And where that cannot be asked either, it is tried again."""
    found = {"a": {"metadata": {"name": "a"}}}

    class Kube:
        async def find(self, _where, name, **_):
            if name == "c":
                raise KubeError(403, "no")
            return found.get(name)

    unwritten, error = Unwritten(Kube(), Metrics()), KubeError(404, "the server could not find the requested resource")
    assert "no status subresource" in str(await unwritten.explain(("shop", "a"), error))
    assert await unwritten.explain(("shop", "b"), KubeError(404, "not found")) is None
    for name, refusal in (("c", KubeError(404, "not found")), ("b", KubeError(409, "conflict"))):
        assert await unwritten.explain(("shop", name), refusal) is refusal


def test_what_keeps_all_statuses_from_being_written_fills_no_log(caplog):
    """A line each for some of them, one for all the others, and one again for each state."""
    unwritten = Unwritten(None, Metrics())
    for _ in range(3):
        for number in range(100):
            unwritten.put(("shop", f"p{number}"), KubeError(403, "forbidden"))
    assert len(caplog.records) == 11


def test_a_refusal_that_a_person_has_to_end_is_worth_an_event_once():
    """And again once it was written in between; what may pass by itself is worth none."""
    unwritten = Unwritten(None, Metrics())
    key = ("shop", "guard")
    assert unwritten.put(key, KubeError(500, "etcd is away")) == ""
    said = unwritten.put(key, KubeError(403, "guard is forbidden"))
    assert "guard is forbidden; give the operator back the rights of its chart: helm upgrade" in said
    assert unwritten.put(key, KubeError(403, "guard is forbidden")) == ""
    unwritten.written(key)
    assert unwritten.put(key, KubeError(403, "x" * 5000)) != ""
    unwritten.written(key)
    assert unwritten.put(key, KubeError(404, "no status subresource: apply …")).endswith("apply …")
