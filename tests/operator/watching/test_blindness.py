"""Who does not see says so, in one line, a metric and /readyz, and sees again by itself.

The real process at the real API server; what breaks is broken there. How long a cure took is in each test's output
(``-rP``), and asked of nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from cluster.api import NotFoundError

CRDS = Path(__file__).parents[3] / "crds"
PLUGINS = "wasmplugins.hookline.dev"


def patch_crd(control_plane, *operations):
    """Change the definition of WasmPlugins."""
    control_plane.kubectl("patch", "crd", PLUGINS, "--type=json", "-p", json.dumps(operations))


def serve(control_plane, *, served):
    """Whether the API server knows WasmPlugins."""
    patch_crd(control_plane, {"op": "replace", "path": "/spec/versions/0/served", "value": served})


@pytest.fixture
def mended(control_plane, crd):
    """Whatever a test does to the definitions, the next one finds them whole."""
    yield
    for each in sorted(CRDS.glob("*.yaml")):
        control_plane.install_crd(each)


@contextlib.contextmanager
def timed(what):
    """Tell how long it took, where somebody asks pytest for it."""
    began = time.monotonic()
    yield
    sys.stdout.write(f"{what}: {time.monotonic() - began:.1f} s\n")


def reason(operator, text):
    """Whether /readyz says so."""
    return any(text in each for each in operator.not_ready() or [])


def failures(operator, collection, reason):
    """How many looks at a collection failed."""
    return operator.metrics().get(
        f'hookline_operator_watch_failures_total{{collection="{collection}",reason="{reason}"}}', 0
    )


def blind(operator, collection):
    """Whether it is not seen, by the metrics."""
    return operator.metrics()[f'hookline_operator_blind{{collection="{collection}"}}'] == 1


def is_served(tenant):
    """Whether the API server knows the definition again: it takes a moment."""
    with contextlib.suppress(NotFoundError):
        return bool(tenant.get("guard"))
    return False


async def test_a_definition_that_was_not_served_for_a_moment_leaves_no_watch_deaf(
    operator, guarded, tenant, module, control_plane, eventually, mended
):
    """Six seconds are enough for the API server to forget a watch, and too few for anybody to miss it."""
    sidecar = await guarded(operator)
    before = sidecar.runs()
    serve(control_plane, served=False)
    await asyncio.sleep(6)  # the fault itself
    serve(control_plane, served=True)
    await eventually(lambda: is_served(tenant), "the definition")
    with timed("from served again to the new version"):
        tenant.plugin("guard", tenant.module("two", module("v2")))
        await sidecar.until(lambda: sidecar.runs() != before)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    assert operator.ready()


async def test_a_definition_that_is_not_served_is_said_counted_and_costs_readiness(
    operator, guarded, tenant, module, control_plane, eventually, mended
):
    """Until it is served again: then all of that ends by itself."""
    sidecar = await guarded(operator)
    before = sidecar.runs()
    wanted = "the API server does not know WasmPlugins: apply the chart's CustomResourceDefinitions (crds/)"
    with timed("noticed after"):
        serve(control_plane, served=False)
        await eventually(lambda: wanted in operator.log.read_text(), "a line")
    await eventually(lambda: reason(operator, wanted), "the reason")
    assert blind(operator, "wasmplugins")
    assert failures(operator, "wasmplugins", "not_found") > 0
    serve(control_plane, served=True)
    with timed("ready again after"):
        await eventually(operator.ready, "readiness")
    tenant.plugin("guard", tenant.module("two", module("v2")))
    await sidecar.until(lambda: sidecar.runs() != before)
    assert not blind(operator, "wasmplugins")
    told = operator.log.read_text()
    assert told.count(wanted) == 1
    assert "wasmplugins can be seen again" in told


async def test_a_plugin_that_was_deleted_while_nobody_could_watch_is_gone(
    operator, guarded, tenant, control_plane, eventually, mended
):
    """Whoever lists beside kopf sees it; kopf does not tell of it."""
    sidecar = await guarded(operator)
    serve(control_plane, served=False)
    gone = "the API server does not know WasmPlugins"
    await eventually(lambda: gone in operator.log.read_text(), "a line")
    serve(control_plane, served=True)
    await eventually(lambda: is_served(tenant), "the definition")
    control_plane.kubectl("delete", "wasmplugin", "guard", f"--namespace={tenant.name}")
    with timed("gone after"):
        await sidecar.until(lambda: not sidecar.runs())


async def test_rights_that_are_lost_are_said_once_for_each_collection_and_cost_readiness(
    operator, guarded, tenant, module, control_plane, eventually
):
    """Nothing fails at once, and all of it is stale: that is why it has to be said."""
    sidecar = await guarded(operator)
    before, binding = sidecar.runs(), control_plane.get("clusterrolebinding", "hookline-operator")
    collections = ("pods", "secrets", "configmaps", "serviceaccounts", "wasmplugins", "wasmpluginrevisions")
    control_plane.kubectl("delete", "clusterrolebinding", "hookline-operator")
    with timed("noticed after"):
        await eventually(lambda: all(failures(operator, each, "forbidden") for each in collections), "failures")
    await eventually(lambda: all(blind(operator, each) for each in collections), "blindness")
    await eventually(lambda: reason(operator, "forbidden"), "the reason")
    tenant.pod("b")
    tenant.plugin("guard", tenant.module("two", module("v2")))
    binding["metadata"] = {"name": "hookline-operator"}
    control_plane.apply(binding)
    with timed("cured after"):
        await eventually(operator.ready, "readiness")
        await sidecar.until(lambda: sidecar.runs() != before)
    await eventually(lambda: tenant.status("guard")["pods"]["matched"] == 2, "the pod that came meanwhile")
    told = operator.log.read_text()
    for each in collections:
        watches = 2 if each == "pods" else 1  # those with a sidecar, and those without
        assert len(re.findall(rf"watching \S+/{each}: ", told)) == watches
        assert f"{each} can be seen again" in told


async def test_an_api_server_that_hangs_is_missed_and_takes_no_replica_out(
    operator, guarded, tenant, module, control_plane, eventually
):
    """Its connections are open, and nothing comes: no error ends that. Every replica would be as blind as this one."""
    sidecar = await guarded(operator)
    before = sidecar.runs()
    pid = control_plane.processes._children["kube-apiserver"].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with timed("noticed after"):
            await eventually(lambda: blind(operator, "wasmplugins") and blind(operator, "pods"), "blindness")
        await eventually(lambda: failures(operator, "pods", "unreachable"), "a failure that is counted")
        assert operator.ready()
        await eventually(lambda: "watching /api/v1/pods" in operator.log.read_text(), "a line")
    finally:
        os.kill(pid, signal.SIGCONT)
    tenant.plugin("guard", tenant.module("two", module("v2")))
    with timed("cured after"):
        await sidecar.until(lambda: sidecar.runs() != before)
        await eventually(lambda: not blind(operator, "pods"), "sight")
    await eventually(lambda: "pods can be seen again" in operator.log.read_text(), "a line")


async def test_an_api_server_that_is_away_is_said_once_and_takes_no_replica_out(
    operator, guarded, tenant, module, control_plane, eventually
):
    """With all replicas unready the webhooks would be away for longer than the API server was."""
    sidecar = await guarded(operator)
    before = sidecar.runs()
    control_plane.stop_apiserver()
    try:
        await eventually(lambda: blind(operator, "wasmplugins"), "blindness")
        assert operator.ready()
    finally:
        control_plane.start_apiserver()
    tenant.plugin("guard", tenant.module("two", module("v2")))
    with timed("cured after"):
        await sidecar.until(lambda: sidecar.runs() != before)
    await eventually(lambda: not blind(operator, "wasmplugins"), "sight")
    said = re.findall(r"watching \S+/secrets: .*", operator.log.read_text())
    assert said
    assert len(said) == len(set(said))  # one that is starting may refuse for a moment: that is another state


async def test_a_kopf_that_hears_nothing_any_more_begins_again(
    new_operator, tenant, module, connect, control_plane, eventually
):
    """Whatever made it deaf: here a handler that forgets what it is told, once it was told to."""
    flag = control_plane.folder / f"deaf-{tenant.name}"
    first = (
        "import pathlib; from hookline_operator.cluster.plugin_watch import PluginWatch as W; seen = W._seen; "
        f"W._seen = lambda s, f, g: None if pathlib.Path({str(flag)!r}).exists() else seen(s, f, g)"
    )
    operator = new_operator(first=first).start()
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    flag.touch()
    tenant.plugin("guard", tenant.module("one", module("v1")))
    said = "the watch of WasmPlugins is deaf: it does not tell what changes"
    with timed("noticed after"):
        await eventually(lambda: said in operator.log.read_text(), "a line")
    await eventually(lambda: reason(operator, said), "the reason")
    assert failures(operator, "wasmplugins", "deaf") > 0
    flag.unlink()
    with timed("cured after"):
        await sidecar.until(sidecar.runs)
        await eventually(operator.ready, "readiness")
    told = operator.log.read_text()
    assert told.count(said) == 1
    assert f"it has not reported '{tenant.name}/guard'" in told


async def test_a_lease_that_cannot_be_held_is_said_once_and_held_again(operator, home, control_plane, eventually):
    """Without the right to it nobody leads; sidecars and webhooks are served all the same."""
    await eventually(lambda: operator.metrics()["hookline_operator_leader"] == 1, "a leader")
    (binding,) = control_plane.get("rolebinding", f"--namespace={home}")["items"]
    name = binding["metadata"]["name"]
    control_plane.kubectl("delete", "rolebinding", name, f"--namespace={home}")
    with timed("noticed after"):
        await eventually(lambda: failures(operator, "lease", "forbidden"), "failures")
    await eventually(lambda: operator.metrics()["hookline_operator_leader"] == 0, "the end of the term")
    await eventually(lambda: blind(operator, "lease"), "blindness")
    assert operator.ready()
    binding["metadata"] = {"name": name, "namespace": home}
    control_plane.apply(binding)
    with timed("cured after"):
        await eventually(lambda: operator.metrics()["hookline_operator_leader"] == 1, "a leader")
    await eventually(lambda: not blind(operator, "lease"), "sight")
    told = operator.log.read_text()
    assert sum("the Lease" in line and "forbidden" in line for line in told.splitlines()) == 1
    assert "lease can be seen again" in told
