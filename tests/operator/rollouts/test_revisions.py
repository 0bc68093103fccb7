"""What is kept of a plugin is the operator's own: nobody changes it unseen, and an upgrade loses none of it."""

from __future__ import annotations

import base64
import json

import pytest

from cluster.errors import ClusterError
from hookline_api.revisions import MAX_REVISION_DATA
from hookline_operator.cluster.revisions import Seal, body_of

OLD = "controllerrevisions"
KEY_SECRET = "hookline-operator-key"


async def good(tenant, eventually, reason="NoMatchingPods", name="guard"):
    """Wait until the plugin is resolved; what is kept of it."""
    await eventually(lambda: (tenant.ready(name) or ("", ""))[1] == reason, reason)
    found = [each for each in tenant.revisions() if each["plugin"] == name]
    return max(found, key=lambda each: each["revision"])


def delete(tenant, kind, name):
    """One object of the tenant's namespace."""
    tenant.plane.kubectl("delete", kind, name, f"--namespace={tenant.name}")


def patch(tenant, kind, name, change):
    """Merge a change into one object."""
    tenant.plane.kubectl("patch", kind, name, f"--namespace={tenant.name}", "--type=merge", "-p", json.dumps(change))


def create(tenant, body):
    """As somebody who may write revisions would."""
    tenant.plane.kubectl("create", "--filename=-", f"--namespace={tenant.name}", input=json.dumps(body))


async def kept_as_before(operator, tenant, eventually, source, **spec):
    """Have an operator that kept ControllerRevisions be all that ever worked here; the name of what it kept."""
    tenant.plugin("guard", source, **spec)
    kept = await good(tenant, eventually)
    operator.stop()
    name = tenant.keep_as_before("guard", json.loads(kept["data"]), number=3)
    delete(tenant, "wasmpluginrevision", kept["metadata"]["name"])
    return name


async def test_what_resolved_is_kept_as_a_revision_of_its_own_kind(operator, tenant, module, eventually):
    """One for each plugin, which it owns; a table shows it, and none is in Kubernetes' own kind."""
    tenant.plugin("guard", tenant.module("one", module("v1")))
    first = await good(tenant, eventually)
    uid = tenant.get("guard")["metadata"]["uid"]
    assert [each["uid"] for each in first["metadata"]["ownerReferences"]] == [uid]
    assert (first["plugin"], first["revision"]) == ("guard", 1)
    assert json.loads(first["data"])["artifact"]["digest"] == first["digest"]
    assert tenant.status("guard")["revisions"][0]["revision"] == first["metadata"]["name"].rpartition("-")[2]
    tenant.plugin("guard", tenant.module("two", module("v2")))
    await eventually(lambda: [each["revision"] for each in tenant.revisions()] == [2], "the next one, alone")
    table = tenant.plane.kubectl("get", "wpr", f"--namespace={tenant.name}")
    assert table.splitlines()[0].split() == ["NAME", "PLUGIN", "REVISION", "DIGEST", "AGE"]
    assert table.splitlines()[1].split()[1:3] == ["guard", "2"]
    assert tenant.revisions(OLD) == []


@pytest.mark.parametrize("field", ["data", "digest", "plugin"])
async def test_the_api_server_lets_nobody_change_what_is_kept(operator, tenant, module, eventually, field):
    """Not even an administrator; of a changed name of one setting too, which CEL does not see in a free object."""
    tenant.plugin("guard", tenant.module("one", module("v1")), config={"limit": 1})
    kept = await good(tenant, eventually)
    other = kept[field].replace("limit", "timit") if field == "data" else "other"
    assert other != kept[field]
    with pytest.raises(ClusterError, match="never changes"):
        patch(tenant, "wpr", kept["metadata"]["name"], {field: other})
    assert operator.process.poll() is None


@pytest.mark.parametrize(
    "wrong",
    [{"data": "x" * (MAX_REVISION_DATA + 1)}, {"revision": 0}, {"revision": 2**53 + 1}, {"seal": "0"}, {"data": None}],
    ids=["large", "zero", "number", "seal", "none"],
)
def test_the_definition_bounds_each_field(tenant, wrong):
    """Whoever may write them finds no room for more than the operator does."""
    body = {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPluginRevision", "metadata": {"name": "a"},
        "plugin": "guard", "revision": 1, "digest": "sha256:0", "data": "{}",
    }  # fmt: skip
    create(tenant, body)
    with pytest.raises(ClusterError, match=r"[Ii]nvalid"):
        create(tenant, body | {"metadata": {"name": "b"}} | wrong)


async def test_settings_that_are_too_large_to_be_kept_are_refused_in_one_sentence(operator, tenant, module, eventually):
    """Quotes in quotes: the plugin fits into the API, what is kept of it would not. Without them, it is good."""
    source = tenant.module("one", module("v1"))
    tenant.plugin("guard", source, config={"list": ['"' * 1000] * 500})
    await eventually(lambda: tenant.ready("guard") == ("False", "ConfigInvalid"), "ConfigInvalid")
    assert "it is too large to be kept" in tenant.status("guard")["conditions"]["Ready"]["message"]
    assert operator.process.poll() is None
    tenant.plugin("guard", source, config={"list": ["x" * 2000] * 500})
    await good(tenant, eventually)


def _but_observed(status):
    """A status but for the condition that says whether an operator is at work: between two of them none is."""
    return status | {"conditions": [each for each in status["conditions"] if each["type"] != "Observed"]}


async def test_an_upgrade_loses_no_revision_also_with_the_registry_away(
    new_operator, tenant, module, connect, eventually, need, tmp_path
):
    """A pod that comes gets what ran, no status is written, and what was kept before stays for the way back."""
    from local_registry import LocalRegistry

    registry = LocalRegistry(need("docker-registry", "docker-registry"), tmp_path / "registry")
    registry.start()
    registry.push("guard:v1", module("v1"))
    first = new_operator().start()
    source = {"oci": {"reference": f"{registry.host}/guard:v1", "insecure": True}}
    name = await kept_as_before(first, tenant, eventually, source)
    registry.stop()
    before = tenant.get("guard")
    second = new_operator().start()
    (kept,) = await eventually(tenant.revisions, "what was taken over")
    assert _but_observed(tenant.get("guard")["status"]) == _but_observed(before["status"])
    tenant.pod("a")
    sidecar = await connect(second, tenant, "a", download=False)
    await sidecar.until(sidecar.runs)
    (old,) = tenant.revisions(OLD)
    assert kept["metadata"]["name"] == old["metadata"]["name"] == name
    assert (kept["revision"], json.loads(kept["data"])) == (3, old["data"])
    assert kept["metadata"]["ownerReferences"] == old["metadata"]["ownerReferences"]
    ran = sidecar.runs()
    assert tenant.status("guard")["revisions"] == before["status"]["revisions"]
    # Once more: nothing is left to do.
    second.stop()
    third = new_operator("--migrate-controller-revisions=false").start()
    late = await connect(third, tenant, "a", download=False)
    await late.until(lambda: late.runs() == ran)
    assert [each["metadata"]["resourceVersion"] for each in tenant.revisions()] == [kept["metadata"]["resourceVersion"]]


async def test_a_replica_serves_what_an_older_leader_keeps_meanwhile(new_operator, tenant, module, connect, eventually):
    """A follower of the new version writes nothing; it hands out what the old leader keeps, now and later."""
    first = new_operator().start()
    await kept_as_before(first, tenant, eventually, tenant.module("one", module("v1")))
    # The old leader is alive: its Lease is held by somebody who renews it.
    lease = tenant.plane.get("lease", "hookline-operator", f"--namespace={first.home}")
    assert not lease["spec"].get("holderIdentity")
    follower = new_operator("--lease=held-by-the-old-leader")
    held = {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "held-by-the-old-leader"},
        "spec": {"holderIdentity": "old_127.0.0.1:1", "leaseDurationSeconds": 3600,
                 "renewTime": "2099-01-01T00:00:00.000000Z", "acquireTime": "2099-01-01T00:00:00.000000Z"},
    }  # fmt: skip
    tenant.plane.kubectl("create", "--filename=-", f"--namespace={follower.home}", input=json.dumps(held))
    follower.start()
    tenant.pod("a")
    sidecar = await connect(follower, tenant, "a", download=False)
    await sidecar.until(sidecar.runs)
    before = sidecar.runs()
    (old,) = tenant.revisions(OLD)
    changed = old["data"] | {"spec": old["data"]["spec"] | {"config": {"limit": 2}}}
    tenant.plugin("guard", old["data"]["spec"]["source"], config={"limit": 2})
    tenant.keep_as_before("guard", changed, number=4)
    await sidecar.until(lambda: sidecar.bundle_of("guard").config == {"limit": 2})
    assert sidecar.runs() != before
    assert tenant.revisions() == []


async def test_an_older_operator_that_was_at_work_again_is_followed(new_operator, tenant, module, connect, eventually):
    """Back to the old version and forth again: what that one kept last is what goes on."""
    operator = new_operator().start()
    source = tenant.module("one", module("v1"))
    tenant.plugin("guard", source, config={"limit": 1})
    ours = await good(tenant, eventually)
    operator.stop()
    tenant.plugin("guard", source, config={"limit": 2})
    data = json.loads(ours["data"])
    data["spec"]["config"] = {"limit": 2}
    # The API server's clock counts seconds, and what is of the same second as ours is not newer.
    wanted = ours["metadata"]["creationTimestamp"]

    def later():
        tenant.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "clock"}})
        now = tenant.plane.get("configmap", "clock", f"--namespace={tenant.name}")["metadata"]["creationTimestamp"]
        delete(tenant, "configmap", "clock")
        return now > wanted

    await eventually(later, "the next second")
    name = tenant.keep_as_before("guard", data)
    operator.start()
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    await sidecar.until(sidecar.runs)
    assert sidecar.bundle_of("guard").config == {"limit": 2}
    await eventually(lambda: [each["metadata"]["name"] for each in tenant.revisions()] == [name], "ours, of the same")
    (kept,) = tenant.revisions()
    assert kept["revision"] == 2


async def test_what_no_status_vouches_for_is_not_taken_over(new_operator, new_tenant, module, connect, eventually):
    """Whoever may write ControllerRevisions makes no pod run another's module by way of the migration."""
    tenant, thief = new_tenant(), new_tenant()
    operator = new_operator().start()
    tenant.plugin("secret", tenant.module("one", module("theirs")))
    theirs = json.loads((await good(tenant, eventually, name="secret"))["data"])
    thief.plugin("guard", {"configMap": {"name": "nowhere"}})
    await eventually(lambda: thief.ready("guard") == ("False", "FetchFailed"), "FetchFailed")
    operator.stop()
    forged = theirs | {"plugin": "guard", "spec": thief.get("guard")["spec"]}
    status = thief.get("guard")["status"]
    thief.keep_as_before("guard", forged)
    # Its status is not the thief's to write.
    patch_status(thief, "guard", {"revisions": None, "artifact": None} | status)
    operator.start()
    thief.pod("a")
    sidecar = await connect(operator, thief, "a")
    await sidecar.until(lambda: sidecar.running is not None)
    await eventually(lambda: thief.ready("guard") == ("False", "FetchFailed"), "FetchFailed")
    assert sidecar.bundle_of("guard").artifact is None
    assert thief.revisions() == []


def patch_status(tenant, name, status):
    """As the operator alone may."""
    tenant.plane.kubectl("patch", "wasmplugin", name, f"--namespace={tenant.name}", "--subresource=status",
                         "--type=merge", "-p", json.dumps({"status": status}))  # fmt: skip


@pytest.mark.parametrize("how", ["unsealed", "other key", "another plugin's", "replayed with a higher number"])
async def test_a_revision_without_the_operators_seal_is_not_handed_out(
    new_operator, new_tenant, module, connect, eventually, how
):
    """Not by the replica that sees it come, nor by one that starts with it; it is counted, and the log says it."""
    tenant, thief = new_tenant(), new_tenant()
    operator = new_operator().start()
    tenant.plugin("guard", tenant.module("one", module("good")))
    thief.plugin("guard", thief.module("one", module("evil")))
    ours = await good(tenant, eventually)
    evil = (await good(thief, eventually))["data"]
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    await sidecar.until(sidecar.runs)
    ran = sidecar.runs()
    uid = tenant.get("guard")["metadata"]["uid"]
    secret = tenant.plane.get("secret", KEY_SECRET, f"--namespace={operator.home}")
    key = b"2" * 32 if how == "other key" else base64.b64decode(secret["data"]["seal.key"])
    whose = thief.get("guard")["metadata"]["uid"] if how == "another plugin's" else uid
    body = body_of(namespace=tenant.name, plugin="guard", uid=whose, number=99, template=evil.encode(),
                   seal=Seal(None if how == "unsealed" else lambda: key))  # fmt: skip
    body["metadata"]["labels"]["hookline.dev/plugin-uid"] = uid
    if how == "replayed with a higher number":
        body |= {"seal": ours["seal"], "data": ours["data"], "digest": ours["digest"]}
        body["metadata"]["name"] = "guard-replayed"
    body["metadata"]["ownerReferences"][0]["uid"] = uid
    create(tenant, body)
    words = f"'{tenant.name}/{body['metadata']['name']}' has no seal of this operator's key"
    await eventually(lambda: words in operator.log.read_text(), "the refusal")
    assert operator.metrics()["hookline_operator_revisions_refused"] >= 1
    tenant.pod("b")
    late = await connect(operator, tenant, "b")
    await late.until(lambda: late.runs() == ran)
    operator.stop()
    operator.start()
    again = await connect(operator, tenant, "a")
    await again.until(again.runs)
    assert (again.runs(), sidecar.runs()) == (ran, ran)
    tenant.plugin("guard", tenant.module("two", module("v2")))
    await again.until(lambda: again.runs() != ran)
    await eventually(lambda: len(tenant.revisions()) == 1, "one revision, which is ours")


@pytest.mark.parametrize("when", ["between two starts", "while it runs"])
async def test_a_key_that_is_lost_takes_nothing_from_the_pods(new_operator, tenant, module, connect, eventually, when):
    """The statuses vouch for what is kept; it gets the new seal, and no plugin is resolved again."""
    first = new_operator().start()
    tenant.plugin("guard", tenant.module("one", module("v1")))
    before = await good(tenant, eventually)
    second = new_operator(first="import hookline_operator.cluster.sealing as s; s._PERIOD_S = 0.2")
    if when == "while it runs":
        second.start()
    first.stop()
    other = base64.b64encode(b"2" * 32).decode()
    tenant.plane.kubectl("patch", "secret", KEY_SECRET, f"--namespace={first.home}", "--type=merge",
                         "-p", json.dumps({"data": {"seal.key": other}}))  # fmt: skip
    if when != "while it runs":
        second.start()
    tenant.pod("a")
    sidecar = await connect(second, tenant, "a")
    await sidecar.until(sidecar.runs)
    await eventually(lambda: tenant.revisions()[0]["seal"] != before["seal"], "the new seal")
    (after,) = tenant.revisions()
    # What is resolved anew has another number.
    for same in ("revision", "data", "digest"):
        assert after[same] == before[same]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


async def test_one_whose_name_was_guessed_is_replaced(new_operator, tenant, module, connect, eventually):
    """Names are made of what they hold: one of that name and another content is not ours, and keeps nobody waiting."""
    operator = new_operator().start()
    source = tenant.module("one", module("v1"))
    tenant.plugin("guard", source)
    kept = await good(tenant, eventually)
    tenant.plugin("guard", source, config={"a": 1})

    def next_one():
        (*_, one) = found = [each["metadata"]["name"] for each in tenant.revisions()]
        return len(found) == 1 and one != kept["metadata"]["name"]

    await eventually(next_one, "the next one, alone")
    body = {key: kept[key] for key in ("apiVersion", "kind", "plugin", "digest")} | {"revision": 1, "data": "{}"}
    body["metadata"] = {"name": kept["metadata"]["name"], "labels": kept["metadata"]["labels"]}
    create(tenant, body)
    tenant.plugin("guard", source)

    def back():
        found = tenant.revisions()  # two of them, until the one before it is deleted
        return [(each["metadata"]["name"], each["data"]) for each in found] == [
            (kept["metadata"]["name"], kept["data"])
        ]

    await eventually(back, "the first content again, alone")
    await eventually(lambda: "is not ours, and is replaced" in operator.log.read_text(), "a line")
