"""The key-value store, in the pod and on a server: the same caps and codes, and entries that end at their time."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hookline_api.abi import E_ARGUMENT, E_CAP, E_SIZE
from hookline_runtime.host.kv import MAX_KEY, MAX_KEYS, MAX_VALUE, KvError


@pytest.mark.parametrize(("key", "value"), [(MAX_KEY + 1, 0), (0, MAX_VALUE + 1)])
def test_a_key_or_value_above_its_cap_is_refused(keys, key, value):
    """64 KiB each."""
    with pytest.raises(KvError) as refused:
        keys.put("p", bytes(key), bytes(value))
    assert refused.value.code == E_SIZE
    keys.put("p", bytes(MAX_KEY), bytes(MAX_VALUE))
    assert keys.get("p", bytes(MAX_KEY)) == bytes(MAX_VALUE)
    assert keys.list_keys("p", bytes(MAX_KEY)) == [bytes(MAX_KEY)]


def test_a_plugin_has_1024_keys_and_expired_ones_make_room(keys):
    """The 1025th is refused, an overwrite is not, and what is over is cleared when the room is needed."""
    for number in range(MAX_KEYS):
        keys.put("p", b"%d" % number, b"")
    with pytest.raises(KvError) as refused:
        keys.put("p", b"more", b"")
    assert refused.value.code == E_CAP
    keys.put("p", b"5", b"overwritten")
    keys.put("q", b"another plugin", b"")
    keys.set_ttl("p", b"7", 10)
    keys.advance(10)
    keys.put("p", b"more", b"")
    assert keys.usage()["p"][0] == MAX_KEYS


def test_a_time_limit_ends_an_entry(keys):
    """Reading, listing, counting, comparing: after its time it is not there, and a new value has no limit."""
    for key in (b"a", b"b", b"n"):
        keys.put("p", key, b"5")
        assert keys.set_ttl("p", key, 3_600_000)
    assert keys.increment("p", b"n", 1) == 6
    keys.advance(3_000_000)
    assert keys.list_keys("p", b"") == [b"a", b"b", b"n"]
    assert keys.get("p", b"n") == b"6"
    keys.advance(600_000)
    assert keys.list_keys("p", b"") == []
    assert keys.get("p", b"a") is None
    assert not keys.set_ttl("p", b"a", 100)
    assert keys.increment("p", b"n", 1) == 1
    assert keys.compare_and_set("p", b"b", None, b"new")
    keys.advance(10**9)
    assert keys.list_keys("p", b"") == [b"b", b"n"]


def test_a_time_limit_can_be_taken_off_and_has_no_largest_value(keys):
    """Zero and less take it off; the most milliseconds that a guest can say are many."""
    keys.put("p", b"k", b"v")
    for ttl in (2**63 - 1, 0, 3_600_000, -5):
        assert keys.set_ttl("p", b"k", ttl)
    assert keys.get("p", b"k") == b"v"


def test_keys_are_listed_in_order_by_prefix(keys):
    """Bytes, not insertion and not hashes."""
    for key in (b"b", b"a/2", b"a/10", b"", b"\xff", b"a"):
        keys.put("p", key, b"")
    keys.put("other", b"a/9", b"")
    assert keys.list_keys("p", b"") == [b"", b"a", b"a/10", b"a/2", b"b", b"\xff"]
    assert keys.list_keys("p", b"a/") == [b"a/10", b"a/2"]
    assert keys.list_keys("nobody", b"") == []


@pytest.mark.parametrize(
    "held",
    [b"", b"x", b"1.5", b"9" * 21, b"9" * 19, b"0x10", b"1_0", b"- 1", b"--1", b"1 1", b"1\0", b"\xd9\xa3", b" " * 21],
)
def test_counting_on_what_is_no_number_is_refused_and_changes_nothing(keys, held):
    """The value stays as it was."""
    keys.put("p", b"k", held)
    with pytest.raises(KvError) as refused:
        keys.increment("p", b"k", 1)
    assert refused.value.code == E_ARGUMENT
    assert keys.get("p", b"k") == held


@pytest.mark.parametrize(
    ("held", "total"),
    [(b"7", 8), (b"+7", 8), (b"007", 8), (b" 7\n", 8), (b"-0", 1), (b"-1", 0), (b"%d" % (2**63 - 2), 2**63 - 1),
     (b"-%d" % 2**63, 1 - 2**63), (b"00000000000000000007", 8)],
)  # fmt: skip
def test_counting_reads_a_number_as_people_write_it(keys, held, total):
    """With a sign, zeros in front, and the line break of an administrator's `echo`; and what it writes is plain."""
    keys.put("p", b"k", held)
    assert keys.increment("p", b"k", 1) == total
    assert keys.get("p", b"k") == b"%d" % total


def test_a_count_that_is_refused_makes_no_key(keys):
    """Nor does it take the limit of time off one that is there."""
    with pytest.raises(KvError):
        keys.increment("p", b"new", -(2**63))
    assert keys.list_keys("p", b"") == []
    keys.put("p", b"k", b"x")
    keys.set_ttl("p", b"k", 3_600_000)
    with pytest.raises(KvError):
        keys.increment("p", b"k", 1)
    keys.advance(3_600_000)
    assert keys.get("p", b"k") is None


@pytest.mark.parametrize(("held", "by"), [(2**63 - 1, 1), (-(2**63) + 1, -1), (-1, -(2**63))])
def test_a_count_that_leaves_64_bits_is_refused(keys, held, by):
    """The least i64 is how the guest ABI says "failed", so it is none of the sums."""
    keys.put("p", b"k", str(held).encode())
    with pytest.raises(KvError):
        keys.increment("p", b"k", by)
    assert keys.get("p", b"k") == str(held).encode()


_NUMBER = re.compile(rb"\s*[+-]?[0-9]+\s*")
_HOUR = 3_600_000


class Model(RuleBasedStateMachine):
    """The store beside a dictionary."""

    # ruff: noqa: D102 - each rule is the operation that it is named after

    keys = st.sampled_from([b"", b"a", b"ab", b"b" * 600, b"\0"])
    names = st.sampled_from(["p", "q"])

    def __init__(self) -> None:
        super().__init__()
        self.store = _STORE[0]
        number = _STORE.append(None) or len(_STORE)
        self.own = {name: f"{name}{number}" for name in ("p", "q")}
        self.model: dict[tuple[str, bytes], tuple[bytes, int]] = {}
        self.hours = 0
        self.limited = False

    def teardown(self):
        for name in self.own.values():
            self.store.forget(name)

    def held(self, name, key):
        value, end = self.model.get((name, key), (None, 0))
        return value if end == 0 or end > self.hours else None

    @rule(name=names, key=keys, value=st.binary(max_size=3))
    def put(self, name, key, value):
        self.store.put(self.own[name], key, value)
        self.model[name, key] = value, 0

    @rule(name=names, key=keys)
    def delete(self, name, key):
        self.store.delete(self.own[name], key)
        self.model.pop((name, key), None)

    @rule(name=names, key=keys, by=st.integers(-5, 5))
    def increment(self, name, key, by):
        held = self.held(name, key)
        if held is not None and not _NUMBER.fullmatch(held):
            with pytest.raises(KvError):
                self.store.increment(self.own[name], key, by)
            return
        total = int(held or b"0") + by
        assert self.store.increment(self.own[name], key, by) == total
        self.model[name, key] = b"%d" % total, 0 if held is None else self.model[name, key][1]

    @rule(name=names, key=keys, old=st.none() | st.binary(max_size=1), new=st.binary(max_size=2))
    def compare_and_set(self, name, key, old, new):
        swaps = self.held(name, key) == old
        assert self.store.compare_and_set(self.own[name], key, old, new) is swaps
        if swaps:
            self.model[name, key] = new, 0

    @rule(name=names, key=keys, hours=st.integers(-1, 3))
    def set_ttl(self, name, key, hours):
        held = self.held(name, key)
        assert self.store.set_ttl(self.own[name], key, hours * _HOUR) is (held is not None)
        if held is not None:
            self.model[name, key] = held, self.hours + hours if hours > 0 else 0
            self.limited |= hours > 0

    @rule()
    def advance(self):
        self.store.advance(_HOUR)
        self.hours += 1

    @invariant()
    def agrees(self):
        """Values, lists and the kept counts, which also have what is over and is not cleared yet."""
        for name in ("p", "q"):
            mine = {key: self.held(name, key) for owner, key in self.model if owner == name}
            mine = {key: value for key, value in mine.items() if value is not None}
            own = self.own[name]
            assert self.store.list_keys(own, b"") == sorted(mine)
            assert {key: self.store.get(own, key) for key in mine} == mine
            kept, size = self.store.usage().get(own, (0, 0)), sum(len(key) + len(value) for key, value in mine.items())
            assert kept >= (len(mine), size)
            assert self.limited or kept == (len(mine), size)


_STORE: list[object] = []


def test_any_sequence_of_operations_does_what_a_dictionary_does(keys):
    """And the counts that are kept beside the data stay right."""
    _STORE[:] = [keys]
    Model.TestCase.settings = settings(
        max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
    )
    Model.TestCase().runTest()
