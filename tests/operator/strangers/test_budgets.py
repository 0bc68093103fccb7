"""What tenants write is kept as bytes, and of each namespace a bounded number of them."""

from __future__ import annotations

import asyncio
import itertools
import random

import orjson
import pytest
from pydantic import ValidationError

from hookline_api.config import MAX_CONFIG_VALUES
from hookline_api.resources import Selector
from hookline_operator.cluster.budget import NAMESPACE_SPECS, Budget
from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.kept import Kept
from hookline_operator.cluster.kube import KubeError
from hookline_operator.cluster.reading import Reading
from steps import GROWTH, growth, opcodes

MIB = 2**20


def _plugin(number, *, size, namespace="shop", created=None):
    """As the API has it; ``number`` says when it was created."""
    return {
        "metadata": {
            "namespace": namespace, "name": f"p{number}", "uid": f"u{number}", "generation": 1,
            "creationTimestamp": created or f"2026-01-01T00:00:{number:02}Z",
        },
        "spec": {
            "source": {"configMap": {"name": "m"}}, "selector": {"matchLabels": {"app": "a"}},
            "config": {"x": "y" * size},
        },
    }  # fmt: skip


@pytest.fixture
def catalogue():
    """An empty one; ``catalogue.asked`` has what was to be read again."""
    made = Catalogue()
    made.asked = []
    made.room_again.append(made.asked.append)
    return made


def _left_out(catalogue, namespace="shop"):
    return sorted(each.name for each in catalogue.plugins[namespace].values() if each.left_out)


def test_the_newest_are_left_out_whatever_was_seen_first():
    """Every replica sees another order of events, and all come to the same."""
    outcomes = set()
    for order in itertools.islice(itertools.permutations(range(6)), 0, 720, 90):
        catalogue = Catalogue()
        for number in order:
            catalogue.put_plugin(_plugin(number, size=4 * MIB), gone=False)
        outcomes.add(tuple(_left_out(catalogue)))
    assert outcomes == {("p3", "p4", "p5")}


def test_who_is_left_out_is_told_with_the_budget_and_the_sum(catalogue):
    """As ``ConfigInvalid``: the resource cannot be read, and this is why. Its selector is kept, so it fails closed."""
    for number in range(5):
        catalogue.put_plugin(_plugin(number, size=4 * MIB), gone=False)
    plugin = catalogue.plugin(("shop", "p4"))
    total = sum(each.size for each in catalogue.plugins["shop"].values())
    with pytest.raises(ValidationError, match=rf"have {total} bytes, and {NAMESPACE_SPECS} are kept of one namespace"):
        plugin.parsed()
    assert plugin.selector.match_labels == {"app": "a"}
    assert len(plugin.spec) < 1000
    assert catalogue.plugin(("shop", "p0")).parsed().spec.config == {"x": "y" * 4 * MIB}


def test_no_more_than_the_budget_is_kept_and_other_namespaces_have_their_own(catalogue):
    """Of a hundred plugins of a mebibyte, sixteen; and all of somebody else's."""
    for number in range(60):
        catalogue.put_plugin(_plugin(number, size=MIB), gone=False)
    catalogue.put_plugin(_plugin(0, size=MIB, namespace="other"), gone=False)
    assert sum(len(each.spec) for each in catalogue.plugins["shop"].values()) <= NAMESPACE_SPECS + 60 * 1000
    assert len(_left_out(catalogue)) == 45
    assert _left_out(catalogue, "other") == []


def test_a_question_about_a_namespace_that_is_not_there_leaves_nothing(catalogue):
    """Anybody can send reviews, each about another namespace: none of them may cost memory for good."""
    key = ("nowhere", "guard")
    assert (catalogue.plugin(key), catalogue.pod(key)) == (None, None)
    assert (catalogue.plugins_in("nowhere"), catalogue.matching("nowhere", Selector())) == ([], [])
    catalogue.forget_plugin(key)
    assert (catalogue.plugins, catalogue.pods) == ({}, {})


def test_there_is_room_again_when_others_go_or_shrink(catalogue):
    """Then the API is asked once more for the spec, and what comes is kept."""
    for number in range(5):
        catalogue.put_plugin(_plugin(number, size=4 * MIB), gone=False)
    assert (_left_out(catalogue), catalogue.asked) == (["p3", "p4"], [])
    catalogue.put_plugin(_plugin(0, size=10), gone=False)
    assert catalogue.asked == [("shop", "p3")]
    catalogue.put_plugin(_plugin(3, size=4 * MIB), gone=False)
    assert _left_out(catalogue) == ["p4"]
    catalogue.put_plugin(_plugin(1, size=4 * MIB), gone=True)
    catalogue.forget_plugin(("shop", "p2"))
    assert ("shop", "p4") in catalogue.asked
    catalogue.put_plugin(_plugin(4, size=4 * MIB), gone=False)
    assert _left_out(catalogue) == []
    del catalogue.asked[:]
    catalogue.put_plugin(_plugin(5, size=10), gone=False)
    assert catalogue.asked == []


def test_what_older_ones_grow_pushes_the_newest_out(catalogue):
    """And says so to whoever listens: their status is another."""
    told = []
    for number in range(4):
        catalogue.put_plugin(_plugin(number, size=3 * MIB), gone=False)
    catalogue.plugin_changed.append(told.append)
    catalogue.put_plugin(_plugin(0, size=8 * MIB), gone=False)
    assert (_left_out(catalogue), told) == (["p3"], [("shop", "p0"), ("shop", "p3")])
    del told[:]
    catalogue.put_plugin(_plugin(0, size=8 * MIB), gone=False)
    assert told == []


def test_a_budget_is_what_is_added_up():
    """Whatever comes and goes."""
    choice, budget, there = random.Random(1), Budget(100), {}
    for _ in range(2000):
        name = f"p{choice.randrange(12)}"
        if choice.random() < 0.3:
            there.pop(name, None)
            budget.drop(name)
        else:
            there[name] = choice.choice("abc"), name, choice.randrange(40)
            budget.put(name, created=there[name][0], uid=name, size=there[name][2])
        assert budget.total == sum(size for _, _, size in there.values())
        assert sum(size for each, (_, _, size) in there.items() if each not in budget.over) <= 100
        assert budget.over <= there.keys()
        if budget.total <= 100:
            assert not budget.over


def test_a_config_of_too_many_values_is_not_kept(catalogue):
    """It is an error of its plugin, in a sentence."""
    found = _plugin(1, size=1)
    found["spec"]["config"] = {"a": [{}] * (MAX_CONFIG_VALUES // 2 + 20_000)}
    catalogue.put_plugin(found, gone=False)
    plugin = catalogue.plugin(("shop", "p1"))
    with pytest.raises(ValidationError, match=f"config has more than {MAX_CONFIG_VALUES} values and names"):
        plugin.parsed()
    assert len(orjson.loads(plugin.spec)["config"]) < 100


def test_a_cache_is_bounded_in_bytes():
    """What was not asked for the longest goes first; what is larger than the cache never comes in."""
    kept = Kept("things", most=10_000)
    for number in range(10):
        kept.put(number, "x", 2000)
        assert kept.size <= 10_000
        assert kept.get(0) == "x"
    assert [number for number in range(10) if kept.get(number)] == [0, 8, 9]
    kept.put("large", "x", 10_000)
    assert kept.get("large") is None
    kept.put(9, "y", 1)
    kept.drop(0)
    assert (len(kept), kept.get(9)) == (2, "y")


async def test_a_spec_that_fits_again_is_read_until_the_api_answers(monkeypatch):
    """The API server may be away just then; one that is deleted meanwhile does not come back."""
    monkeypatch.setattr("hookline_operator.cluster.reading._READ_AGAIN_S", 0)
    there, asked = {f"p{number}": _plugin(number, size=6 * MIB) for number in range(4)}, []

    class Kube:
        async def find(self, _where, name):
            asked.append(name)
            if len(asked) == 1:
                raise KubeError(503, "away")
            return there.get(name)

    catalogue = Catalogue()
    reading = Reading(Kube(), catalogue)
    catalogue.room_again.append(reading.read)
    for found in there.values():
        catalogue.put_plugin(found, gone=False)
    assert _left_out(catalogue) == ["p2", "p3"]
    for name in ("p0", "p1"):
        catalogue.put_plugin(there[name], gone=True)
    del there["p3"]
    while reading.tasks:
        await asyncio.gather(*reading.tasks.values())
    assert catalogue.plugin(("shop", "p2")).parsed().spec.config == {"x": "y" * 6 * MIB}
    assert _left_out(catalogue) == ["p3"]
    assert asked.count("p2") == 2


def _settings(number, kind, name):
    """A plugin whose settings come from an object."""
    found = _plugin(number, size=0)
    found["spec"]["configFrom"] = [{"path": "a", "key": "k", kind: {"name": name}}]
    return found


def test_a_secret_that_changes_concerns_those_who_name_it_and_no_spec_is_read_for_it(catalogue):
    """A tenant has thousands of Secrets and sixteen mebibytes of specs: each change read all of them."""
    named = [_settings(1, "secretRef", "token"), _settings(2, "configMapRef", "token"), _settings(3, "secretRef", "no")]
    named += [_plugin(4, size=0), _plugin(5, size=0), _plugin(6, size=0)]
    named[3]["spec"]["source"] = {"oci": {"reference": "r.test/a:1", "pullSecrets": [{"name": "token"}]}}
    named[4]["spec"]["source"] = {"oci": {"reference": "r.test/a:1", "caConfigMap": {"name": "token"}}}
    named[5]["spec"]["config"] = {"x": "token"}
    for each in named:
        catalogue.put_plugin(each, gone=False)
    told = []
    catalogue.plugin_changed.append(told.append)
    catalogue.put_version("Secret", ("shop", "token"), "2")
    assert sorted(name for _, name in told) == ["p1", "p2", "p4", "p5"]
    told.clear()
    catalogue.put_default_account("shop", ["token"])
    told.clear()
    catalogue.put_version("Secret", ("shop", "token"), "3")
    assert len(told) == len(named)


_ODD = [
    *(None, [], "a", 1, {"source": []}, {"source": {"oci": 1}}, {"configFrom": {"a": 1}}),
    *({"configFrom": [1, None, {}]}, {"source": {"oci": {"pullSecrets": [[], {"name": 1}]}}}),
]


@pytest.mark.parametrize("odd", _ODD)
def test_a_spec_of_any_form_names_nothing(catalogue, odd):
    """The API server checks it; an older definition did not."""
    catalogue.put_plugin(_plugin(1, size=0) | {"spec": odd}, gone=False)
    plugin = catalogue.plugin(("shop", "p1"))
    assert plugin.names == frozenset()
    assert plugin.facts is None
    assert plugin.refers_to == plugin.settings_from == []


def test_what_is_known_of_a_spec_is_found_once_whatever_the_status_does(catalogue):
    """Reading a mebibyte of settings takes a tenth of a second, and each pod's change and each status asked for it."""
    catalogue.put_plugin(_settings(1, "secretRef", "token"), gone=False)
    first = catalogue.plugin(("shop", "p1"))
    facts = first.facts
    assert facts.refers_to == [("Secret/token", True), ("ConfigMap/m", True)]
    catalogue.put_plugin({**_settings(1, "secretRef", "token"), "status": {"observedGeneration": 1}}, gone=False)
    second = catalogue.plugin(("shop", "p1"))
    assert second is not first
    assert second.facts is facts
    assert second.spec is first.spec
    catalogue.put_plugin(_settings(1, "secretRef", "other"), gone=False)
    assert catalogue.plugin(("shop", "p1")).refers_to == ["Secret/other", "ConfigMap/m"]


def test_plugins_beyond_the_budget_take_work_for_themselves_alone():
    """Thousands of small ones: each was sorted and weighed again with all others, and all were looked at."""

    def made(count):
        names = [f"p{each:05}" for each in range(count)]
        catalogue = Catalogue()
        full = {"metadata": {"namespace": "shop", "name": "full", "uid": "full", "creationTimestamp": "2025"},
                "spec": {"config": {"x": "y" * NAMESPACE_SPECS}}}  # fmt: skip
        catalogue.put_plugin(full, gone=False)
        catalogue.put_plugin({**full, "metadata": {**full["metadata"], "name": "old", "uid": "a"}, "spec": {
            "config": {"x": "y" * (NAMESPACE_SPECS - 200)}}}, gone=False)  # fmt: skip
        return catalogue, [{**full, "metadata": {**full["metadata"], "name": each, "uid": each, "creationTimestamp":
                            "2026"}, "spec": {"config": {"x": "y" * 100}}} for each in names]  # fmt: skip

    def put(found):
        catalogue, plugins = found
        for each in plugins:
            catalogue.put_plugin(each, gone=False)

    assert growth(opcodes, made, put, 100) < GROWTH


def test_the_budget_comes_to_what_weighing_all_of_them_comes_to():
    """However they come, change and go; and each that is left out, or is no longer, is told of once."""
    chance, budget, there, known = random.Random(3), Budget(100), {}, set()
    for _ in range(3000):
        name = f"p{chance.randrange(12)}"
        if name in there and chance.random() < 0.3:
            del there[name]
            budget.drop(name)
        else:
            there[name] = (
                f"2026-01-0{chance.randrange(1, 4)}",
                chance.choice("abc") + name,
                name,
                chance.randrange(40),
            )
            created, uid, _, size = there[name]
            budget.put(name, created=created, uid=uid, size=size)
        kept, over = 0, set()
        for each in sorted(there.values()):
            if kept + each[3] <= 100:
                kept += each[3]
            else:
                over.add(each[2])
        assert budget.over == over
        assert budget.total == sum(each[3] for each in there.values())
        changes = budget.take_changes()
        assert known ^ over <= changes
        known = over
