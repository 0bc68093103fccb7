"""What a policy says of a reference: pure, of a resource and of an operator's entry alike."""

from __future__ import annotations

import pytest

from hookline_api.bundle import BundleArtifact, BundlePlugin
from hookline_api.policies import PluginTrustPolicySpec
from hookline_artifacts.trust.policy import asked_by_entry, forbidden

_DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("reference", "passes"),
    [
        (f"r.test/acme/p@{_DIGEST}", True),
        (f"r.test/acme/p:1@{_DIGEST}", True),
        ("r.test/acme/p:1", False),
        ("r.test/acme/p", False),
        ("oci-layout:p", False),
        ("r.test//p", False),
        ("", False),
    ],
)
def test_only_a_digest_is_one(reference, passes):
    """What an operator calls a reference and is none is not passed over."""
    artifact = BundleArtifact(digest=_DIGEST, sha256="0" * 64, size=1, layout="raw", reference=reference)
    asked = asked_by_entry(BundlePlugin(name="p", artifact=artifact))
    assert bool(forbidden(PluginTrustPolicySpec(references="Digest"), asked)) is not passes
    assert forbidden(PluginTrustPolicySpec(), asked) == []
    tagged = forbidden(PluginTrustPolicySpec(tags=["1"]), asked) == []
    assert tagged is (passes or reference == "r.test/acme/p:1")
