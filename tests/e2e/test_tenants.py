"""What is one namespace's stays with it: plugins, modules, pull secrets; whatever token somebody gets hold of."""

from __future__ import annotations

import hashlib

import pytest

from installation import AUDIENCE, HOME, identity_module, until

OPERATOR = f"https://hookline-operator.{HOME}.svc"


@pytest.fixture
def asks(new_tenant):
    """``asks(token, path)``: the status that the operator answers to curl in a pod that is not Hookline's."""
    outsider = new_tenant()
    curl = outsider.tools()
    authority = outsider.cluster.get("configmap", "hookline-ca", f"--namespace={HOME}")["data"]["ca.crt"]

    def ask(token: str, path: str) -> int:
        script = (
            'printf %s "$1" >/dev/shm/ca && exec curl -s -o /dev/null -w %{http_code} --cacert /dev/shm/ca -H "$2" "$3"'
        )
        return int(curl("sh", "-c", script, "sh", authority, f"Authorization: Bearer {token}", OPERATOR + path))

    return ask


def test_three_namespaces_do_not_see_each_others_plugins_or_modules(new_tenant, registry, asks):
    """Plugins of one name that differ; and a token opens its own pod's modules only, whoever shows it."""
    tenants = {name: new_tenant() for name in ("red", "green", "blue")}
    modules = {name: identity_module(name) for name in tenants}
    blobs = {name: f"/v1/blobs/{hashlib.sha256(data).hexdigest()}" for name, data in modules.items()}
    pods = {}
    for name, tenant in tenants.items():
        registry.push(f"{name}:v1", modules[name])
        tenant.plugin("guard", f"{registry.host}/{name}:v1")
        if name == "green":
            tenant.plugin("also", f"{registry.host}/{name}:v1", priority=-1)
        (pods[name],) = tenant.proxies(1)
    for name, tenant in tenants.items():
        tenant.ready("guard")
        assert pods[name].asks() == (200, f"hello, {name}")
        assert pods[name].knows() == ({"guard", "also"} if name == "green" else {"guard"})
        assert tenant.status("guard")["pods"]["matched"] == 1
    for thief in tenants:
        token = pods[thief].token()
        found = {name: asks(token, path) for name, path in blobs.items()}
        assert found == {name: 200 if name == thief else 404 for name in tenants}
        assert asks(token, "/v1/blobs/" + "0" * 64) == 404
        assert asks(token, "/v1/peers") == 403


def test_tokens_of_another_kind_open_nothing(tenant, registry, asks):
    """For the Kubernetes API, of no pod, of a pod without a sidecar, made up, none at all."""
    data = identity_module("tokens")
    registry.push("tokens:v1", data)
    tenant.plugin("guard", f"{registry.host}/tokens:v1")
    (pod,) = tenant.proxies(1)
    tenant.ready("guard")
    tenant.tools()
    cluster, uid = tenant.cluster, pod.found["metadata"]["uid"]
    tools = cluster.get("pod", "tools", f"--namespace={tenant.name}")["metadata"]["uid"]
    blob = f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"
    bound = {"bound_pod": (pod.name, uid)}
    for path in (blob, "/v1/distribution"):
        assert asks(cluster.token(tenant.name, "default", **bound), path) == 401
        assert asks(cluster.token(tenant.name, "default", "another.dev", **bound), path) == 401
        assert asks(cluster.token(tenant.name, "default", AUDIENCE), path) == 403
        assert asks(cluster.token(tenant.name, "default", AUDIENCE, bound_pod=("tools", tools)), path) == 403
        assert asks("made.up.token", path) == 401
        assert asks("", path) == 401
    assert asks(cluster.token(tenant.name, "default", AUDIENCE, **bound), blob) == 200


def test_the_token_of_a_deleted_pod_opens_nothing(tenant, registry, asks):
    """As soon as the pod is going, although the token itself is good for another hour."""
    data = identity_module("deleted")
    registry.push("deleted:v1", data)
    tenant.plugin("guard", f"{registry.host}/deleted:v1")
    (pod,) = tenant.proxies(1)
    tenant.ready("guard")
    token, blob = pod.token(), f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"
    assert asks(token, blob) == 200
    tenant.kubectl("delete", "deployment", "proxy")
    tenant.kubectl("wait", "--for=delete", f"pod/{pod.name}", "--timeout=300s")
    until(lambda: asks(token, blob) in {401, 403}, "a refusal")
    assert asks(token, "/v1/distribution") in {401, 403}


def test_a_wrong_pull_secret_gains_nothing_from_anothers_right_one(new_tenant, password_registry):
    """The same image in two namespaces and twice in one: who cannot pull it does not get it from a cache."""
    digest = password_registry.push("paid:v1", identity_module("paid"))
    reference = f"{password_registry.host}/paid@{digest}"
    right, wrong = new_tenant(), new_tenant()
    right.apply(password_registry.pull_secret("good"))
    right.apply(password_registry.pull_secret("bad", password="wrong"))
    wrong.apply(password_registry.pull_secret("pull", password="wrong"))
    right.plugin("guard", reference, secret="good")
    (pod,) = right.proxies(1)
    right.ready("guard")
    assert pod.asks() == (200, "hello, paid")
    right.plugin("second", reference, secret="bad")
    right.plugin("third", reference)
    wrong.plugin("guard", reference, secret="pull")
    for tenant, name in ((right, "second"), (right, "third"), (wrong, "guard")):
        assert "401" in tenant.failed(name, "FetchFailed")
        assert "artifact" not in tenant.status(name)
    until(lambda: pod.knows() == {"guard", "second", "third"}, "the sidecar knows of all three")
    assert set(pod.runs()) == {"guard"}
    assert right.status("guard")["conditions"]["Ready"]["status"] == "True"
