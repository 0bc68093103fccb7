"""A tenant, a registry or a pod that means harm gets nothing of others, and does not take the operator from them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys

import pytest

from sessions import client_session
from waiting import PATIENCE_S, until_true

REVISIONS = "/apis/hookline.dev/v1alpha1/namespaces/{}/wasmpluginrevisions"
OLD_REVISIONS = "/apis/apps/v1/namespaces/{}/controllerrevisions"
PODS = "/api/v1/namespaces/{}/pods"
PLUGINS = "/apis/hookline.dev/v1alpha1/namespaces/{}/wasmplugins"


def create(tenant, where, text, folder):
    """Create an object from JSON that no client would make, or would refuse."""
    file = folder / "object.json"
    file.write_text(text if isinstance(text, str) else json.dumps(text))
    tenant.plane.kubectl("create", f"--raw={where.format(tenant.name)}", f"--filename={file}")


def revision(name, plugin_uid, data, number=1):
    """A WasmPluginRevision that looks like one of the operator's."""
    return {
        "apiVersion": "hookline.dev/v1alpha1",
        "kind": "WasmPluginRevision",
        "metadata": {"name": name, "labels": {"hookline.dev/plugin-uid": plugin_uid}},
        "plugin": "guard",
        "revision": number,
        "digest": "sha256:0",
        "data": data if isinstance(data, str) else json.dumps(data),
    }


def old_revision(name, plugin_uid, data, number=1):
    """A ControllerRevision that looks like one of an older operator's."""
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": name, "labels": {"hookline.dev/plugin-uid": plugin_uid}},
        "revision": number,
        "data": data,
    }


def nested(levels):
    """JSON of an object in an object in an object."""
    return '{"a":' * levels + "1" + "}" * levels


def why(tenant, plugin):
    """The sentence of the first condition."""
    wanted = "--output=jsonpath={.status.conditions[0].message}"
    return tenant.plane.kubectl("get", "wasmplugin", plugin, f"--namespace={tenant.name}", wanted)


async def still_serves(operator, tenant, module, eventually, reason="NoMatchingPods"):
    """Wait until a plugin that is applied now is where it should be."""
    tenant.plugin("after", tenant.module("after", module("after")))
    await eventually(lambda: (tenant.ready("after") or ("", ""))[1] == reason, "service after the attack")
    assert operator.process.poll() is None


@pytest.mark.parametrize(
    "data",
    [{"inputs": [1]}, {"inputs": "x"}, {"inputs": {"a": {}}}, {"spec": 1}, {"inputs": {}, "spec": {}}],
    ids=["list", "text", "object", "spec", "half"],
)
async def test_a_revision_that_is_none_harms_nobody(operator, new_tenant, module, eventually, tmp_path, data):
    """Whoever may write revisions in a namespace can write anything into them, with our label."""
    tenant, other = new_tenant(), new_tenant()
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "Ready")
    uid = tenant.get("guard")["metadata"]["uid"]
    create(tenant, REVISIONS, revision("forged", uid, data, number=99), tmp_path)
    create(tenant, OLD_REVISIONS, old_revision("forged", uid, data, number=99), tmp_path)
    await still_serves(operator, other, module, eventually)


async def test_nobody_makes_revisions_for_another_namespaces_plugin(
    operator, new_tenant, module, connect, eventually, tmp_path
):
    """A uid is not a secret: what a pod runs comes from its own namespace, even if another holds a newer revision."""
    tenant, thief = new_tenant(), new_tenant()
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", tenant.module("one", module("good")))
    thief.plugin("guard", thief.module("one", module("evil")))
    await sidecar.until(sidecar.runs)
    for each in (tenant, thief):
        await eventually(lambda each=each: each.ready("guard") is not None, "a status")
    await eventually(lambda: thief.ready("guard") == ("Unknown", "NoMatchingPods"), "Ready")
    good, uid = sidecar.runs(), tenant.get("guard")["metadata"]["uid"]
    evil = thief.plane.get("wasmpluginrevision", f"--namespace={thief.name}")["items"][0]["data"]
    create(thief, REVISIONS, revision("forged", uid, evil, number=99), tmp_path)
    tenant.pod("b")
    late = await connect(operator, tenant, "b")
    await late.until(lambda: late.running is not None)
    await still_serves(operator, thief, module, eventually)
    assert (sidecar.runs(), late.runs()) == (good, good)


@pytest.mark.parametrize("levels", [300, 1100, 4000])
@pytest.mark.parametrize("what", ["plugin", "revision", "old-revision"])
async def test_objects_that_are_nested_too_deeply_stop_nobody_else(
    new_operator, new_tenant, module, eventually, tmp_path, what, levels
):
    """The API server takes more levels than JSON parsers do: neither a watch nor the next start is stopped by that."""
    tenant, other = new_tenant(), new_tenant()
    operator = new_operator().start()
    if what == "plugin":
        text = json.dumps({
            "apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "deep"},
            "spec": {"source": {"configMap": {"name": "none"}}, "config": "DEEP"},
        }).replace('"DEEP"', nested(levels))  # fmt: skip
        create(tenant, PLUGINS, text, tmp_path)
    elif what == "revision":
        create(tenant, REVISIONS, revision("deep", "somebody", nested(levels)), tmp_path)
    else:
        text = json.dumps(old_revision("deep", "somebody", {"x": "DEEP"})).replace('"DEEP"', nested(levels))
        create(tenant, OLD_REVISIONS, text, tmp_path)
    await still_serves(operator, other, module, eventually)
    if what == "plugin":
        # Not as JSON, which the test could not parse either.
        await eventually(lambda: "config is nested deeper than 100 levels" in why(tenant, "deep"), "the sentence")
    operator.stop()
    operator.start()
    other.plane.kubectl("delete", "wasmplugin", "after", f"--namespace={other.name}")
    await still_serves(operator, other, module, eventually)


async def test_large_objects_break_no_watch(operator, new_tenant, module, connect, eventually, tmp_path):
    """An object is one line of a watch; the API server stores 1.5 MB of it and writes six bytes for some of them."""
    tenant, other = new_tenant(), new_tenant()
    large = [{"name": "LARGE", "value": "<" * 1_200_000}]
    pod = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "large", "labels": {"hookline.dev/sidecar": "true"}},
        "spec": {"containers": [{"name": "proxy", "image": "proxy", "env": large}]},
    }  # fmt: skip
    create(tenant, PODS, pod, tmp_path)
    tenant.plugin("guard", tenant.module("one", module("v1")), config={"list": ["x" * 1000] * 500})
    await eventually(lambda: tenant.status("guard").get("loaded") == "0/1", "0/1")
    sidecar = await connect(operator, tenant, "large")
    await sidecar.until(sidecar.runs)
    other.pod("b")
    late = await connect(operator, other, "b")
    await still_serves(operator, tenant, module, eventually, "Progressing")
    other.plugin("guard", other.module("one", module("v1")))
    await late.until(late.runs)


async def test_a_pod_that_reads_none_of_its_downloads_holds_few_of_them(
    operator, tenant, module, registry, connect, control_plane
):
    """And when it ends them, it may have others; another pod gets the module all the while."""
    padding = os.urandom(32 << 20)
    section = b"\x03pad" + padding
    size = len(section)
    leb = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21])
    registry.push("large:v1", module("v1") + b"\x00" + leb + section)
    tenant.pod("a")
    tenant.pod("b")
    greedy = await connect(operator, tenant, "a", download=False)
    tenant.plugin("guard", {"oci": {"reference": f"{registry.host}/large:v1", "insecure": True}})
    await greedy.until(greedy.runs)
    sha256 = greedy.bundle_of("guard").artifact.sha256
    authority = control_plane.get("configmap", "hookline-ca", f"--namespace={operator.home}")["data"]["ca.crt"]
    trust = ssl.create_default_context(cadata=authority)
    headers = {"Authorization": f"Bearer {await asyncio.to_thread(tenant.token, 'a')}"}
    url, name = f"https://127.0.0.1:{operator.port}/v1/blobs/{sha256}", f"hookline-operator.{operator.home}.svc"
    async with client_session(headers=headers) as session, contextlib.AsyncExitStack() as stack:
        statuses = []
        for _ in range(12):
            asked = session.get(url, ssl=trust, server_hostname=name)
            statuses.append((await stack.enter_async_context(asked)).status)
        assert statuses == [200] * 8 + [503] * 4
        honest = await connect(operator, tenant, "b")
        await honest.until(lambda: sha256 in honest.blobs)

    async def served():  # the operator hears of the end of a connection in its own time
        status, _ = await greedy.blob(sha256)
        return status == 200

    await until_true(served, "a blob", pause=0.1)


def test_settings_that_are_wrong_a_million_times_take_no_memory():
    """An operator has half a gigabyte, and what it starts counts as its own."""
    program = """if True:
        import asyncio, resource
        from hookline_artifacts.schema_check import check_apart
        from hookline_artifacts.errors import ConfigError
        schema = {"properties": {"list": {"items": {"type": "string"}}}}
        try:
            asyncio.run(check_apart({"list": [1] * 200_000}, schema, seconds=60))
        except ConfigError as error:
            print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, error)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    mebibytes, _, sentence = done.stdout.partition(" ")
    assert "expected a string, found something else" in sentence
    assert int(mebibytes) < 256


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ("[::ffff:169.254.169.254]", "link-local addresses are never asked"),
        ("[64:ff9b::a9fe:a9fe]", "link-local addresses are never asked"),
        ("[fd00:ec2::254]", "addresses of clouds' metadata services are never asked"),
        ("100.100.100.200", "addresses of clouds' metadata services are never asked"),
        ("[::1]", "loopback and unspecified addresses are not asked"),
        ("0.0.0.0", "loopback and unspecified addresses are not asked"),
        ("[::]", "loopback and unspecified addresses are not asked"),
    ],
)
async def test_no_spelling_of_an_address_that_is_ours_alone_is_asked(operator, tenant, eventually, host, sentence):
    """Clouds give a machine's credentials to whoever asks there, and programs of a machine trust it."""
    tenant.plugin("guard", {"http": {"url": f"http://{host}/latest/meta-data/", "sha256": "0" * 64}})
    await eventually(lambda: sentence in why(tenant, "guard"), "the refusal")
    assert operator.process.poll() is None


async def test_sources_that_never_answer_keep_no_other_namespace_waiting(operator, new_tenant, module, eventually):
    """Thirty of one tenant's; another's plugin is resolved meanwhile."""
    asked = asyncio.Event()

    async def silence(_reader, writer):
        asked.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    slow, other = new_tenant(), new_tenant()
    for number in range(30):
        slow.plugin(f"slow-{number}", {"oci": {"reference": f"127.0.0.1:{port}/a:v{number}", "insecure": True}})
    await asyncio.wait_for(asked.wait(), PATIENCE_S)
    other.plugin("guard", other.module("one", module()))
    await eventually(lambda: other.ready("guard") == ("Unknown", "NoMatchingPods"), "Ready")
    assert slow.ready("slow-29") != ("Unknown", "NoMatchingPods")
    server.close()


async def test_a_stranger_is_told_nothing_of_another_tenants_module(
    operator, tenant, module, eventually, control_plane
):
    """Anybody reaches the webhook. Without the plugin's uid it answers as if there were no such plugin."""
    schema = {"type": "object", "properties": {"mode": {"enum": ["hush-hush"]}}, "required": ["mode"]}
    wants = '(import "env" "kv_get" (func (param i32 i32 i32 i32) (result i32)))'
    source = tenant.module("one", described(module("v1", imports=wants), config_schema=schema))
    tenant.plugin("guard", source, config={"mode": "hush-hush"}, permissions=["kv.read"])
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "Ready")
    stored = tenant.get("guard")
    wrong = {"source": stored["spec"]["source"], "config": {"mode": "guess"}}

    async def ask(name, operation="UPDATE", uid=None):
        metadata = {"name": name, "namespace": tenant.name} | ({"uid": uid} if uid else {})
        request = {
            "uid": "r", "kind": {"group": "hookline.dev", "version": "v1alpha1", "kind": "WasmPlugin"},
            "operation": operation, "namespace": tenant.name, "name": name,
            "object": {**stored, "metadata": metadata, "spec": wrong},
            "oldObject": {"metadata": metadata, "spec": {}},
        }  # fmt: skip
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        trust = ssl.create_default_context(
            cadata=control_plane.get("configmap", "hookline-ca", f"--namespace={operator.home}")["data"]["ca.crt"]
        )
        url, host = f"https://127.0.0.1:{operator.port}/webhooks/validate", f"hookline-operator.{operator.home}.svc"
        async with (
            client_session() as session,
            session.post(url, json=review, ssl=trust, server_hostname=host) as answer,
        ):
            return (await answer.json())["response"]

    nobody = await ask("no-such-plugin")
    assert nobody == {"allowed": True, "uid": "r"}
    for how in ({}, {"uid": "00000000-0000-0000-0000-000000000000"}, {"operation": "CREATE"}):
        assert await ask("guard", **how) == nobody
    known = await ask("guard", uid=stored["metadata"]["uid"])  # as the API server does
    assert known["allowed"] is False
    assert "kv.read" in known["status"]["message"]
    wrong["permissions"] = ["kv.read"]
    known = await ask("guard", uid=stored["metadata"]["uid"])
    assert known["allowed"] is False
    assert "config.mode" in known["status"]["message"]


def described(wasm, **description):
    """The module with a description."""
    name, payload = b"hookline.plugin", json.dumps(description).encode()
    content = bytes([len(name)]) + name + payload
    size = len(content)
    return wasm + b"\x00" + bytes([size & 0x7F | 0x80, size >> 7]) + content
