"""What pods are offered of a plugin whose signatures nobody has looked at yet."""

from __future__ import annotations

import json
from types import SimpleNamespace

from hookline_api.policies import PluginTrustPolicySpec
from hookline_artifacts.trust.policy import Policy
from hookline_artifacts.trust.requirement import Requirement
from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.revisions import Revision, Seal, body_of
from hookline_operator.serve.bundles import SOUGHT_S, Bundles

SPEC = {"source": {"configMap": {"name": "one"}}}
ARTIFACT = {"digest": f"sha256:{'0' * 64}", "sha256": "0" * 64, "size": 8, "layout": "raw", "reference": "one"}


def _kept(**more):
    """The object of a revision."""
    data = {
        "plugin": "guard", "spec": SPEC, "artifact": ARTIFACT, "hooks": ["authenticate"], "imports": [], "inputs": {},
        **more,
    }  # fmt: skip
    text = json.dumps(data).encode()
    return Revision.of(body_of(namespace="shop", plugin="guard", uid="1", number=1, template=text, seal=Seal()), Seal())


def _asks(fingerprint):
    return Policy(
        name="signed", spec=PluginTrustPolicySpec(), requirement=Requirement(minimum=9, fingerprint=fingerprint)
    )


class _NoObjects:
    async def secret(self, _namespace, _name):
        raise AssertionError

    config_map = secret


def _plugin(generation):
    metadata = {"namespace": "shop", "name": "guard", "uid": "1", "generation": generation}
    return {"metadata": metadata, "spec": SPEC | {"priority": generation}}


async def test_who_changes_a_resource_all_the_time_does_not_keep_running_what_was_never_signed():
    """Each change has the leader begin anew, so that no failure is ever written: that lasts for a while, and ends."""
    clock, catalogue = [1000.0], Catalogue()
    catalogue.put_plugin(_plugin(1), gone=False)
    catalogue.put_revision(("shop", "guard-1"), None, _kept())
    asked: list[Policy] = []
    bundles = Bundles(
        catalogue, _NoObjects(), key=lambda: b"k" * 32, policies=lambda _: tuple(asked), now=lambda: clock[0]
    )

    async def runs(generation):
        catalogue.put_plugin(_plugin(generation), gone=False)
        offer = await bundles.offer(catalogue.plugin(("shop", "guard")))
        return offer.entry.artifact is not None

    assert await runs(2)
    clock[0] += 10 * SOUGHT_S
    asked.append(_asks("one"))
    for generation in range(3, 13):
        assert await runs(generation)
        clock[0] += SOUGHT_S / 10
    assert not await runs(13)
    assert not await runs(14)
    asked[0] = _asks("another")
    assert not await runs(15)  # a policy that is edited opens nothing
    asked.clear()
    assert await runs(16)


async def test_what_is_not_signed_as_policies_ask_now_is_nothing_to_go_on_with():
    """While a newer revision waits for pods to be prepared, which may be one that its author keeps from it."""
    catalogue, asked = Catalogue(), (_asks("one"),)
    catalogue.put_plugin(_plugin(1), gone=False)
    signed = _kept(met=["one"])
    catalogue.put_revision(("shop", "guard-1"), None, signed)
    bundles = Bundles(catalogue, _NoObjects(), key=lambda: b"k" * 32, policies=lambda _: asked)
    _, entry = await bundles.entry(signed)
    assert not await bundles.forbids("shop", entry)
    other = entry.model_copy(update={"artifact": entry.artifact.model_copy(update={"sha256": "1" * 64})})
    assert await bundles.forbids("shop", other)
    assert not await bundles.forbids("shop", entry)
    asked = (_asks("another"),)
    assert await bundles.forbids("shop", entry)
    asked = ()
    assert not await bundles.forbids("shop", other)


async def test_a_bundle_is_of_what_is_offered_now_whatever_has_the_same_revision(monkeypatch):
    """Whoever chooses the settings finds two with the same twelve digits: one that is allowed, and one that is not."""
    catalogue = Catalogue()
    catalogue.put_plugin(_plugin(1), gone=False)
    first, second = _kept(), _kept(spec=SPEC | {"priority": 7})
    catalogue.put_revision(("shop", "guard-1"), None, first)
    bundles = Bundles(catalogue, _NoObjects(), key=lambda: b"k" * 32)
    pod = SimpleNamespace(namespace="shop", labels={})
    monkeypatch.setattr("hookline_operator.serve.bundles.revision_of", lambda _: "c0ffeec0ffee")
    assert [each.priority for each in (await bundles.of_pod(pod)).bundle.plugins] == [0]
    catalogue.put_revision(("shop", first.name), first, None)
    catalogue.put_revision(("shop", second.name), None, second)
    assert [each.priority for each in (await bundles.of_pod(pod)).bundle.plugins] == [7]
