"""``spec.selfTest``: in no revision where it is the default, and what a policy may ask of it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hookline_api.bundle import BundleArtifact, BundlePlugin
from hookline_api.policies import PluginTrustPolicySpec
from hookline_api.resources import WasmPlugin
from hookline_artifacts.trust.policy import asked_by, asked_by_entry, forbidden

ARTIFACT = BundleArtifact(digest=f"sha256:{'0' * 64}", sha256="0" * 64, size=1, layout="raw", reference="r.test/a:1")


def resource(**spec):
    """A resource of that artifact."""
    document = {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "p"}}
    return WasmPlugin.model_validate({**document, "spec": {"source": {"oci": {"reference": "r.test/a:1"}}, **spec}})


def test_the_default_changes_no_revision() -> None:
    """Operators and sidecars of the version before give a plugin the same name; the count of cases never counts."""
    plain = BundlePlugin(name="p", artifact=ARTIFACT)
    assert plain.self_test == resource().spec.self_test == "IfPresent"
    assert plain.revision == "546fd62d35e0"
    counted = plain.model_copy(update={"artifact": ARTIFACT.model_copy(update={"cases": 3})})
    assert counted.full_revision == plain.full_revision
    others = {plain.model_copy(update={"self_test": each}).full_revision for each in ("Required", "Off")}
    assert len({plain.full_revision, *others}) == 3


def test_another_word_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(ValidationError, match="'Required', 'IfPresent' or 'Off'"):
        resource(selfTest="Never")


@pytest.mark.parametrize("self_test", ["Required", "IfPresent", "Off"])
def test_a_policy_says_which_are_allowed(self_test) -> None:
    """Of a resource and of an entry alike; a policy that says nothing allows all."""
    entry = BundlePlugin(name="p", artifact=ARTIFACT, self_test=self_test)
    policy = PluginTrustPolicySpec.model_validate({"selfTests": ["Required"]})
    for asked in (asked_by(resource(selfTest=self_test)), asked_by_entry(entry)):
        told = [] if self_test == "Required" else [f"spec.selfTest: {self_test} is not allowed; it may be Required"]
        assert forbidden(policy, asked) == told
        assert forbidden(PluginTrustPolicySpec(), asked) == []
