"""What a guest may answer, in either dialect, and what the proxy gets for it."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline_api.hooks import OBSERVERS, RESULTS, Hook
from hookline_runtime.call.decisions import read_answer
from hookline_runtime.errors import ResultError

_WHO = {"user_id": "1", "username": "ann"}
_WHOLE = {**_WHO, "roles": [], "tenant_id": None, "claims": {}}

# hook, what the guest answers, what the proxy gets (None: no opinion)
_ACCEPTED = [
    ("pre_query", {"action": "continue"}, None),
    ("pre_query", {"kind": "continue"}, None),
    ("pre_query", {"action": "continue", "junk": 1}, None),
    ("pre_query", {"action": "rewrite", "value": "select 1"}, {"action": "rewrite", "value": "select 1"}),
    ("pre_query", {"kind": "rewrite", "sql": "select 1"}, {"action": "rewrite", "value": "select 1"}),
    ("pre_query", {"action": "rewrite", "sql": "select 1"}, {"action": "rewrite", "value": "select 1"}),
    ("pre_query", {"action": "block", "value": "no"}, {"action": "block", "value": "no"}),
    ("pre_query", {"kind": "block", "reason": "no"}, {"action": "block", "value": "no"}),
    ("pre_query", {"action": "cached", "data": [0, 255]}, {"action": "cached", "data": [0, 255]}),
    ("pre_query", {"kind": "cached", "bytes": []}, {"action": "cached", "data": []}),
    ("pre_query", {"action": "cached", "data_base64": "AP8="}, {"action": "cached", "data_base64": "AP8="}),
    ("rewrite", {"action": "continue"}, None),
    ("rewrite", {"action": "rewrite", "value": "x"}, {"action": "rewrite", "value": "x"}),
    ("rewrite", {"kind": "rewrite", "sql": "x"}, {"action": "rewrite", "value": "x"}),
    ("rewrite", {"action": "block", "value": "no"}, {"action": "block", "value": "no"}),
    ("authenticate", {"action": "defer"}, None),
    ("authenticate", {"kind": "denied", "message": "no"}, {"action": "denied", "message": "no"}),
    ("authenticate", {"action": "success", "identity": _WHO}, {"action": "success", "identity": _WHOLE}),
    (
        "authenticate",
        {
            "kind": "success",
            "identity": {**_WHO, "roles": ["a"], "tenant_id": "t", "claims": {"c": [1]}, "more": 1},
        },
        {"action": "success", "identity": {**_WHO, "roles": ["a"], "tenant_id": "t", "claims": {"c": [1]}}},
    ),
    ("authorize", {"action": "allow"}, {"action": "allow"}),
    ("authorize", {"action": "allow", "reason": "r"}, {"action": "allow", "reason": "r"}),
    ("authorize", {"action": "deny", "reason": None}, {"action": "deny"}),
    ("authorize", {"action": "defer"}, None),
    ("route", {"action": "default"}, None),
    ("route", {"kind": "primary"}, {"action": "primary"}),
    ("route", {"action": "standby"}, {"action": "standby"}),
    ("route", {"action": "node", "target": "n1"}, {"action": "node", "target": "n1"}),
    ("route", {"action": "branch", "target": "b"}, {"action": "branch", "target": "b"}),
    ("route", {"action": "block", "reason": "no"}, {"action": "block", "reason": "no"}),
    ("cache_get", {"action": "miss"}, None),
    ("cache_get", {"action": "hit", "data": [1]}, {"action": "hit", "data": [1]}),
    (
        "cache_get",
        {"action": "hit", "data_base64": "", "ttl_ms": 0},
        {"action": "hit", "data_base64": "", "ttl_ms": 0},
    ),
    ("cache_set", {"action": "store"}, None),
    ("cache_set", {"action": "store", "ttl_ms": None}, None),
    ("cache_set", {"action": "store", "ttl_ms": 5}, {"action": "store", "ttl_ms": 5}),
    ("cache_set", {"action": "skip"}, {"action": "skip"}),
    ("custom_hook", {"action": "anything"}, {"action": "answered", "value": {"action": "anything"}}),
    ("custom_hook", 0, {"action": "answered", "value": 0}),
    ("custom_hook", [], {"action": "answered", "value": []}),
    ("custom_hook", None, None),
    ("post_query", {"what": "ever"}, None),
    ("metrics", "ever", None),
    ("on_connect", 1, None),
    ("on_disconnect", None, None),
]

_REFUSED = [
    *((hook.value, bad) for hook in Hook if hook not in OBSERVERS | {Hook.CUSTOM} for bad in (
        {}, [], 1, None, "continue", {"action": None}, {"action": 1}, {"action": ["deny"]}, {"action": "nonsense"},
        {"action": "Block"}, {"action": ""}, {"action": None, "kind": "continue"}, {"value": "x"},
    )),
    ("pre_query", {"action": "rewrite"}), ("pre_query", {"action": "rewrite", "value": None}),
    ("pre_query", {"action": "rewrite", "value": ["select 1"]}), ("pre_query", {"action": "block"}),
    ("pre_query", {"kind": "block", "value": 5}), ("pre_query", {"action": "cached"}),
    ("pre_query", {"action": "cached", "data": "text"}), ("pre_query", {"action": "cached", "data": [256]}),
    ("pre_query", {"action": "cached", "data": [-1]}), ("pre_query", {"action": "cached", "data": [1.5]}),
    ("pre_query", {"action": "cached", "data": [None]}), ("pre_query", {"action": "cached", "data_base64": "?"}),
    ("pre_query", {"action": "cached", "data_base64": 5}), ("pre_query", {"action": "allow"}),
    ("rewrite", {"action": "rewrite"}), ("rewrite", {"action": "block"}),
    ("authenticate", {"action": "success"}), ("authenticate", {"action": "success", "identity": "ann"}),
    ("authenticate", {"action": "success", "identity": {"user_id": "1"}}),
    ("authenticate", {"action": "success", "identity": {"user_id": 1, "username": "ann"}}),
    ("authenticate", {"action": "success", "identity": {"user_id": "", "username": "ann"}}),
    ("authenticate", {"action": "success", "identity": {**_WHO, "roles": "admin"}}),
    ("authenticate", {"action": "success", "identity": {**_WHO, "roles": [1]}}),
    ("authenticate", {"action": "success", "identity": {**_WHO, "tenant_id": 5}}),
    ("authenticate", {"action": "success", "identity": {**_WHO, "claims": []}}),
    ("authenticate", {"action": "denied"}), ("authorize", {"action": "deny", "reason": 5}),
    ("route", {"action": "node"}), ("route", {"action": "branch", "target": 5}), ("route", {"action": "block"}),
    ("cache_get", {"action": "hit"}), ("cache_get", {"action": "hit", "data": [1], "ttl_ms": -1}),
    ("cache_get", {"action": "hit", "data": [1], "ttl_ms": 1.5}),
    ("cache_set", {"action": "store", "ttl_ms": "5s"}), ("cache_set", {"action": "store", "ttl_ms": True}),
    ("cache_set", {"action": "store", "ttl_ms": 2**54}),
]  # fmt: skip


def _read(hook, answer):
    found = read_answer(Hook(hook), json.dumps(answer).encode())
    if found is None:
        return None
    assert json.loads(found.head + b"}") == found.decision
    return found.decision


@pytest.mark.parametrize(("hook", "answer", "decision"), _ACCEPTED)
def test_both_dialects_are_read_and_one_is_spoken(hook, answer, decision):
    """Whatever the guest speaks, the proxy gets the ``action`` dialect, as the contract models it."""
    assert _read(hook, answer) == decision
    if decision is not None:
        shapes = {
            action: model
            for model in RESULTS[Hook(hook)]
            for action in model.model_fields["action"].annotation.__args__
        }
        shapes[decision["action"]].model_validate(decision)


@pytest.mark.parametrize(("hook", "answer"), _REFUSED)
def test_an_answer_without_its_action_or_a_required_field_is_a_failure(hook, answer):
    """Never a silent default: the message says what is missing."""
    with pytest.raises(ResultError) as refused:
        _read(hook, answer)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("hook", Hook)
def test_no_answer_is_the_hooks_default(hook):
    """A packed 0, or a hook of the type that answers nothing."""
    assert read_answer(hook, None) is None


def test_an_empty_answer_is_a_failure_but_for_a_custom_hook():
    """A pointer and no bytes is not a decision."""
    assert read_answer(Hook.CUSTOM, b"") is None
    with pytest.raises(ResultError):
        read_answer(Hook.ROUTE, b"")


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
_FIELDS = ["action", "kind", "value", "sql", "data", "bytes", "identity", "ttl_ms", "target", "reason"]
_ACTIONS = ["rewrite", "block", "cached", "success", "denied", "allow", "deny", "node", "hit", "store", "defer"]


def _nested(inner):
    values = inner | st.sampled_from(_ACTIONS)
    return _LEAVES | st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_FIELDS), values, max_size=4)


_JSON = _nested(_nested(_LEAVES))


@settings(max_examples=500, deadline=None)
@given(hook=st.sampled_from(list(Hook)), answer=_JSON)
def test_any_json_is_a_decision_or_a_failure_with_cause_result(hook, answer):
    """Nothing else comes out, whatever a guest writes."""
    try:
        decision = _read(hook.value, answer)
    except ResultError:
        return
    assert decision is None or isinstance(decision["action"], str)


@settings(max_examples=300, deadline=None)
@given(hook=st.sampled_from(list(Hook)), raw=st.binary(max_size=60))
def test_any_bytes_are_a_decision_or_a_failure_with_cause_result(hook, raw):
    """Also where they are not JSON."""
    with contextlib.suppress(ResultError):
        read_answer(hook, raw)


def test_a_result_is_bounded_in_names_and_values_too():
    """A million names in one object are two brackets, a second outside of the guest's deadline, and 100 MiB."""

    def answered(more):
        return b'{"action":"continue",' + more + b"}"

    many = b",".join(b'"%x":1' % each for each in range(80_001))
    with pytest.raises(ResultError, match="more than 80000 names"):
        read_answer(Hook.PRE_QUERY, answered(many))
    assert read_answer(Hook.PRE_QUERY, answered(many[: many.rindex(b",")].rpartition(b",")[0])) is None
    text = b'"x":"' + b"a::b, " * 400_000 + b'"'
    assert read_answer(Hook.PRE_QUERY, answered(text)) is None
    with pytest.raises(ResultError, match="give data as data_base64"):
        read_answer(Hook.PRE_QUERY, b'{"action":"cached","data":[' + b"1," * 2**20 + b"1]}")
    found = read_answer(Hook.PRE_QUERY, b'{"action":"cached","data":[' + b"1," * (2**20 - 20) + b"1]}")
    assert len(found.decision["data"]) == 2**20 - 19
