"""``spec.kv.initial``, in the pod and on a server: in the store before a plugin's first call, once for each reason."""

from __future__ import annotations

import pytest

from hookline_runtime.host.kv import MAX_KEYS
from kv_scopes import OnServer


def entry(name="p", overwrite="Never", generation=None, origin=None, **initial):
    """Settings of a plugin with these initial keys."""
    kv = {"initial": initial, "overwrite": overwrite}
    return {"name": name, "kv": kv, "generation": generation, "origin": origin}


def held(keys, name="p"):
    """All that is in a plugin's namespace."""
    return {key.decode(): keys.get(name, key).decode() for key in keys.list_keys(name, b"")}


@pytest.mark.parametrize("overwrite", ["Never", "OnChange"])
def test_all_keys_are_there_after_the_first_time(keys, overwrite):
    """Also empty values, and any text as a key."""
    initial = {"region_map": '{"eu": "pg"}', "budget/a": "1", "empty": "", "é/😀": "ü"}
    keys.begin(entry(overwrite=overwrite, **initial), entry("q", overwrite, k="q"))
    assert held(keys) == initial
    assert held(keys, "q") == {"k": "q"}


@pytest.mark.parametrize("overwrite", ["Never", "OnChange"])
def test_another_time_undoes_nothing_that_was_done_since(keys, overwrite):
    """A restart: neither what was changed, nor what was deleted."""
    plugin = entry(overwrite=overwrite, changed="old", deleted="old", kept="old")
    keys.begin(plugin)
    keys.put("p", b"changed", b"new")
    keys.delete("p", b"deleted")
    keys.begin(plugin)
    assert held(keys) == {"changed": "new", "kept": "old"}


def test_never_writes_no_other_value_and_only_where_there_is_none(keys):
    """Neither over what was there before, nor when the resource's value changes; a key that is new is written."""
    keys.put("p", b"before", b"an administrator's")
    keys.begin(entry(before="1", k="1"))
    assert held(keys) == {"before": "an administrator's", "k": "1"}
    keys.begin(entry(before="2", k="2", more="2"))
    assert held(keys) == {"before": "an administrator's", "k": "1", "more": "2"}
    keys.delete("p", b"before")
    keys.begin(entry(before="2", k="2", more="2"))
    assert "before" not in held(keys)


def test_on_change_writes_a_key_when_its_own_value_in_the_resource_changes(keys):
    """Over whatever is there, also where it was deleted; the other keys stay as they are. A time limit ends."""
    keys.put("p", b"a", b"before")
    keys.begin(entry(overwrite="OnChange", a="1", b="1", c="1"))
    assert held(keys) == {"a": "1", "b": "1", "c": "1"}
    keys.put("p", b"b", b"changed")
    keys.delete("p", b"c")
    keys.set_ttl("p", b"a", 3_600_000)
    keys.begin(entry(overwrite="OnChange", a="2", b="1", c="2"))
    assert held(keys) == {"a": "2", "b": "changed", "c": "2"}
    keys.advance(3_600_000)
    assert keys.get("p", b"a") == b"2"


@pytest.mark.parametrize("overwrite", ["Never", "OnChange"])
def test_a_key_that_is_left_out_stays_and_one_that_comes_back_is_known(keys, overwrite):
    """So going back to an older revision, and forward again, undoes nothing."""
    whole, less = entry(overwrite=overwrite, a="1", b="1"), entry(overwrite=overwrite, a="1")
    keys.begin(whole)
    keys.begin(less)
    assert held(keys) == {"a": "1", "b": "1"}
    keys.put("p", b"b", b"changed")
    keys.begin(whole)
    assert held(keys) == {"a": "1", "b": "changed"}


def test_from_never_to_on_change_what_was_not_written_yet_is(keys):
    """The value that the resource has now, unless it is the one that was written."""
    keys.put("p", b"theirs", b"x")
    keys.begin(entry(theirs="1", same="1", newer="1"))
    keys.put("p", b"same", b"changed")
    keys.begin(entry(theirs="1", same="1", newer="2"))
    keys.begin(entry(overwrite="OnChange", theirs="1", same="1", newer="2"))
    assert held(keys) == {"theirs": "1", "same": "changed", "newer": "2"}


@pytest.fixture
def shared(background, redis):
    """The keys on the server alone."""
    made = OnServer(background, redis)
    yield made
    made.close()


@pytest.mark.parametrize("overwrite", ["Never", "OnChange"])
def test_a_pod_with_an_older_version_of_the_resource_writes_nothing(shared, overwrite):
    """While a change is rolled out, workers of both versions start: the newer one's values stay."""
    old, new = ({"overwrite": overwrite, "generation": number, "origin": "uid"} for number in (1, 2))
    shared.begin(entry(**new, k="2"))
    shared.begin(entry(**old, k="1", gone="1"))
    assert held(shared) == {"k": "2"}
    shared.begin(entry(**(new | {"generation": 3}), k="3"))
    assert held(shared) == {"k": "3" if overwrite == "OnChange" else "2"}
    shared.begin(entry(**(old | {"origin": "another"}), k="4", more="4"))  # the resource was made anew
    assert held(shared) == {"k": "4" if overwrite == "OnChange" else "2", "more": "4"}


def test_initial_keys_that_do_not_fit_are_said_and_none_is_written(shared):
    """The others are there to be used all the same; what is over makes room."""
    for number in range(MAX_KEYS - 1):
        shared.put("p", b"%d" % number, b"")
    shared.begin(entry(a="1", b="1"))
    assert "a" not in held(shared)
    assert shared.of("p")._unavailable == {
        "spec.kv.initial": "the keys of spec.kv.initial do not fit beside those that the plugin has on the server; "
        "delete keys, or ask for fewer"
    }
    shared.set_ttl("p", b"5", 3_600_000)
    shared.advance(3_600_000)
    shared.begin(entry(a="1", b="1"))
    assert shared.get("p", b"b") == b"1"
    assert shared.of("p")._unavailable == {}


def test_as_many_initial_keys_as_there_may_be_are_written_in_one_step(shared):
    """Half a mebibyte of them."""
    initial = {f"{number:04}": "x" * 500 for number in range(MAX_KEYS)}
    shared.begin(entry(**initial))
    assert held(shared) == initial


def test_what_is_remembered_of_initial_keys_is_bounded(shared):
    """However often they change their names: what is no longer asked for is forgotten."""
    for turn in range(4):
        shared.begin(entry(**{f"{turn}-{number}": "" for number in range(1000)}))
        for key in shared.list_keys("p", b""):
            shared.delete("p", key)
    record = shared.of("p")._keys[3]
    assert shared._ask(shared.of("p"), b"HLEN", record) <= 2048 + 1000 + 2
