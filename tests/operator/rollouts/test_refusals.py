"""What cannot be loaded: one sentence in the status, the old version goes on, and what is mended comes back."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from local_registry import FickleRegistry

_KV_GET = '(import "env" "kv_get" (func (param i32 i32 i32 i32) (result i32)))'


async def running(operator, tenant, module, connect, source, **spec):
    """A pod that runs version one."""
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", source, **spec)
    await sidecar.until(sidecar.runs)
    return sidecar


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (lambda t, m: {"source": t.module("bad", m("v2", imports='(import "env" "shell" (func))'))},
         "VerifyFailed", ["env", "shell"]),
        (lambda t, m: {"source": t.module("bad", m("v2")), "sha256": "0" * 64}, "VerifyFailed", ["sha256", "0000"]),
        (lambda t, m: {"source": {"configMap": {"name": "nowhere"}}}, "FetchFailed", ["nowhere"]),
        (lambda t, m: {"source": t.module("bad", b"#!/bin/sh")}, "VerifyFailed", ["WebAssembly"]),
        (lambda t, m: {"source": t.module("bad", m("v2")), "hooks": ["route"]}, "ConfigInvalid", ["route"]),
        (lambda t, m: {"source": t.module("bad", m("v2", imports=_KV_GET)), "permissions": ["kv.write"]},
         "PermissionsIncreased", ["asks for kv.read, which the one before it did not", "spec.permissions"]),
        (lambda t, m: {"source": t.module("bad", m("v2")), "verify": {"keys": ["x"]}},
         "ConfigInvalid", ["spec.verify", "PEM"]),
        (lambda t, m: {"source": t.module("bad", m("v2")), "configFrom": [
            {"secretRef": {"name": "gone"}, "key": "k", "path": "p"}]}, "ConfigInvalid", ["Secret", "gone"]),
        (lambda t, m: {"source": {"oci": {"reference": "127.0.0.1:1/a:v1", "insecure": True}}},
         "FetchFailed", ["127.0.0.1:1"]),
    ],
    ids=["import", "sha256", "no-config-map", "no-module", "hook", "permission", "signature", "no-secret",
         "no-registry"],
)  # fmt: skip
async def test_a_bad_version_is_refused_in_one_sentence_and_the_old_one_goes_on(
    operator, tenant, module, connect, eventually, change, reason, words
):
    """Also a pod that comes meanwhile gets the old one; and going back mends it."""
    good = tenant.module("good", module("v1"))
    sidecar = await running(operator, tenant, module, connect, good)
    before = sidecar.runs()
    spec = change(tenant, module)
    tenant.plugin("guard", **spec)
    await eventually(lambda: tenant.ready("guard") == ("False", reason), reason)
    message = tenant.status("guard")["conditions"]["Ready"]["message"]
    assert all(word in message for word in words), message
    assert "the last good version goes on in 1 pod" in message
    assert len(message) < 600
    assert "\n" not in message
    assert sidecar.runs() == before
    tenant.pod("b")
    late = await connect(operator, tenant, "b")
    await late.until(lambda: late.runs() == before)
    tenant.plane.kubectl("delete", "wasmplugin", "guard", f"--namespace={tenant.name}")
    tenant.plugin("guard", good)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")


async def test_a_lenient_plugin_is_loaded_and_told_what_is_denied(operator, tenant, module, connect, eventually):
    """A Warning, once; and the condition says it for as long as it is so."""
    source = tenant.module("blind", module("v1", imports=_KV_GET))
    await running(operator, tenant, module, connect, source, permissionsPolicy="Lenient")
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    words = "the module imports env.kv_get, which needs the permission kv.read; without it, the call is denied"
    conditions = tenant.status("guard")["conditions"]
    assert "may be loaded" not in conditions["Verified"]["message"]
    granted = conditions["PermissionsGranted"]
    assert (granted["status"], granted["reason"]) == ("False", "PermissionNotGranted")
    assert words in granted["message"]

    def warned():
        found = tenant.plane.get("events", f"--namespace={tenant.name}")["items"]
        return [each for each in found if each["reason"] == "PermissionNotGranted"]

    (event,) = await eventually(warned, "an Event")
    assert (event["type"], words in event["message"]) == ("Warning", True)
    tenant.plugin("guard", source, permissions=["kv.read"])

    def granted_now():
        return tenant.status("guard")["conditions"]["PermissionsGranted"]["status"] == "True"

    await eventually(granted_now, "no word of it")


async def test_what_an_older_operator_kept_goes_on_and_is_told_to_lack_a_permission(
    new_operator, tenant, module, connect, eventually
):
    """It asked for no permission: its revision is the last good one, also for pods that come later."""
    operator = new_operator().start()
    source = tenant.module("blind", module("v1", imports=_KV_GET))
    tenant.plugin("guard", source, permissions=["kv.read"])
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "Ready")
    operator.stop()
    # What that operator would have left behind: the same revision of a resource that grants nothing.
    (kept,) = tenant.plane.get("wasmpluginrevisions", f"--namespace={tenant.name}")["items"]
    tenant.plane.kubectl("delete", "wasmpluginrevision", kept["metadata"]["name"], f"--namespace={tenant.name}")
    tenant.plane.kubectl("patch", "wasmplugin", "guard", f"--namespace={tenant.name}", "--type=json",
                         "-p", '[{"op": "remove", "path": "/spec/permissions"}]')  # fmt: skip
    data = json.loads(kept["data"])
    old = {key: value for key, value in data.items() if key != "notes"} | {"spec": tenant.get("guard")["spec"]}
    tenant.keep_as_before("guard", old)
    operator.start()
    await eventually(lambda: tenant.ready("guard") == ("False", "ConfigInvalid"), "ConfigInvalid")
    conditions = tenant.status("guard")["conditions"]
    assert "needs the permission kv.read" in conditions["Ready"]["message"]
    assert "may be loaded" not in conditions["Verified"]["message"]
    granted = conditions["PermissionsGranted"]
    assert (granted["status"], granted["reason"]) == ("False", "PermissionNotGranted")
    tenant.pod("late")
    late = await connect(operator, tenant, "late")
    await late.until(late.runs)
    tenant.plugin("guard", source, permissions=["kv.read"])
    await eventually(lambda: tenant.status("guard")["conditions"]["Verified"]["status"] == "True", "what was mended")


async def test_pods_are_told_to_call_what_the_package_declares(operator, tenant, module, connect, eventually):
    """And the status says what that leaves out, and that the package has another name."""
    wasm = described(module("v1", hooks=("authenticate", "route")), name="their-guard", hooks=["Auth", "pre_query"])
    sidecar = await running(operator, tenant, module, connect, tenant.module("declared", wasm))
    assert [each.hooks for each in sidecar.running.bundle.plugins] == [["authenticate"]]
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    status = tenant.status("guard")
    assert (status["hooks"], status["artifact"]["hooks"]) == ("authenticate", ["authenticate"])
    for words in ("calls itself 'their-guard'", "declares pre_query, which", "exports route, which"):
        assert words in status["conditions"]["Verified"]["message"]


async def test_a_registry_that_was_away_is_asked_again(operator, tenant, module, need, tmp_path, eventually):
    """By itself, and while it is away the plugin is being reconciled and not stalled."""
    from local_registry import LocalRegistry

    registry = LocalRegistry(need("docker-registry", "docker-registry"), tmp_path / "registry")
    registry.start()
    registry.push("a:v1", module("v1"))
    registry.stop()
    try:
        tenant.plugin("guard", {"oci": {"reference": f"{registry.host}/a:v1", "insecure": True}})
        await eventually(lambda: tenant.ready("guard") == ("False", "FetchFailed"), "FetchFailed")
        conditions = tenant.status("guard")["conditions"]
        assert (conditions["Reconciling"]["status"], conditions["Stalled"]["status"]) == ("True", "False")
        registry.start()
        await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "recovery")
    finally:
        registry.stop()


@pytest.fixture
def watchful(new_operator):
    """An operator that tries nothing again by itself: what it does again, it was told to by the API."""
    first = "from hookline_artifacts import patience; patience.FIRST_S = patience.SLOW_S = patience.LAST_S = 1e6"
    return new_operator(first=first).start()


async def test_a_wrong_password_is_refused_and_the_right_one_is_tried_at_once(
    watchful, tenant, module, password_registry, eventually
):
    """The Secret is watched: nobody waits for the next try."""
    password_registry.push("secret:v1", module("v1"))
    tenant.apply(password_registry.pull_secret("pull", "wrong"))
    source = {
        "oci": {"reference": f"{password_registry.host}/secret:v1", "insecure": True, "pullSecrets": [{"name": "pull"}]}
    }
    tenant.plugin("guard", source)
    await eventually(lambda: tenant.ready("guard") == ("False", "FetchFailed"), "FetchFailed")
    assert tenant.status("guard")["conditions"]["Stalled"]["status"] == "True"
    tenant.apply(password_registry.pull_secret("pull"))
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "Ready")


async def test_the_service_accounts_pull_secrets_are_tried_too(watchful, tenant, module, password_registry, eventually):
    """As a pod's image would be pulled."""
    password_registry.push("secret:v2", module("v2"))
    source = {"oci": {"reference": f"{password_registry.host}/secret:v2", "insecure": True}}
    tenant.plugin("guard", source)
    await eventually(lambda: tenant.ready("guard") == ("False", "FetchFailed"), "FetchFailed")
    tenant.apply(password_registry.pull_secret("of-the-account"))
    tenant.plane.kubectl("patch", "serviceaccount", "default", f"--namespace={tenant.name}", "--type=merge",
                         "-p", json.dumps({"imagePullSecrets": [{"name": "of-the-account"}]}))  # fmt: skip
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "Ready")


async def test_a_tag_that_could_not_be_asked_for_is_asked_for_with_a_new_pull_secret(
    operator, tenant, module, eventually
):
    """At once, though the registry asked for a long pause; what the tag meant before runs meanwhile."""
    with FickleRegistry() as registry:
        registry.push("tracked:v1", module("v1"))
        tenant.plugin("guard", registry.source("tracked:v1", trackInterval="10s", pullSecrets=[{"name": "pull"}]))
        await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "Ready")
        registry.away = True
        await eventually(lambda: "429" in json.dumps(tenant.status("guard")), "a failure")
        before, moved = registry.asked, registry.push("tracked:v1", module("v2"))
        registry.away = False
        tenant.apply(secret("pull", {".dockercfg": json.dumps({registry.host: {"username": "u", "password": "p"}})}))
        await eventually(lambda: registry.asked > before, "a request")
        await eventually(lambda: tenant.status("guard")["artifact"]["digest"] == moved, "the new module")


async def test_a_module_that_was_pushed_again_under_its_tag_is_found_by_trying_again(
    operator, tenant, module, registry, eventually
):
    """What the tag meant before is not what ``spec.sha256`` asks for now: the registry is asked what it means."""
    registry.push("again:v1", module("v1"))
    source = {"oci": {"reference": f"{registry.host}/again:v1", "insecure": True, "pullPolicy": "IfNotPresent"}}
    tenant.plugin("guard", source)
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "Ready")
    moved = registry.push("again:v1", module("v2"))
    tenant.plugin("guard", source, sha256=hashlib.sha256(module("v2")).hexdigest())
    await eventually(lambda: tenant.status("guard")["artifact"]["digest"] == moved, "the new module")
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "Ready")


async def test_a_pull_secret_of_the_old_type_is_read(operator, tenant, module, password_registry, eventually):
    """``kubernetes.io/dockercfg``, as OpenShift makes them; and one that is not there stops none of the others."""
    password_registry.push("secret:v3", module("v3"))
    given = json.loads(base64.b64decode(password_registry.pull_secret("x")["data"][".dockerconfigjson"]))
    tenant.apply({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "old"}, "type": "kubernetes.io/dockercfg",
        "stringData": {".dockercfg": json.dumps(given["auths"])},
    })  # fmt: skip
    oci = {"reference": f"{password_registry.host}/secret:v3", "insecure": True}
    tenant.plugin("guard", {"oci": {**oci, "pullSecrets": [{"name": "nowhere"}, {"name": "old"}]}})
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "Ready")
    tenant.plugin("locked", {"oci": {**oci, "pullSecrets": [{"name": "nowhere"}]}})
    await eventually(lambda: tenant.ready("locked") == ("False", "FetchFailed"), "FetchFailed")
    assert "/nowhere' with the key" in tenant.status("locked")["conditions"]["Ready"]["message"]


async def test_what_one_may_pull_another_may_not(
    operator, new_tenant, tenant, module, password_registry, eventually, connect
):
    """Two plugins, the same image, different passwords: the one with the wrong one gets nothing from the cache."""
    wasm = module("shared")
    password_registry.push("shared:v1", wasm)
    oci = {"reference": f"{password_registry.host}/shared:v1", "insecure": True, "pullSecrets": [{"name": "pull"}]}
    tenant.apply(password_registry.pull_secret("pull"))
    tenant.plugin("guard", {"oci": oci})
    await eventually(lambda: tenant.ready("guard") == ("Unknown", "NoMatchingPods"), "Ready")
    other = new_tenant()
    other.apply(password_registry.pull_secret("pull", "guessed"))
    digest = tenant.status("guard")["artifact"]["digest"]
    pinned = oci | {"reference": f"{password_registry.host}/shared@{digest}"}
    other.plugin("by-tag", {"oci": oci})
    other.plugin("by-digest", {"oci": pinned})
    for name in ("by-tag", "by-digest"):
        await eventually(lambda name=name: other.ready(name) == ("False", "FetchFailed"), "FetchFailed")


async def test_settings_are_checked_against_the_plugins_schema(operator, tenant, module, connect, eventually):
    """Also what comes from a Secret, whose value is told to nobody."""
    schema = {"type": "object", "properties": {"limit": {"type": "string", "maxLength": 4}}, "required": ["limit"]}
    source = tenant.module("one", with_schema(module("v1"), schema))
    sidecar = await running(operator, tenant, module, connect, source, config={"limit": "ten"})
    before = sidecar.runs()
    tenant.apply(secret("limits", {"limit": "hush"}))
    from_secret = [{"secretRef": {"name": "limits"}, "key": "limit", "path": "limit"}]
    tenant.plugin("guard", source, config={"limit": "ten"}, configFrom=from_secret)
    await sidecar.until(lambda: sidecar.runs() != before)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    entry = sidecar.running.bundle.plugins[0]
    assert entry.config == {"limit": "hush"}
    assert entry.secret_paths == ["limit"]
    assert entry.revision != entry.model_copy(update={"seal": None}).revision  # which everybody could try values for
    second = sidecar.runs()
    tenant.apply(secret("limits", {"limit": "much too long a secret"}))
    await eventually(lambda: tenant.ready("guard") == ("False", "ConfigInvalid"), "ConfigInvalid")
    assert "config.limit" in tenant.status("guard")["conditions"]["Ready"]["message"]
    assert sidecar.runs() == second or not sidecar.bundle_of("guard").artifact
    tenant.apply(secret("limits", {"limit": "psst"}))
    await sidecar.until(lambda: sidecar.running.bundle.plugins[0].config == {"limit": "psst"})
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    kinds = ("wasmplugins", "wasmpluginrevisions", "events")
    everything = json.dumps([tenant.plane.get(kind, f"--namespace={tenant.name}") for kind in kinds])
    for value in ("hush", "much too long", "psst"):
        assert value not in everything
        assert base64.b64encode(value.encode()).decode() not in everything
        assert value not in operator.log.read_text()


async def test_a_plugin_that_never_was_good_is_a_placeholder_that_says_why(
    operator, tenant, module, connect, eventually
):
    """So that a sidecar that starts with it does not run without its guard; by policy it is nothing at all."""
    tenant.plugin("guard", {"configMap": {"name": "nowhere"}}, priority=7)
    tenant.plugin("open", {"configMap": {"name": "nowhere"}}, failurePolicy={"fetch": "Open"})
    for name in ("guard", "open"):
        await eventually(lambda name=name: tenant.ready(name) == ("False", "FetchFailed"), "FetchFailed")
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    await sidecar.until(lambda: sidecar.running is not None)
    (entry,) = sidecar.running.bundle.plugins
    assert (entry.name, entry.artifact, entry.priority, entry.failure.cause) == ("guard", None, 7, "fetch")
    assert "nowhere" in entry.failure.message


async def test_events_tell_of_changes_and_of_nothing_else(operator, tenant, module, connect, eventually):
    """One for each change of state."""
    sidecar = await running(operator, tenant, module, connect, tenant.module("one", module("v1")))
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    tenant.set_ready("a", ready=False)
    await eventually(lambda: tenant.ready("guard") == ("False", "Progressing"), "Progressing")
    tenant.set_ready("a", ready=True)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    tenant.plugin("guard", {"configMap": {"name": "nowhere"}})
    await eventually(lambda: tenant.ready("guard") == ("False", "FetchFailed"), "FetchFailed")

    def events():
        found = tenant.plane.get("events", f"--namespace={tenant.name}")["items"]
        return [
            (each["type"], each["reason"], each["message"])
            for each in found
            if each["involvedObject"]["kind"] == "WasmPlugin"
        ]

    await eventually(lambda: "FetchFailed" in str(events()), "the Event")
    told = events()
    assert sorted(each[:2] for each in told) == sorted(
        [("Normal", "Resolved"), ("Normal", "Ready"), ("Normal", "Ready"), ("Warning", "FetchFailed")]
    ), told
    assert sidecar.runs()


def secret(name, data):
    """An Opaque one."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def with_schema(wasm, schema):
    """The module with a description that ships a schema."""
    return described(wasm, config_schema=schema)


def described(wasm, **description):
    """The module with a description."""
    payload = json.dumps(description).encode()
    name = b"hookline.plugin"
    content = bytes([len(name)]) + name + payload
    size, out = len(content), bytearray()
    while True:
        size, low = size >> 7, size & 0x7F
        out.append(low | (0x80 if size else 0))
        if not size:
            return wasm + b"\x00" + bytes(out) + content
