"""Several replicas, restarts, an API server that is away: what runs goes on, and the status comes true again."""

from __future__ import annotations

import asyncio
import base64
import signal
import time

import pytest

from hookline_operator.cluster.kube import Kube
from hookline_operator.cluster.sealing import SealingKey


def leader(operators):
    """Which one leads."""
    return next((each for each in operators if each.metrics()["hookline_operator_leader"] == 1), None)


@pytest.fixture
def two(new_operator, eventually):
    """Two replicas, and which of them leads and follows."""

    async def start():
        operators = [new_operator().start(), new_operator().start()]
        first = await eventually(lambda: leader(operators), "leader")
        return first, next(each for each in operators if each is not first)

    return start


async def test_a_pod_that_is_connected_to_a_follower_is_counted_and_waited_for(
    two, tenant, module, connect, eventually
):
    """The leader hears of it, and says when it may switch; its blob comes through the follower."""
    first, second = await two()
    tenant.pod("a")
    tenant.pod("b")
    at_leader, at_follower = await connect(first, tenant, "a"), await connect(second, tenant, "b")
    tenant.plugin("guard", tenant.module("one", module("v1")), rollout={"deadline": "1h"})
    for sidecar in (at_leader, at_follower):
        await sidecar.until(sidecar.runs)
    await eventually(lambda: tenant.status("guard").get("loaded") == "2/2", "2/2")
    assert len(at_follower.blobs) == 1
    before = at_leader.runs()
    at_follower.stuck = True
    tenant.plugin("guard", tenant.module("two", module("v2")), rollout={"deadline": "1h"})
    await at_leader.until(lambda: at_leader.held is not None)
    await at_follower.until(lambda: at_follower.held is not None)
    assert at_leader.runs() == before
    at_follower.stuck = False
    await at_follower.take_held()
    for sidecar in (at_leader, at_follower):
        await sidecar.until(lambda sidecar=sidecar: sidecar.runs() and sidecar.runs() != before)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
async def test_another_takes_over_and_no_connection_is_lost(
    two, guarded, tenant, module, eventually, how, record_property
):
    """A leader that is killed is replaced when its Lease ends, one that is stopped at once."""
    first, second = await two()
    sidecar = await guarded(second)
    status = tenant.get("guard")["status"]
    bundles, began = sidecar.bundles, time.monotonic()
    first.stop(how)
    tenant.plugin("guard", tenant.module("two", module("v2")))
    await sidecar.until(lambda: sidecar.running.bundle.plugins and sidecar.bundles > bundles)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    record_property("seconds", round(time.monotonic() - began, 1))
    assert sidecar.connected.is_set()
    conditions = {each["type"]: each for each in status["conditions"]}
    assert tenant.status("guard")["conditions"]["Stalled"] == conditions["Stalled"] | {"observedGeneration": 2}


async def test_a_restart_asks_no_registry(new_operator, tenant, module, need, tmp_path, connect, eventually):
    """What is in the API is enough: also for a pod that starts while the registry is away."""
    from local_registry import LocalRegistry

    registry = LocalRegistry(need("docker-registry", "docker-registry"), tmp_path / "registry")
    registry.start()
    registry.push("a:v1", module("v1"))
    operator = new_operator().start()
    try:
        tenant.pod("a")
        first = await connect(operator, tenant, "a")
        tenant.plugin("guard", {"oci": {"reference": f"{registry.host}/a:v1", "insecure": True}})
        await first.until(first.runs)
        await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    finally:
        registry.stop()
    operator.stop()
    operator.start()
    await eventually(lambda: leader([operator]), "leader")
    again = await connect(operator, tenant, "a", running=first.running)
    await again.until(lambda: again.bundles)
    assert again.runs() == first.runs()
    tenant.pod("b")
    new = await connect(operator, tenant, "b")
    await new.until(new.runs)
    assert new.blobs == first.blobs  # from the cache on the operator's disk
    await eventually(lambda: tenant.status("guard").get("loaded") == "2/2", "2/2")


async def test_a_restart_after_a_crash_writes_nothing(new_operator, guarded, tenant, connect, eventually):
    """What is true already is not written again; an operator that ends in order says that nobody looks any more."""
    operator = new_operator(f"--namespace={tenant.name}").start()  # other tests' plugins are on their way out
    first = await guarded(operator)
    before = tenant.get("guard")["metadata"]["resourceVersion"]
    operator.stop(signal.SIGKILL)
    operator.start()
    await eventually(lambda: leader([operator]), "leader")
    again = await connect(operator, tenant, "a", running=first.running)
    await again.until(lambda: again.bundles)
    await asyncio.sleep(15)  # longer than a new leader waits for its sidecars
    assert tenant.get("guard")["metadata"]["resourceVersion"] == before
    writes = {name: value for name, value in operator.metrics().items() if "api_writes_total" in name}
    assert not any(writes.values()), writes


async def test_with_the_api_server_away_what_runs_goes_on_and_what_changed_meanwhile_comes(
    operator, guarded, tenant, module, control_plane, eventually
):
    """Connections stay; what is applied afterwards is handed out; what was deleted just before is noticed."""
    sidecar = await guarded(operator)  # nothing of it is still to come
    before, bundles = sidecar.runs(), sidecar.bundles
    control_plane.stop_apiserver()
    try:
        await asyncio.sleep(3)
        assert sidecar.connected.is_set()
        assert (sidecar.runs(), sidecar.bundles) == (before, bundles)
    finally:
        control_plane.start_apiserver()
    tenant.plugin("guard", tenant.module("two", module("v2")))
    await sidecar.until(lambda: sidecar.runs() != before)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    assert operator.process.poll() is None


async def test_a_single_namespace_is_all_that_such_an_operator_sees(
    new_operator, new_tenant, module, connect, eventually
):
    """Nothing of another's plugins is read or written."""
    mine, other = new_tenant(), new_tenant()
    operator = new_operator(f"--namespace={mine.name}").start()
    for tenant in (mine, other):
        tenant.plugin("guard", tenant.module("one", module("v1")))
        tenant.pod("a")
    sidecar = await connect(operator, mine, "a")
    await sidecar.until(sidecar.runs)
    await eventually(lambda: mine.ready("guard") == ("True", "Ready"), "Ready")
    assert other.status("guard")["conditions"] == {}


async def test_status_writes_are_bounded_whatever_the_pods_do(new_operator, tenant, module, connect, eventually):
    """At most one a second and plugin: forty changes of readiness are a handful of writes."""
    operator = new_operator(f"--namespace={tenant.name}").start()
    tenant.plugin("guard", tenant.module("one", module("v1")))
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    await sidecar.until(sidecar.runs)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    name = 'hookline_operator_api_writes_total{kind="status"}'
    before, began = operator.metrics()[name], time.monotonic()
    for number in range(40):
        tenant.set_ready("a", ready=bool(number % 2))
    await asyncio.sleep(2)
    writes = operator.metrics()[name] - before
    assert writes <= time.monotonic() - began + 1
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")


async def test_all_replicas_seal_with_one_key(two, tenant, module, connect, eventually):
    """So they come to the same revisions; and an older sidecar, which knows no seals, is understood all the same."""
    first, second = await two()
    for name in ("a", "b", "old"):
        tenant.pod(name)
    value = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"pin": "1234"}}
    tenant.apply(value)
    tenant.plugin("guard", tenant.module("one", module("v1")),
                  configFrom=[{"secretRef": {"name": "s"}, "key": "pin", "path": "pin"}])  # fmt: skip
    sidecars = [await connect(first, tenant, "a"), await connect(second, tenant, "b")]
    for sidecar in sidecars:
        await sidecar.until(sidecar.runs)
    assert sidecars[0].runs() == sidecars[1].runs()
    sidecars.append(await connect(second, tenant, "old", knows_seals=False))
    await sidecars[2].until(sidecars[2].runs)
    assert sidecars[2].runs() != sidecars[0].runs()
    await eventually(lambda: tenant.status("guard").get("loaded") == "3/3", "3/3")
    key = tenant.plane.get("secret", "hookline-operator-key", f"--namespace={first.home}")
    assert len(base64.b64decode(key["data"]["seal.key"])) == 32


async def test_a_key_that_is_lost_comes_back_and_another_is_taken_over(control_plane, tenant):
    """Whoever starts first makes it; nobody ends up with one of its own."""
    kube = await Kube.connect(control_plane.kubeconfig)
    changed = []

    def keeper():
        made = SealingKey(kube, namespace=tenant.name, secret="key")
        made.changed.append(lambda: changed.append(1))
        return made

    try:
        keepers = [keeper() for _ in range(6)]
        await asyncio.gather(*(each.sync() for each in keepers))
        (key,) = {each.value for each in keepers}
        await asyncio.to_thread(control_plane.kubectl, "delete", "secret", "key", f"--namespace={tenant.name}")
        await keepers[0].sync()
        late = keeper()
        await late.sync()
        assert late.value == key
        assert changed == []
        other = base64.b64encode(b"o" * 32).decode()
        patch = '{"data":{"seal.key":"%s"}}' % other  # noqa: UP031
        kubectl = ("patch", "secret", "key", f"--namespace={tenant.name}", "--type=merge", "-p")
        await asyncio.to_thread(control_plane.kubectl, *kubectl, patch)
        await late.sync()
        assert (late.value, changed) == (b"o" * 32, [1])
        await asyncio.to_thread(control_plane.kubectl, *kubectl, patch.replace(other, "c2hvcnQ="))
        await late.sync()
        await keepers[0].sync()
        assert keepers[0].value == b"o" * 32
    finally:
        await kube.close()


async def test_who_leaves_tells_of_the_authority_that_its_successor_made(new_operator, tenant, connect, control_plane):
    """The Secret was lost: sidecars that know the old authority alone could not connect to anybody afterwards."""
    first = new_operator().start()
    tenant.pod("a")
    sidecar = await connect(first, tenant, "a")
    await sidecar.until(lambda: sidecar.authority is not None)
    known = sidecar.authority.bundle
    control_plane.kubectl("delete", "secret", "hookline-operator-tls", f"--namespace={first.home}")
    await asyncio.to_thread(new_operator().start)
    await asyncio.to_thread(first.stop)
    await sidecar.until(lambda: sidecar.closed_with is not None)
    published = control_plane.get("configmap", "hookline-ca", f"--namespace={first.home}")["data"]["ca.crt"]
    assert published != known
    assert sidecar.authority.bundle == published
