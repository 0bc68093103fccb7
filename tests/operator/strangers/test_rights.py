"""Each right of the operator's roles is one that it uses, by the API server's own record of what it asked for."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import aiohttp
import pytest
import yaml

from cluster.binaries import binary

ROOT = Path(__file__).parents[3]


def chart(home):
    """What the chart makes of its defaults, under the names that the operators of these tests have."""
    rendered = subprocess.run(
        [binary("helm"), "template", home, ROOT / "helm", "--namespace", home, "--set", "fullnameOverride=hookline",
         "--kube-version=1.34"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [each for each in yaml.safe_load_all(rendered) if each]


def granted(objects):
    """(group, resource, verb, name) of each right of the operator's; the name is empty where it may be any."""
    bound = {
        (each["roleRef"]["kind"], each["roleRef"]["name"])
        for each in objects
        if each["kind"] in {"RoleBinding", "ClusterRoleBinding"}
    }
    return {
        (group, resource, verb, name)
        for role in objects
        if (role["kind"], role["metadata"]["name"]) in bound
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def asked(control_plane, home, tenant):
    """What the operator of this home asked for, by the API server's audit log, and the HTTP status of the answer.

    Of namespaces, only of the tenant's and its own: in one of an earlier test, which is being deleted, nobody may
    create anything any more.
    """
    found = {}
    for line in control_plane.audit_log.read_text().splitlines():
        event = json.loads(line)
        if event["user"]["username"] != f"system:serviceaccount:{home}:hookline-operator" or "objectRef" not in event:
            continue
        what = event["objectRef"]
        if what.get("namespace") not in {None, home, tenant}:
            continue
        resource = "/".join(part for part in (what["resource"], what.get("subresource")) if part)
        key = (what.get("apiGroup", ""), resource, event["verb"], what.get("name", ""))
        found.setdefault(key, set()).add(event.get("responseStatus", {}).get("code"))
    return found


async def test_each_right_is_used_and_nothing_else_is_asked_for(
    new_operator, home, tenant, module, connect, control_plane, eventually
):
    """The life of a plugin and of an operator: whatever verb nothing of it needs is not to be in the roles."""
    objects = chart(home)
    roles = {"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
    control_plane.apply(*(each for each in objects if each["kind"] in roles))
    name = next(each["metadata"]["name"] for each in objects if each["kind"] == "MutatingWebhookConfiguration")
    entry = {
        "name": "nobody.hookline.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"service": {"name": "hookline-operator", "namespace": home}}, "failurePolicy": "Ignore",
        "rules": [{"apiGroups": ["nothing.example"], "apiVersions": ["v1"], "resources": ["none"],
                   "operations": ["CREATE"]}],
    }  # fmt: skip
    configurations = [
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": [entry]}
        for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    ]
    # Somebody emptied all three: the operator puts them right.
    own = [("Secret", "hookline-operator-tls"), ("Secret", "hookline-operator-key"), ("ConfigMap", "hookline-ca")]
    control_plane.apply(
        *({"apiVersion": "v1", "kind": kind, "metadata": {"name": own, "namespace": home}} for kind, own in own),
        *configurations,
    )
    policy = {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "PluginTrustPolicy", "metadata": {"name": home},
        "spec": {"mode": "Audit", "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": tenant.name}}},
    }  # fmt: skip
    control_plane.apply(policy)
    try:
        operator = new_operator(f"--webhooks={name}").start()
        tenant.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "limits"}, "stringData": {"k": "v"}})
        tenant.pod("a")
        sidecar = await connect(operator, tenant, "a")
        from_secret = [{"secretRef": {"name": "limits"}, "key": "k", "path": "limit"}]
        tenant.plugin("guard", tenant.module("one", module("v1")), configFrom=from_secret)
        await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
        first = sidecar.runs()
        # A pod that the watch does not bring.
        tenant.pod("other", labels={"hookline.dev/sidecar": "false"})
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await connect(operator, tenant, "other")
        tenant.plugin("guard", tenant.module("two", module("v2")), configFrom=from_secret)
        await sidecar.until(lambda: sidecar.runs() != first)
        await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
        await eventually(lambda: len(tenant.revisions()) == 1, "one revision")
        operator.stop()
        # What is lost, or somebody spoiled, is made anew.
        control_plane.kubectl("delete", "secret/hookline-operator-tls", "configmap/hookline-ca", f"--namespace={home}")
        (kept,) = tenant.revisions()
        control_plane.kubectl("patch", "wpr", kept["metadata"]["name"], f"--namespace={tenant.name}", "--type=merge",
                              "-p", json.dumps({"seal": "0" * 64}))  # fmt: skip
        operator.start()
        await eventually(lambda: tenant.revisions()[0]["seal"] == kept["seal"], "its seal")
        rights = granted(objects)
        used = asked(control_plane, home, tenant.name)

        def unused():
            used.update(asked(control_plane, home, tenant.name))
            found = {(*key[:3], name) for key in used for name in ("", key[3])}
            return rights - found

        await eventually(lambda: not unused(), f"the use of {sorted(unused())}")
        forbidden = {key for key, statuses in used.items() if 403 in statuses}
        assert forbidden == set()
    finally:
        control_plane.kubectl("delete", "plugintrustpolicy", home, "--ignore-not-found")
        for each in configurations:
            control_plane.kubectl("delete", each["kind"], name, "--ignore-not-found")
