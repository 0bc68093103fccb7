"""Policies of a cluster, signed artifacts, and what the operator makes of them."""

from __future__ import annotations

import contextlib
import uuid

import pytest

from signing import SigningKey, sign

_NAMESPACE = "kubernetes.io/metadata.name"


class Policies:
    """Policies for the plugins of one tenant."""

    def __init__(self, plane, tenant):
        self._plane, self._tenant, self._prefix = plane, tenant, f"p{uuid.uuid4().hex[:8]}"
        self.made = set()

    def name(self, name):
        """What a policy is called in the cluster, where others have theirs."""
        return f"{self._prefix}-{name}"

    def apply(self, name, **spec):
        """Put a policy in the cluster; its name there."""
        spec.setdefault("namespaceSelector", {"matchLabels": {_NAMESPACE: self._tenant.name}})
        self._plane.apply({
            "apiVersion": "hookline.dev/v1alpha1", "kind": "PluginTrustPolicy",
            "metadata": {"name": self.name(name)}, "spec": spec,
        })  # fmt: skip
        self.made.add(name)
        return self.name(name)

    def delete(self, name):
        """Take it out again."""
        self.made.discard(name)
        self._plane.kubectl("delete", "plugintrustpolicy", self.name(name), "--ignore-not-found")


@pytest.fixture
def policies(control_plane, tenant):
    """The cluster's policies for this tenant; gone with the test."""
    made = Policies(control_plane, tenant)
    yield made
    for name in list(made.made):
        with contextlib.suppress(Exception):
            made.delete(name)


@pytest.fixture(scope="session")
def keys():
    """Two pairs of keys, and one of a stranger."""
    return [SigningKey() for _ in range(3)]


def wants(*keys, **more):
    """The ``signatures`` of a policy, or ``spec.verify``: one of these keys."""
    return {"anyOf": [{"name": f"key {number}", "key": {"pem": key.pem}} for number, key in enumerate(keys)], **more}


@pytest.fixture
def push(registry, tenant):
    """Pushes a module, with one signature of each key; the source for its tag or its digest."""

    def make(tag, wasm, *keys, by_digest=False, at=registry, **more):
        digest = at.push(f"{tenant.name}/guard:{tag}", wasm)
        if keys:
            sign(at, f"{tenant.name}/guard", digest, *keys)
        what = f"@{digest}" if by_digest else f":{tag}"
        return {"oci": {"reference": f"{at.host}/{tenant.name}/guard{what}", "insecure": True, **more}}

    return make


@pytest.fixture
def told(tenant):
    """Reason and message of a condition."""

    def look(kind="Ready", plugin="guard"):
        found = tenant.status(plugin)["conditions"].get(kind, {})
        return found.get("status"), found.get("reason"), found.get("message", "")

    return look


@pytest.fixture
def table(control_plane, tenant):
    """What ``kubectl get wp -o wide`` shows of a plugin."""

    def look(plugin="guard"):
        return control_plane.kubectl("get", "wp", plugin, "-o", "wide", f"--namespace={tenant.name}")

    return look


@pytest.fixture
def events(control_plane, tenant):
    """Reasons and messages of a plugin's Events."""

    def look(plugin="guard"):
        found = control_plane.get("events", f"--namespace={tenant.name}")["items"]
        return [(each["reason"], each["message"]) for each in found if each["involvedObject"]["name"] == plugin]

    return look
