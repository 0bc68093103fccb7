"""What is kept of a plugin for its trial: pure."""

from __future__ import annotations

import json

import pytest

from hookline_api.bundle import BundleArtifact
from hookline_api.policies import PluginTrustPolicySpec
from hookline_api.status import SignatureStatus
from hookline_artifacts.trust.policy import Policy
from hookline_artifacts.trust.requirement import Requirement
from hookline_operator.cluster.compliance import Proven, audits, complies
from hookline_operator.cluster.plugins import Plugin
from hookline_operator.cluster.revisions import Template

ARTIFACT = {"digest": "sha256:" + "0" * 64, "sha256": "0" * 64, "size": 3, "layout": "raw", "reference": "r/a:v1"}
SPEC = {"source": {"oci": {"reference": "registry.example/acme/guard:v1"}}}


def plugin(spec=SPEC, **metadata):
    """As the API server has it."""
    known = {"namespace": "shop", "name": "guard", "uid": "u", "generation": 1, "resourceVersion": "1"}
    return Plugin.of({"metadata": known | metadata, "spec": spec})


def policy(name, *, asks="", **spec):
    """A policy that asks for signatures by a fingerprint."""
    requirement = Requirement(fingerprint=asks) if asks else None
    return Policy(name=name, spec=PluginTrustPolicySpec.model_validate(spec), requirement=requirement)


def test_what_nobody_asked_for_changes_no_revision():
    """Its name is a digest of the text, and what older operators kept is the same revision to this one."""
    before = {
        "plugin": "guard", "spec": {}, "artifact": ARTIFACT, "hooks": [], "imports": [], "inputs": {}, "proven": {},
        "contents": {}, "notes": [],
    }  # fmt: skip
    assert json.loads(Template.model_validate(before).text()) == before
    signed = Template.model_validate(before).model_copy(
        update={"met": ["f"], "signatures": [SignatureStatus(signer="acme", asked_by="spec.verify")]}
    )
    assert json.loads(signed.text())["met"] == ["f"]
    assert Template.model_validate_json(signed.text()) == signed


def test_the_objects_that_keys_come_from_are_the_plugins_own():
    """A change of one of them is noticed; what holds settings too is more than a key."""
    key = {"from": {"secret": {"name": "keys"}}}
    made = plugin(
        SPEC
        | {
            "verify": {
                "anyOf": [{"key": key}, {"key": {"from": {"secret": {"name": "both"}}}}],
                "trustRoot": {"configMap": {"name": "root"}},
            },
            "configFrom": [{"secretRef": {"name": "both"}, "key": "k", "path": "p"}],
        }
    )
    assert {"keys", "both", "root"} <= made.names
    assert {"Secret/keys", "Secret/both", "ConfigMap/root"} == set(made.settings_from)
    assert made.facts.keys == {"Secret/keys", "ConfigMap/root"}


@pytest.mark.parametrize("labels", [{f"l{number}": "v" for number in range(65)}, {"l": "v" * 20_000}])
def test_labels_that_are_too_many_are_not_known(labels):
    """Some of them would be chosen by whoever wrote them."""
    assert plugin(labels=labels).labels is None
    assert plugin(labels={"b": "2", "a": "1"}).labels == (("a", "1"), ("b", "2"))
    assert plugin(labels={"b": "2"}) != plugin(labels={"b": "3"})


def test_each_policy_is_asked_by_its_mode():
    """Enforced ones must be met; what one in Audit would refuse is told, as long as it is one in Audit."""
    asked = plugin().facts.asked
    artifact = BundleArtifact.model_validate(ARTIFACT | {"version": "1.0.0"})
    proven = Proven(artifact, frozenset({"met"}), {"audited": "PluginTrustPolicy 'later': it is not signed"})
    assert complies([policy("a", asks="met")], asked, proven)
    assert not complies([policy("a", asks="other")], asked, proven)
    assert not complies([policy("later", asks="audited")], asked, proven)
    later = policy("later", asks="audited", mode="Audit")
    assert complies([later], asked, proven)
    assert not complies([policy("new", asks="other", mode="Audit")], asked, proven)
    assert audits([later], asked, proven) == ["PluginTrustPolicy 'later' (Audit) would refuse it: it is not signed"]
    lowest = [{"plugins": ["gu*"], "version": "2.0.0"}]
    assert not complies([policy("new", minimumVersions=lowest)], asked, proven)
    assert complies([policy("new", minimumVersions=lowest, mode="Audit")], asked, proven)
    assert not complies([policy("new", repositories=["other.example/**"])], asked, proven)
