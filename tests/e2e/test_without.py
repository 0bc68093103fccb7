"""Without the operator, the API server, the registry, all of them, or the whole release: the hooks go on.

These come last: they break what the others use. Each mends it again, but for the last one.
"""

from __future__ import annotations

import contextlib
import time

import pytest

from cluster import ClusterError
from installation import HOME, Load, identity_module, kill_container, record, until

TAKEOVER_S = 30
"""Promised; asserted with as much again, since other work on this machine has no part in the promise."""


@contextlib.contextmanager
def without_operator(installation, registry):
    """All replicas die, and none comes back."""
    del registry
    scale = ("scale", "deployment/hookline-operator", f"--namespace={HOME}")
    names = [pod["metadata"]["name"] for pod in installation.replicas()]
    try:
        installation.cluster.kubectl(*scale, "--replicas=0")
        installation.kill(*names)
        until(lambda: not installation.replicas(), "no operator")
        yield
    finally:
        installation.cluster.kubectl(*scale, "--replicas=2")


@contextlib.contextmanager
def without_apiserver(installation, registry):
    """Killed."""
    del registry
    installation.cluster.stop_apiserver()
    try:
        yield
    finally:
        installation.cluster.start_apiserver()


@contextlib.contextmanager
def without_registry(installation, registry):
    """Stopped."""
    del installation
    registry.stop()
    try:
        yield
    finally:
        registry.start()


@contextlib.contextmanager
def without_all(installation, registry):
    """Nothing is left but the node."""
    with (
        without_registry(installation, registry),
        without_operator(installation, registry),
        without_apiserver(installation, registry),
    ):
        yield


OUTAGES = {
    "operator": without_operator,
    "apiserver": without_apiserver,
    "registry": without_registry,
    "all": without_all,
}


@pytest.mark.parametrize("what", OUTAGES)
def test_hooks_go_on_and_sidecars_start_without(installation, tenant, registry, what):
    """No request fails; a sidecar that is killed meanwhile comes back with what it ran; then changes arrive again."""
    for name in ("v1", "v2"):
        registry.push(f"without-{what}:{name}", identity_module(name))
    tenant.plugin("guard", f"{registry.host}/without-{what}:v1")
    steady, killed = tenant.proxies(2)
    tenant.ready("guard")
    with Load([steady], rate=50) as load:
        with OUTAGES[what](installation, registry):
            killed.kill_sidecar()
            until(lambda: killed.asks()[0] != 200, "nothing passes while nobody answers")
            until(lambda: killed.asks() == (200, "hello, v1"), "the last good bundle runs again")
            down = len(load.answers)
            until(lambda: len(load.answers) > down + 100, "two more seconds of answers")
        installation.rolled_out()
        tenant.plugin("guard", f"{registry.host}/without-{what}:v2")
        tenant.ready("guard")
    assert load.bad("v1", "v2") == []
    assert {pod.asks() for pod in (steady, killed)} == {(200, "hello, v2")}
    assert steady.restarts() == 0
    until(lambda: killed.restarts() == 1, "the kubelet tells of the one restart")


def test_another_replica_leads_within_thirty_seconds(installation, tenant, registry):
    """From the leader's death to a change that every pod runs; the pods that were connected to it answer throughout."""
    for name in ("v1", "v2"):
        registry.push(f"takeover:{name}", identity_module(name))
    tenant.plugin("guard", f"{registry.host}/takeover:v1")
    pods = tenant.proxies(2)
    tenant.ready("guard")
    leader = installation.leader()
    with Load(pods, rate=50) as load:
        began = time.monotonic()
        installation.kill(leader)
        tenant.plugin("guard", f"{registry.host}/takeover:v2")
        until(lambda: installation.leader() not in {"", leader}, "another leader")
        lease = time.monotonic() - began
        switched = load.all_say("v2", since=began)
        tenant.ready("guard")
        ready = time.monotonic() - began
    assert load.bad("v1", "v2") == []
    figure = {"lease_s": round(lease, 1), "switched_s": round(switched, 1), "ready_s": round(ready, 1)}
    record("takeover after the leader was killed", figure)
    assert max(lease, switched) <= 2 * TAKEOVER_S, figure
    installation.rolled_out()


def test_an_operator_that_is_killed_alone_starts_again_and_knows_all(installation, tenant, registry):
    """Both containers crash and are started by the kubelet: statuses stay as they were, and nobody is asked anew."""
    registry.push("crash:v1", identity_module("v1"))
    tenant.plugin("guard", f"{registry.host}/crash:v1")
    pods = tenant.proxies(1)
    tenant.ready("guard")
    before = tenant.cluster.get("wasmplugin", "guard", f"--namespace={tenant.name}")
    registry.stop()
    try:
        with Load(pods, rate=50) as load:
            replicas = installation.replicas()
            for pod in replicas:
                kill_container(installation.cluster, pod, "operator")
            started = {pod["metadata"]["name"]: _starts(pod) for pod in replicas}
            until(
                lambda: all(_starts(pod) > started[pod["metadata"]["name"]] for pod in installation.replicas()), "both"
            )
            installation.rolled_out()
            until(lambda: pods[0].source()["connected"], "the sidecar is connected again")
            tenant.ready("guard")
        assert load.bad("v1") == []
    finally:
        registry.start()
    after = tenant.cluster.get("wasmplugin", "guard", f"--namespace={tenant.name}")
    assert after["status"] == before["status"]
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], "it was written without need"


def _starts(pod):
    return sum(each["restartCount"] for each in pod["status"].get("containerStatuses", []))


def test_nothing_is_stuck_when_the_chart_is_uninstalled_first(installation, new_tenant, registry):
    """Plugins and namespaces with plugins can be deleted, pods answer on, and a new installation takes them over.

    The last of all: it leaves no installation.
    """
    for name in ("v1", "v2"):
        registry.push(f"left:{name}", identity_module(name))
    stays, goes = new_tenant(), new_tenant()
    for tenant in (stays, goes):
        tenant.plugin("guard", f"{registry.host}/left:v1")
    (pod,) = stays.proxies(1)
    goes.proxies(1)
    for tenant in (stays, goes):
        tenant.ready("guard")
    cluster = installation.cluster
    with Load([pod], rate=50) as load:
        installation.uninstall()
        with pytest.raises(ClusterError, match="NotFound"):
            cluster.get("mutatingwebhookconfiguration", "hookline-operator")
        assert [each["metadata"]["name"] for each in stays.plugins()] == ["guard"], "the definition keeps its plugins"
        stays.plugin("unheard", f"{registry.host}/left:v2")
        stays.kubectl("delete", "wasmplugin", "unheard", "--timeout=300s")
        cluster.kubectl("delete", "namespace", goes.name, "--timeout=300s")
        assert not [each for each in load.answers if each.text != "hello, v1"]
        installation.install()
        stays.plugin("guard", f"{registry.host}/left:v2")
        stays.ready("guard")
        assert pod.asks() == (200, "hello, v2")
        installation.uninstall()
        cluster.kubectl("delete", "namespace", HOME, "--timeout=300s")
        stays.kubectl("delete", "wasmplugin", "guard", "--timeout=300s")
        done = len(load.answers)
        until(lambda: len(load.answers) > done + 100, "two more seconds of answers")
    assert load.bad("v1", "v2") == []
    assert pod.restarts() == 0
