"""What a policy would stop is told when it is applied, and a plugin that it forbids is refused when that is applied.

The way is the one of production: the operator's process with the chart's webhook configurations at a real API server.
"""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import uuid

import pytest

from cluster.binaries import binary
from hookline_operator.webhooks.dry_run import ENTRY, PATH
from waiting import PATIENCE_S, until
from webhook_configurations import configurations, rights, service

from .conftest import wants

SOURCE = {"oci": {"reference": "registry.example/team/plugin:1"}}


class Kubectl:
    """What people see: the words of kubectl, warnings included."""

    def __init__(self, plane, replica, configuration):
        self.plane, self.replica, self.configuration = plane, replica, configuration

    def __call__(self, *arguments, found=None):
        """What it prints."""
        argv = [binary("kubectl"), "--kubeconfig", self.plane.kubeconfig, *arguments]
        text = None if found is None else json.dumps(found)
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False, timeout=2 * PATIENCE_S)
        return done.stdout + done.stderr

    def apply(self, found, *, dry_run=False, namespace=None):
        """``kubectl apply``."""
        flags = ["--dry-run=server"] if dry_run else []
        where = [f"--namespace={namespace}"] if namespace else []
        return self("apply", *flags, *where, "--filename=-", found=found)

    def secret_path(self):
        """Where the API server asks, as the webhook configuration says it."""
        found = self.plane.get("validatingwebhookconfiguration", self.configuration)
        entry = next(each for each in found["webhooks"] if each["name"] == ENTRY)
        return entry["clientConfig"]["service"].get("path", "")


@pytest.fixture
def kubectl(control_plane, home, new_operator):
    """An operator whose webhooks the API server asks."""
    name = f"policies-{uuid.uuid4().hex[:8]}"
    replica = new_operator(f"--webhooks={name}")
    made = [*configurations(home, replica.port, name=name), *rights(home, name=name)]
    control_plane.apply(service(), namespace=home)
    control_plane.apply(*made)
    try:
        replica.start()
        found = Kubectl(control_plane, replica, name)
        wrong = policy(f"wrong-{name}", mode="Enforce", repositories=["registry.example"])
        until(lambda: "fits nothing" in found.apply(wrong, dry_run=True), "the API server asks the operator")
        until(lambda: PATH in found.secret_path(), "the path that is told to the API server alone")
        until(lambda: "it selects no plugin" in found.apply(nothing(name), dry_run=True), "a dry run")
        yield found
    finally:
        for each in made:
            control_plane.delete(each["kind"], each["metadata"]["name"])


def nothing(name):
    """A policy that is for no plugin."""
    return policy(f"none-{name}", pluginSelector={"names": ["nobody-has-this-name"]}, references="Digest")


def policy(name, tenant=None, **spec):
    """A policy for the plugins of one namespace."""
    if tenant is not None:
        spec["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": tenant.name}}
    return {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "PluginTrustPolicy", "metadata": {"name": name}, "spec": spec,
    }  # fmt: skip


def plugin(name, *, labels=None, **spec):
    """A WasmPlugin."""
    return {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": name, "labels": labels or {}},
        "spec": {"source": SOURCE, **spec},
    }  # fmt: skip


def there(control_plane, name):
    """Whether a policy is stored."""
    return name in control_plane.kubectl("get", "plugintrustpolicies", "--output=name")


def warned(text):
    """The warnings, without what kubectl puts before them."""
    return [line.removeprefix("Warning: ") for line in text.splitlines() if line.startswith("Warning: ")]


def test_a_dry_run_says_what_a_policy_would_stop_and_stores_nothing(kubectl, control_plane, tenant, policies):
    """By name, with the reason; in Audit that nothing is stopped; at most five are named."""
    for number in range(7):
        tenant.apply(plugin(f"guard-{number}", permissions=["kv.read"] if number else []))
    name = policies.name("dry")
    asked = policy(name, tenant, permissions=[])

    def first():
        return warned(kubectl.apply(asked, dry_run=True))

    until(lambda: first()[:1] == ["would refuse 6 of 7 plugins that it selects"], lambda: f"a dry run: {first()}")
    summary, *named = first()
    assert named == [
        f"would refuse {tenant.name}/guard-{number}: spec.permissions: kv.read may not be granted; it may be none"
        for number in range(1, 6)
    ]
    assert not there(control_plane, name)
    audit = warned(kubectl.apply(policy(name, tenant, permissions=[], mode="Audit"), dry_run=True))
    assert audit[0] == f"{summary}; in Audit it lets them run"
    passes = warned(kubectl.apply(policy(name, tenant, permissions=["kv.read"]), dry_run=True))
    assert passes == ["would refuse 0 of 7 plugins that it selects"]
    assert all(len(each) <= 256 for each in (*first(), *audit))


def test_an_artifact_that_nobody_has_looked_at_is_counted_as_unknown(
    kubectl, tenant, module, policies, keys, push, eventually
):
    """One that is signed as the policy asks is known once the operator has looked, and what is kept proves it."""
    tenant.plugin("guard", push("v1", module("v1"), keys[0]), verify={"keys": [keys[0].pem]})
    until(lambda: tenant.ready("guard") is not None and tenant.revisions() != [], "a revision")
    tenant.plugin("other", push("v2", module("v2")))

    def says(key):
        return warned(kubectl.apply(policy(policies.name("dry"), tenant, signatures=wants(key)), dry_run=True))

    told = says(keys[0])
    assert told[0] == "would refuse 0 of 2 plugins that it selects"
    assert told[1].startswith("1 plugin needs signatures that nobody has looked at yet")
    assert says(keys[1])[1].startswith("2 plugins need signatures that nobody has looked at yet")


def test_keys_that_are_not_there_are_told_when_the_policy_is_applied(kubectl, control_plane, home, tenant, policies):
    """And once they are there, they are read."""
    name = policies.name("keys")
    signatures = {"anyOf": [{"key": {"from": {"secret": {"name": "plugin-keys"}}}}]}
    tenant.apply(plugin("guard"))
    asked = policy(name, tenant, signatures=signatures)

    def first():
        return warned(kubectl.apply(asked, dry_run=True))

    until(lambda: any("of 1 plugin" in each for each in first()), lambda: f"the plugin: {first()}")
    assert first()[0].startswith("its keys cannot be read, so nothing can be proven: spec.signatures.anyOf[0].key.from")
    assert "there is no Secret 'plugin-keys'" in first()[0]
    assert first()[1] == "would refuse 1 of 1 plugin that it selects"


def test_a_policy_that_is_wrong_is_not_stored(kubectl, control_plane, policies):
    """With a sentence for each mistake."""
    name = policies.name("wrong")
    spec = {"repositories": ["https://registry.example/p"], "signatures": {"anyOf": [{"key": {"pem": "k"}}]}}
    text = kubectl.apply(policy(name, **spec))
    assert 'spec.repositories[0]: "https://registry.example/p" fits nothing: a repository has no scheme' in text
    assert "spec.signatures.anyOf[0].key.pem: is not a public key in PEM" in text
    assert not there(control_plane, name)


def test_a_plugin_that_a_policy_forbids_is_refused_when_it_is_applied(kubectl, tenant, policies):
    """In Audit it is let in with a warning; what is stored already may be labelled and deleted as before."""
    tenant.apply(plugin("before", hooks=["authenticate"]))
    audit = policies.apply("audit", references="Digest", mode="Audit")

    def warns():
        text = kubectl.apply(plugin("guard"), dry_run=True, namespace=tenant.name)
        return any(each.startswith(f"PluginTrustPolicy '{audit}' (Audit) would refuse it") for each in warned(text))

    until(warns, "the policy in Audit")
    name = policies.apply("enforced", references="Digest")

    def refused():
        return kubectl.apply(plugin("guard"), dry_run=True, namespace=tenant.name)

    says = f"PluginTrustPolicy '{name}' forbids it: spec.source.oci.reference: must have a digest"
    until(lambda: says in refused(), refused)
    where = f"--namespace={tenant.name}"
    assert "labeled" in kubectl("label", "wp", "before", "a=b", where)
    assert "deleted" in kubectl("delete", "wp", "before", where)


def test_a_label_that_changes_which_policies_apply_does_not_pass_in_silence(kubectl, tenant, policies):
    """Out of a policy with a warning; into one that forbids the plugin not at all."""
    strict = {"pluginSelector": {"matchLabels": {"trust": "strict"}}, "references": "Digest"}
    loose = {"pluginSelector": {"matchLabels": {"trust": "loose"}}, "references": "Tag"}
    tenant.apply(plugin("guard", labels={"trust": "loose"}))
    one, two = policies.apply("strict", **strict), policies.apply("loose", **loose)
    where = f"--namespace={tenant.name}"

    def label(text):
        return kubectl("label", "wp", "guard", text, "--overwrite", "--dry-run=server", where)

    gone = "does not apply to this plugin any more"
    until(lambda: gone in label("trust=none"), "a warning")
    assert warned(label("trust=none")) == [
        f"metadata.labels: PluginTrustPolicy '{two}' does not apply to this plugin any more"
    ]
    until(lambda: f"PluginTrustPolicy '{one}' forbids it" in label("trust=strict"), "a refusal")
    assert warned(label("other=x")) == []


def test_whoever_takes_the_last_demand_for_signatures_away_is_told(kubectl, tenant, policies, keys):
    """Deleting it, or loosening it; a resource that asks for itself is not counted."""
    tenant.apply(plugin("guard"), plugin("own", verify={"keys": [keys[0].pem]}))
    name = policies.apply("signed", signatures=wants(keys[0]))
    says = f"nothing asks for signatures of 1 plugin any more: {tenant.name}/guard"

    def loosened():
        change = json.dumps([{"op": "remove", "path": "/spec/signatures"}])
        return warned(kubectl("patch", "ptp", name, "--type=json", f"--patch={change}", "--dry-run=server"))

    def deleted():
        return warned(kubectl("delete", "plugintrustpolicy", name, "--dry-run=server"))

    until(lambda: says in loosened(), loosened)
    until(lambda: says in deleted(), deleted)
    policies.apply("too", signatures=wants(keys[1]))
    until(lambda: deleted() == [], deleted)
    assert "deleted" in kubectl("delete", "plugintrustpolicy", name)
    policies.made.discard("signed")


def test_strangers_learn_nothing_of_other_peoples_plugins(kubectl, tenant, policies):
    """Only at the path that the API server was told; everywhere else a policy is judged for itself."""
    tenant.apply(plugin("guard"))
    name = policies.name("dry")
    asked = policy(name, tenant, references="Digest")
    until(lambda: "would refuse 1 of 1" in kubectl.apply(asked, dry_run=True), "the dry run")
    review = {
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "u", "operation": "CREATE", "name": name, "object": asked, "dryRun": True,
                    "kind": {"group": "hookline.dev", "version": "v1alpha1", "kind": "PluginTrustPolicy"}},
    }  # fmt: skip

    def ask(path):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", kubectl.replica.port, timeout=PATIENCE_S, context=context)
        connection.request("POST", path, json.dumps(review), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body

    for path in (PATH, f"{PATH}/", f"{PATH}/{'0' * 40}", f"{kubectl.secret_path()[:-1]}"):
        status, body = ask(path)
        assert (status, tenant.name in body) == (200, False)
        assert "is told at another path" in body
    status, body = ask(kubectl.secret_path())
    assert (status, f"{tenant.name}/guard" in body) == (200, True)
