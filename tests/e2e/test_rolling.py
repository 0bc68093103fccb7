"""Pods come, go and are not ready while plugins change: what the status says is what the pods run."""

from __future__ import annotations

import time

from installation import identity_module, until
from waiting import PATIENCE_S


def counts(tenant, name="guard"):
    """Matched, loaded, updating, failed; and that the column of ``kubectl get wp`` says the same."""
    status = tenant.status(name)
    pods = status["pods"]
    assert status["loaded"].partition(" (")[0] == f"{pods['loaded']}/{pods['matched']}"
    return pods["matched"], pods["loaded"], pods["updating"], pods["failed"]


def test_plugins_change_while_the_deployment_rolls(tenant, registry):
    """Old and new pods both switch; in the end all pods run the newest, and only they are counted."""
    for name in ("v1", "v2", "v3"):
        registry.push(f"roll:{name}", identity_module(name))
    tenant.plugin("guard", f"{registry.host}/roll:v1")
    before = {pod.name for pod in tenant.proxies(3)}
    tenant.ready("guard")
    tenant.kubectl("rollout", "restart", "deployment/proxy")
    tenant.plugin("guard", f"{registry.host}/roll:v2")
    until(lambda: {pod.name for pod in tenant.pods()} - before, "the first new pod")
    tenant.plugin("guard", f"{registry.host}/roll:v3")
    pods = tenant.rolled_out()
    until(lambda: len(tenant.pods()) == 3, "the old pods are gone")
    tenant.ready("guard")
    assert not {pod.name for pod in pods} & before
    assert {pod.asks() for pod in tenant.pods()} == {(200, "hello, v3")}
    until(lambda: counts(tenant) == (3, 3, 0, 0), "three of three")


def test_a_pod_that_is_not_ready_counts_as_not_loaded(tenant, registry):
    """Its sidecar runs the plugin, and Kubernetes sends it no traffic: the status names it, and says why."""
    for name in ("v1", "v2"):
        registry.push(f"unready:{name}", identity_module(name))
    tenant.plugin("guard", f"{registry.host}/unready:v1")
    probe = {"exec": {"command": ["sh", "-c", "! test -e /tmp/unready"]}, "periodSeconds": 1, "failureThreshold": 1}
    pods = tenant.proxies(2, readinessProbe=probe)
    tenant.ready("guard")
    sick = pods[0]
    inside = ("exec", sick.name, "--container=nginx", f"--namespace={tenant.name}", "--")
    tenant.cluster.kubectl(*inside, "touch", "/tmp/unready")
    until(lambda: counts(tenant) == (2, 1, 1, 0), "one of two")
    ready = tenant.status("guard")["conditions"]["Ready"]
    assert ready["status"] == "False"
    assert f"pod '{sick.name}' runs it and is not ready" in ready["message"]
    tenant.plugin("guard", f"{registry.host}/unready:v2")
    until(lambda: {pod.asks() for pod in pods} == {(200, "hello, v2")}, "the sick one switches with the other")
    until(lambda: counts(tenant) == (2, 1, 1, 0), "one of two")
    tenant.cluster.kubectl(*inside, "rm", "/tmp/unready")
    tenant.ready("guard")
    assert counts(tenant) == (2, 2, 0, 0)


def test_the_status_follows_from_one_pod_to_ten_and_back(tenant, registry):
    """Ten small pods, each with the plugin before it gets its first request; none of the gone ones is left over."""
    registry.push("scale:v1", identity_module("v1"))
    tenant.plugin("guard", f"{registry.host}/scale:v1")
    tenant.proxies(1)
    tenant.ready("guard")
    assert counts(tenant) == (1, 1, 0, 0)
    tenant.kubectl("scale", "deployment/proxy", "--replicas=10")
    seen, began = set(), time.monotonic()
    while counts(tenant) != (10, 10, 0, 0):
        seen.add(counts(tenant))
        assert time.monotonic() - began < 2 * PATIENCE_S, seen
    pods = tenant.rolled_out()
    assert len(pods) == 10
    assert {pod.asks() for pod in pods} == {(200, "hello, v1")}
    assert all(loaded <= matched <= 10 and failed == 0 for matched, loaded, _, failed in seen)
    tenant.ready("guard")
    tenant.kubectl("scale", "deployment/proxy", "--replicas=1")
    until(lambda: counts(tenant) == (1, 1, 0, 0), "one of one")
    tenant.ready("guard")
    assert tenant.status("guard").get("failures", []) == []
