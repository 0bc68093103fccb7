"""An authority that is new: who is told, who is stranded, and what is said of them."""

import asyncio
import logging
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from hookline_api.distribution import AuthorityMessage, Report
from hookline_operator.cluster.authority import fingerprints, new_authority
from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.pods import Pod
from hookline_operator.serve import trust
from hookline_operator.serve.fleet import Fleet, PodState
from hookline_operator.serve.server import Distribution
from hookline_operator.serve.sessions import Session
from hookline_operator.serve.trust import STRANDED, Trust, version_of

OLD, NEW = (new_authority(now=datetime.now(UTC)).certificate_pem for _ in range(2))


class Keeper:
    """Stands in for what has the certificates."""

    def __init__(self):
        self.bundle, self.changed = OLD, []

    @property
    def signer(self):
        """The fingerprint of the first."""
        (found,) = fingerprints(self.bundle[: self.bundle.index("-----END CERTIFICATE-----") + 26])
        return found

    def renew(self, bundle=NEW):
        """Another authority, of which everybody hears."""
        self.bundle = bundle
        for hear in self.changed:
            hear()


class World:
    """A leader, its clock, and pods."""

    def __init__(self):
        self.catalogue, self.fleet, self.keeper = Catalogue(), Fleet(), Keeper()
        self.leading, self.clock, self.asked, self.told = True, 1000.0, 0, []
        self.trust = Trust(
            self.catalogue, self.fleet, self.keeper,
            tell=self._tell, leads=lambda: self.leading, now=lambda: self.clock,
        )  # fmt: skip
        self.fleet.changed.append(self.trust.sidecar_changed)
        self.keeper.changed.append(self.trust.authority_changed)
        found = {"metadata": {"namespace": "shop", "name": "guard", "uid": "1", "generation": 1}, "spec": {}}
        self.catalogue.put_plugin(found, gone=False)
        self.catalogue.plugin_changed.append(self.told.append)

    def _tell(self):
        self.asked += 1

    def pod(self, name, annotation=OLD, *, connected=True, namespace="shop"):
        """A pod whose sidecar was made to trust this."""
        metadata = {"namespace": namespace, "name": name, "uid": name, "labels": {}}
        if annotation is not None:
            metadata["annotations"] = {"hookline.dev/operator-ca": annotation}
        self.catalogue.put_pod((namespace, name), None, Pod.of({"metadata": metadata}))
        if connected:
            self.says(name)

    def says(self, name, authority=None):
        """Its sidecar reports."""
        self.fleet.put(PodState(uid=name, namespace="shop", name=name, report=Report(authority=authority)))

    def later(self, seconds=60.0):
        """Look again after a while."""
        self.clock += seconds
        self.trust.check()


@pytest.fixture
def world():
    """With nothing in it."""
    return World()


def test_with_the_authority_that_all_know_nothing_is_said(world, caplog):
    """Connected or not."""
    world.pod("a")
    world.pod("b", connected=False)
    world.pod("c", OLD + NEW, connected=False)
    world.later()
    world.later()
    assert (world.fleet.stranded, caplog.text) == ({}, "")


def test_a_new_authority_is_warned_of_with_the_numbers(world, caplog):
    """Of those that are told, and of those that cannot be."""
    for name in ("a", "b", "c"):
        world.pod(name)
    world.pod("d", connected=False)
    world.pod("e", NEW, connected=False)
    world.later()
    world.keeper.renew()
    world.later(0)
    (record,) = [each for each in caplog.records if "authorities are others now" in each.getMessage()]
    assert record.levelno == logging.WARNING
    said = record.getMessage()
    assert "4 pods were made with older ones alone; 3 of them are connected, and are told; 1 are not" in said
    assert "must be deleted: shop/d" in said
    assert world.asked == 1


def test_who_is_away_and_knows_the_old_one_alone_is_stranded(world, caplog):
    """Its plugins' statuses are written anew, with what to do."""
    world.pod("a")
    world.pod("b", connected=False)
    world.later()
    world.keeper.renew()
    world.told.clear()
    world.later()
    assert world.fleet.stranded == {"b": STRANDED}
    assert "delete the pod, so that it is made again" in STRANDED
    assert world.told == [("shop", "guard")]
    assert "1 pods trust only a certificate authority of this operator that is gone" in caplog.text
    caplog.clear()
    world.told.clear()
    world.later()
    assert (world.told, caplog.text) == ([], "")


def test_who_was_told_and_goes_away_comes_back(world):
    """It said that it knows: a restart of its container strands nobody."""
    world.pod("a")
    world.pod("old sidecar")
    world.keeper.renew()
    world.says("a", authority=version_of(NEW))
    world.later()
    world.fleet.drop("a")
    world.fleet.drop("old sidecar")
    world.later(1)
    assert world.fleet.stranded == {}
    world.later()
    assert set(world.fleet.stranded) == {"old sidecar"}


def test_the_next_new_authority_is_another_matter(world):
    """Who knows the one before is stranded as well."""
    world.pod("a")
    world.keeper.renew()
    world.says("a", authority=version_of(NEW))
    world.fleet.drop("a")
    world.later()
    world.later()
    assert world.fleet.stranded == {}
    world.keeper.renew(new_authority(now=datetime.now(UTC)).certificate_pem)
    world.later()
    assert set(world.fleet.stranded) == {"a"}


@pytest.mark.parametrize("cure", ["connected", "annotated", "deleted"])
def test_what_is_cured_is_said_no_longer(world, cure, caplog):
    """The sidecar connects, the pod is annotated, or made again."""
    caplog.set_level(logging.INFO)
    world.pod("a", connected=False)
    world.keeper.renew()
    world.later()
    world.later()
    assert set(world.fleet.stranded) == {"a"}
    world.told.clear()
    if cure == "connected":
        world.says("a")
    elif cure == "annotated":
        world.pod("a", NEW, connected=False)
    else:
        world.catalogue.put_pod(("shop", "a"), world.catalogue.pods["shop"]["a"], None)
    world.later(1)
    assert world.fleet.stranded == {}
    assert ("shop", "guard") in world.told
    assert "no pod is left that trusts only" in caplog.text


def test_a_new_leader_waits_for_who_comes_back(world):
    """It has seen no connection yet, and they pause for half a minute."""
    world.keeper.renew()
    world.leading = False
    world.pod("a", connected=False)
    world.later()
    world.leading = True
    world.later(1)
    world.later(30)
    assert world.fleet.stranded == {}
    world.later(10)
    assert set(world.fleet.stranded) == {"a"}
    world.leading = False
    world.later(1)
    assert world.fleet.stranded == {}


def test_a_pod_without_the_annotation_is_nobodys_concern(world):
    """Whoever wrote its sidecar's authority knows where."""
    world.pod("a", None, connected=False)
    world.keeper.renew()
    world.later()
    world.later()
    assert world.fleet.stranded == {}


def test_a_replica_that_never_leads_remembers_nothing_of_pods_that_are_gone(world):
    """It hears of its sidecars all its life, and pods come and go."""
    world.leading = False
    for number in range(50):
        world.pod(f"p{number}")
        world.says(f"p{number}", version_of(world.keeper.bundle))
        world.fleet.drop(f"p{number}")
        world.catalogue.put_pod(("shop", f"p{number}"), None, None)
    world.later()
    assert (world.trust._away, world.trust._told) == ({}, {})


@pytest.mark.parametrize(
    "text", ["", "no PEM", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----", "x" * 10**6]
)
def test_an_annotation_of_any_text_is_read(text):
    """It is a tenant's: nothing but fingerprints come of it, and of the first part alone."""
    assert fingerprints(text) == frozenset()
    assert fingerprints(text[:100] + OLD + NEW) == fingerprints(OLD) | fingerprints(NEW)


async def test_a_session_is_told_once_and_again_when_there_is_another():
    """Who said that it knows is told nothing."""
    sent, bundle = [], [OLD]

    async def send(text):
        await asyncio.sleep(0)
        sent.append(AuthorityMessage.model_validate_json(text))

    catalogue, fleet = Catalogue(), Fleet()
    distribution = Distribution(catalogue, None, fleet, None, None, authority=lambda: bundle[0])
    session = Session(None, None, SimpleNamespace(send_str=send), lambda: None)
    for _ in range(3):
        await distribution._introduce(session)
    assert [each.bundle for each in sent] == [OLD]
    bundle[0] = NEW + OLD
    await distribution._introduce(session)
    assert [each.version for each in sent] == [version_of(OLD), version_of(NEW + OLD)]
    again = Session(None, None, SimpleNamespace(send_str=send), lambda: None)
    again.report = Report(authority=trust.version_of(bundle[0]))
    await distribution._introduce(again)
    assert len(sent) == 2
