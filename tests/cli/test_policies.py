"""``hookline policy check``: what policies would refuse, of manifests."""

from __future__ import annotations

import pytest

POLICY = """\
apiVersion: hookline.dev/v1alpha1
kind: PluginTrustPolicy
metadata: {name: payments}
spec:
  namespaceSelector: {matchLabels: {team: payments}}
  pluginSelector: {names: ["guard*"]}
  permissions: [kv.read]
  references: Digest
---
apiVersion: hookline.dev/v1alpha1
kind: PluginTrustPolicy
metadata: {name: audited}
spec: {mode: Audit, sources: [http]}
"""
PLUGIN = """\
apiVersion: hookline.dev/v1alpha1
kind: WasmPlugin
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  permissions: [{permissions}]
  source: {{oci: {{reference: "{reference}", insecure: true}}}}
"""
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {name: pay, labels: {team: payments}}\n"
PINNED = f"registry.example.com/plugins/guard@sha256:{'a' * 64}"


def plugin(name="guard", namespace="pay", permissions="kv.read", reference=PINNED):
    """A manifest."""
    return PLUGIN.format(name=name, namespace=namespace, permissions=permissions, reference=reference)


@pytest.fixture
def check(hookline, tmp_path):
    """Judges plugins by policies, each a text."""

    def run(plugins, policies=POLICY, *more):
        (tmp_path / "policies").mkdir(exist_ok=True)
        (tmp_path / "policies" / "policy.yaml").write_text(policies)
        (tmp_path / "plugins.yaml").write_text("---\n".join([NAMESPACE, *plugins]))
        return hookline("policy", "check", "policies", "plugins.yaml", *more, "--json")

    return run


def test_a_plugin_that_all_policies_allow_passes(check):
    """What Audit would refuse is told, and passes."""
    done = check([plugin()])
    assert done.code == 0, done
    (refusal,) = done.json["refusals"]
    assert (refusal["policy"], refusal["mode"]) == ("audited", "Audit")
    assert refusal["message"].startswith("spec.source.oci")


def test_each_thing_that_is_refused_is_told(check):
    """With the field, and by which policy."""
    done = check([plugin(permissions="kv.read, http.fetch", reference="registry.example.com/plugins/guard:1")])
    assert done.code == 1
    told = [each["message"] for each in done.json["refusals"] if each["policy"] == "payments"]
    assert [each.partition(":")[0] for each in told] == ["spec.source.oci.reference", "spec.permissions"]


@pytest.mark.parametrize(("name", "namespace"), [("other", "pay"), ("guard", "elsewhere")])
def test_a_policy_judges_what_it_selects(check, name, namespace):
    """By name, and by the labels of the namespace."""
    done = check([plugin(name=name, namespace=namespace, permissions="http.fetch")])
    assert done.code == 0, done
    assert {each["policy"] for each in done.json["refusals"]} == {"audited"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("permissions:", "permisions:", "spec.permisions: there is no such field; did you mean permissions?"),
        ("namespaceSelector:", "namespaceselector:", "did you mean namespaceSelector?"),
        (
            "matchLabels:",
            "matchlabel:",
            "spec.namespaceSelector.matchlabel: there is no such field; did you mean match",
        ),
        ("[kv.read]", "[kv]", 'spec.permissions[0]: "kv" is not a permission'),
        ("mode: Audit", "mode: Audited", "spec.mode"),
        ("kind: PluginTrustPolicy", "kind: PluginTrustPolice", "did you mean hookline.dev/v1alpha1 PluginTrustPolicy?"),
        ("permissions: [kv.read]", "permissions: [kv.read", "this cannot be read"),
    ],
)
def test_what_is_wrong_in_a_policy_is_told(check, old, new, said):
    """Strictly: a misspelt field would judge nothing."""
    done = check([plugin()], POLICY.replace(old, new, 1))
    assert done.code == 2, done
    assert any(said in each for each in done.json["problems"]), done.json["problems"]


def test_a_file_that_cannot_be_read_is_told_with_its_line(check):
    """As an editor jumps to it."""
    done = check([plugin()], POLICY + "---\na: b: c\n")
    assert "policy.yaml:15: " in done.json["problems"][0]


SIGNED = """\
apiVersion: hookline.dev/v1alpha1
kind: PluginTrustPolicy
metadata: {{name: signed}}
spec:
  mode: {mode}
  signatures: {{anyOf: [{{name: release, key: {{from: {{{keys}}}}}}}]}}
"""


@pytest.mark.parametrize(
    ("mode", "key", "code"), [("Enforce", "release", 0), ("Enforce", "other", 1), ("Audit", "other", 0)]
)
def test_signatures_are_verified_where_asked(hookline, keys, push, check, mode, key, code):
    """With the keys beside the policy. Without ``--signatures`` nobody is asked."""
    reference = push("policies/guard:1")
    assert hookline("sign", reference, "--key", "release.key", "--insecure").code == 0
    policy = SIGNED.format(mode=mode, keys=f"file: ../{key}.pub")
    done = check([plugin(reference=reference)], policy, "--signatures")
    assert done.code == code, done
    assert len(done.json["refusals"]) == (key == "other")
    assert check([plugin(reference=reference)], policy).json["refusals"] == []


def test_keys_of_a_secret_are_read_from_the_documents(hookline, keys, push, check, tmp_path):
    """As the operator reads them from its namespace."""
    reference = push("policies/secret:1")
    assert hookline("sign", reference, "--key", "release.key", "--insecure").code == 0
    pem = (tmp_path / "release.pub").read_text().replace("\n", "\n    ")
    secret = (
        "apiVersion: v1\nkind: Secret\nmetadata: {name: signers, namespace: hookline-system}\n"
        f"stringData:\n  release.pub: |\n    {pem}\n"
    )
    policy = SIGNED.format(mode="Enforce", keys="secret: {name: signers}")
    done = check([plugin(reference=reference), secret], policy, "--signatures")
    assert done.code == 0, done
    missing = check([plugin(reference=reference)], policy, "--signatures")
    assert missing.code == 2
    assert "there is no Secret 'signers'" in missing.json["problems"][0]


def test_what_cannot_be_had_is_unknown(check):
    """That is neither a pass nor a refusal."""
    policy = SIGNED.format(mode="Enforce", keys="file: ../release.pub").replace(
        "from: {file: ../release.pub}", "pem: x"
    )
    done = check([plugin(reference="127.0.0.1:1/a/b:1")], policy, "--signatures")
    assert done.code == 2
    assert "not a public key in PEM" in done.json["problems"][0]


def test_a_registry_that_is_away_is_unknown(hookline, keys, check):
    """With an exit code of its own."""
    policy = SIGNED.format(mode="Enforce", keys="file: ../release.pub")
    done = check([plugin(reference="127.0.0.1:1/a/b:1")], policy, "--signatures")
    assert done.code == 3
    assert "pay/guard" in done.json["unknown"][0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.yaml"], "none.yaml cannot be read"),
        (["empty.yaml"], "no PluginTrustPolicy"),
        (["empty.yaml", "--kubeconfig", "none"], "--kubeconfig: none cannot be used"),
    ],
)
def test_what_cannot_be_judged_is_told(hookline, tmp_path, arguments, said):
    """In one sentence."""
    (tmp_path / "empty.yaml").write_text("")
    done = hookline("policy", "check", *arguments)
    assert done.code == 2
    assert said in done.sentence
