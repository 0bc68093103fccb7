"""Trust on a whole cluster: unsigned code runs in no pod, signed code rolls out, keys are rotated under load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cluster import ClusterError
from installation import Load, identity_module, until
from signing import SigningKey, sign

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POLICY = "e2e-trust"
SELECTOR = {"matchLabels": {"app": "proxy"}}


class Policy:
    """One PluginTrustPolicy for the namespace of a test."""

    def __init__(self, tenant) -> None:
        self._tenant = tenant

    def apply(self, *keys: SigningKey, mode: str = "Enforce", **spec: Any) -> None:
        """Let it ask for a signature by one of these keys."""
        signers = [{"key": {"pem": each.pem}} for each in keys]
        signatures = {"signatures": {"anyOf": signers}} if signers else {}
        self._tenant.cluster.apply(self._resource({"mode": mode, **self._namespaces(), **signatures, **spec}))

    def tried_out(self, **spec: Any) -> str:
        """The warnings of ``kubectl apply --dry-run=server``."""
        resource = yaml.safe_dump(self._resource({**self._namespaces(), **spec}))
        flags = ("--dry-run=server", "--warnings-as-errors", "--filename=-")
        with pytest.raises(ClusterError) as said:
            self._tenant.cluster.kubectl("apply", *flags, input=resource)
        return str(said.value)

    def is_stored(self) -> bool:
        """Whether there is one."""
        return bool(
            self._tenant.cluster.get("plugintrustpolicies", f"--field-selector=metadata.name={POLICY}")["items"]
        )

    def _namespaces(self) -> dict[str, Any]:
        return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self._tenant.name}}}

    def _resource(self, spec: dict[str, Any]) -> dict[str, Any]:
        kind = {"apiVersion": "hookline.dev/v1alpha1", "kind": "PluginTrustPolicy"}
        return {**kind, "metadata": {"name": POLICY}, "spec": spec}

    def status(self) -> dict[str, Any]:
        """What it does now; empty while that is of an older generation."""
        found = self._tenant.cluster.get("plugintrustpolicy", POLICY)
        status: dict[str, Any] = found.get("status") or {}
        return status if status.get("observedGeneration") == found["metadata"]["generation"] else {}


@pytest.fixture
def policy(tenant) -> Iterator[Policy]:
    """One that is gone afterwards."""
    yield Policy(tenant)
    tenant.cluster.kubectl("delete", "plugintrustpolicy", POLICY, "--ignore-not-found")


@pytest.fixture
def push(registry) -> Callable[..., str]:
    """Pushes a version of the guard that lets everybody in under its name, signed; its reference by digest."""

    def made(name: str, *keys: SigningKey, again: bool = False) -> str:
        digest = registry.push(f"trusted/guard:{name}", identity_module(name))
        if keys or again:
            sign(registry, "trusted/guard", digest, *keys)
        return f"{registry.host}/trusted/guard@{digest}"

    return made


def test_unsigned_code_runs_nowhere_and_what_is_signed_rolls_out(tenant, policy, push):
    """``kubectl get wp`` says that it is not signed, no pod has it, every pod refuses; a signed version mends it."""
    key = SigningKey()
    policy.apply(key)
    tenant.plugin("guard", push("unsigned"), selector=SELECTOR)
    message = tenant.failed("guard", "SignatureFailed")
    assert POLICY in message
    verified = tenant.status("guard")["conditions"]["Verified"]
    assert (verified["status"], verified["reason"]) == ("False", "SignatureFailed")
    assert "SignatureFailed" in tenant.kubectl("get", "wp", "guard")
    tenant.plugin("guard", push("signed", key), selector=SELECTOR)
    pods = tenant.proxies(2)
    tenant.ready("guard")
    assert [pod.asks() for pod in pods] == [(200, "hello, signed")] * 2
    artifact = tenant.status("guard")["artifact"]
    assert [each["key"] for each in artifact["signatures"]] == [key.id]
    tenant.plugin("guard", push("unsigned"), selector=SELECTOR)
    tenant.failed("guard", "SignatureFailed")
    with Load(pods, rate=20) as load:
        until(lambda: len(load.answers) > 40, "some answers")
    assert load.bad("signed") == [], "the last good version goes on, since the policy allows it"
    assert all(pod.runs()["guard"] == artifact["sha256"][:12] for pod in pods)


def test_a_policy_takes_out_what_it_forbids_and_says_so(tenant, policy, push):
    """A version that ran before the policy came is taken out of all pods; it comes back when the policy goes."""
    tenant.plugin("guard", push("stranger"), selector=SELECTOR)
    pods = tenant.proxies(2)
    tenant.ready("guard")
    policy.apply(SigningKey())
    tenant.failed("guard", "SignatureFailed")
    until(lambda: all(pod.asks()[0] >= 400 for pod in pods), "no pod that lets anybody in")
    assert all("guard" not in pod.runs() for pod in pods)
    until(lambda: policy.status().get("refused") == 1, "a policy that counts what it refuses")
    tenant.cluster.kubectl("delete", "plugintrustpolicy", POLICY)
    until(lambda: [pod.asks() for pod in pods] == [(200, "hello, stranger")] * 2, "what nobody forbids any more")
    tenant.ready("guard")


def test_a_key_is_rotated_without_a_lost_call(tenant, policy, push):
    """Old key; both; signed again with the new one; the new key alone; a version that only the new key signed."""
    old, new = SigningKey(), SigningKey()
    policy.apply(old)
    reference = push("one", old)
    tenant.plugin("guard", reference, selector=SELECTOR)
    pods = tenant.proxies(2)
    tenant.ready("guard")

    def signed_by(*keys: SigningKey) -> bool:
        found = tenant.status("guard")
        good = found["conditions"]["Ready"]["status"] == "True"
        return good and {each["key"] for each in found["artifact"]["signatures"]} == {each.id for each in keys}

    with Load(pods, rate=50) as load:
        policy.apply(old, new)
        push("one", old, new)
        policy.apply(new)
        until(lambda: signed_by(new), "a version whose new signature is known")
        tenant.plugin("guard", push("two", new), selector=SELECTOR)
        tenant.ready("guard")
        until(lambda: [pod.asks() for pod in pods] == [(200, "hello, two")] * 2, "the second version everywhere")
        tenant.plugin("guard", push("three", old), selector=SELECTOR)
        tenant.failed("guard", "SignatureFailed")
    assert load.bad("one", "two") == [], "no call was lost, and none was answered by what the old key signed"


def test_a_policy_in_audit_counts_and_lets_pass(tenant, policy, push):
    """The plugin is Ready, its status says what would refuse it, and the policy counts it."""
    policy.apply(SigningKey(), mode="Audit", permissions=[])
    tenant.plugin("guard", push("unsigned"), selector=SELECTOR, permissions=["metrics"])
    (pod,) = tenant.proxies(1)
    tenant.ready("guard")
    assert pod.asks() == (200, "hello, unsigned")
    assert POLICY in tenant.status("guard")["conditions"]["Verified"]["message"]
    counted = until(lambda: (found := policy.status()).get("wouldRefuse") == 1 and found, "a policy that has counted")
    assert (counted["matched"], counted.get("refused", 0)) == (1, 0)
    assert counted["refusals"][0]["plugin"] == f"{tenant.name}/guard"


def test_a_dry_run_shows_what_a_policy_would_stop(tenant, policy, push):
    """``kubectl apply --dry-run=server`` warns with the plugin's name and stores nothing."""
    tenant.plugin("guard", push("unsigned"), selector=SELECTOR, permissions=["metrics"])
    tenant.proxies(1)
    tenant.ready("guard")
    said = policy.tried_out(permissions=[])
    assert f"{tenant.name}/guard" in said
    assert "would refuse 1" in said
    assert not policy.is_stored()
