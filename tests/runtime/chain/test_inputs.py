"""What a proxy sends is checked, completed, and handed to guests byte for byte where nothing was missing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline_api.hooks import INPUTS, Hook
from hookline_runtime.call.inputs import MAX_VALUES, read_call, read_document, read_json
from hookline_runtime.errors import InputError

_WHOLE_CONTEXT = {
    "request_id": "r-1", "client_id": None, "identity": "ann", "database": "shop", "branch": None,
    "attributes": {"tenant_id": "t"},
}  # fmt: skip
_WHOLE = {
    "query": "select 1",
    "normalized": "select $1",
    "tables": ["t"],
    "is_read_only": True,
    "hook_context": _WHOLE_CONTEXT,
}


def _raw(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("hook", "body"),
    [
        ("pre_query", _WHOLE),
        ("route", {**_WHOLE, "more": {"of": [1, 2.5, None]}}),
        ("authorize", {**_WHOLE, "identity": None, "action": "read", "resource": "t"}),
        ("cache_get", {**_WHOLE, "key": "k"}),
        ("cache_set", {**_WHOLE, "key": "k", "value": "AA==", "ttl_ms": None}),
        ("post_query", [_WHOLE, {"success": False, "target_node": "n", "elapsed_us": 5,
                                 "response_bytes": 0, "error": "e"}]),
        ("metrics", {"hook_context": _WHOLE_CONTEXT, "event": {"n": 1}}),
        ("authenticate", {"headers": {"x": "y"}, "username": "u", "password": "p", "client_ip": "::1",
                          "database": None, "hook_context": _WHOLE_CONTEXT}),
        ("custom_hook", [1, {"two": None}]),
        ("custom_hook", "text"),
    ],
)  # fmt: skip
def test_a_complete_input_reaches_the_guest_byte_for_byte(hook, body):
    """Spaces, order, unknown fields: nothing is written anew."""
    raw = json.dumps(body, indent=3).encode()
    assert read_call(Hook(hook), raw).data == raw


@pytest.mark.parametrize("hook", [hook for hook, model in INPUTS.items() if model])
def test_what_is_missing_is_filled_in_for_the_guest(hook):
    """A guest finds every field of its input, with its type, whatever the proxy left out."""
    least = {"query": "q", "key": "k", "value": ""} if "query" in INPUTS[hook].model_fields else {}
    body = [least, {"success": True}] if hook is Hook.POST_QUERY else least
    seen = json.loads(read_call(hook, _raw(body)).data)
    head = seen[0] if hook is Hook.POST_QUERY else seen
    INPUTS[hook].model_validate(head, strict=True)
    assert set(INPUTS[hook].model_fields) <= set(head)
    if "hook_context" in INPUTS[hook].model_fields:
        assert set(_WHOLE_CONTEXT) == set(head["hook_context"])
        assert head["hook_context"]["request_id"]


_STRINGS_OF = {
    hook: sorted(name for name, info in model.model_fields.items() if info.annotation is str)
    for hook, model in INPUTS.items()
    if model
}
"""The strings of each hook's input, the nullable ones left out."""


@pytest.mark.parametrize("hook", _STRINGS_OF)
@pytest.mark.parametrize("said", [{}, {"null": None}, {"empty": ""}])
def test_a_string_never_reaches_a_guest_as_null(hook, said):
    """HeliosDB's SDK reads each into a ``String``: one null, and the guard sees nothing of the whole input."""
    least = {"query": "q", "key": "k", "value": ""} if "query" in INPUTS[hook].model_fields else {}
    for value in said.values():
        least = dict.fromkeys(set(_STRINGS_OF[hook]) - set(least), value) | least
        least |= {"hook_context": {"request_id": value}} if "hook_context" in INPUTS[hook].model_fields else {}
    body = [least, {"success": True}] if hook is Hook.POST_QUERY else least
    seen = json.loads(read_call(hook, _raw(body)).data)
    head = seen[0] if hook is Hook.POST_QUERY else seen
    assert all(isinstance(head[name], str) for name in _STRINGS_OF[hook])
    if "hook_context" in head:
        assert head["hook_context"]["request_id"]
    if "query" in head:
        assert head["normalized"] == head["query"] == "q"
        assert head["hook_context"]["attributes"] == {"hookline.normalized": "verbatim"}


def test_what_the_proxy_normalized_is_left_as_it_is():
    """And so is an empty query, which nobody can normalize: neither has the attribute."""
    for body in _WHOLE, {**_WHOLE, "query": "", "normalized": ""}:
        seen = json.loads(read_call(Hook.ROUTE, _raw(body)).data)
        assert seen == body


def test_after_a_rewrite_the_normalized_query_is_the_new_text():
    """Whatever the proxy said of the old one: a guard that reads either field sees what will run."""
    for body in _WHOLE, {"query": "select 1"}, {"query": "select 1", "normalized": None}:
        call = read_call(Hook.PRE_QUERY, _raw(body))
        call.rewrite("drop table t", "someone")
        seen = json.loads(call.data)
        assert (seen["query"], seen["normalized"]) == ("drop table t", "drop table t")
        assert seen["hook_context"]["attributes"]["hookline.normalized"] == "verbatim"


def test_an_identity_that_is_told_is_whole():
    """Of ``authorize``: who it is has to be there, and lists and objects are never null."""
    asked = {**_WHOLE, "action": "read", "resource": "t"}
    seen = json.loads(read_call(Hook.AUTHORIZE, _raw({**asked, "identity": {"user_id": "1", "username": "a"}})).data)
    assert seen["identity"] == {"user_id": "1", "username": "a", "roles": [], "tenant_id": None, "claims": {}}
    for wrong in {}, {"user_id": "1", "username": None}, {"user_id": "1", "username": "a", "roles": [1]}:
        with pytest.raises(InputError) as refused:
            read_call(Hook.AUTHORIZE, _raw({**asked, "identity": wrong}))
        assert refused.value.field.startswith("identity.")


@pytest.mark.parametrize("hook", Hook)
@pytest.mark.parametrize(
    ("twice", "name"),
    [
        (b'"query":"drop t","query":"select 1"', "query"),
        (b'"query":"a","query":"a"', "query"),
        (b'"query":"a","qu\\u0065ry":"b"', "query"),
        (b'"query":"a:b","more":{"x":1,"y":2,"x":":"}', "x"),
        (b'"query":"\\u003a","more":[[{"x":1,"x":2}]]', "x"),
        (b'"query":"\\u003A\\\\u003a","x":{"":0,"":0}', ""),
        (b'"query":"a","hook_context":{"attributes":{"tenant_id":"a","tenant_id":"b"}}', "tenant_id"),
        (b'"query":"a","hook_context":{"request_id":"a"},"hook_context":{"request_id":"b"}', "hook_context"),
        (b'"query":"a","headers":{"authorization":"a","authorization":"b"}', "authorization"),
        (b'"query":"a",' + b",".join(b'"n%d":{}' % at for at in range(200)) + b',"n5":1', "n5"),
    ],
)
def test_a_name_that_stands_twice_is_refused(hook, twice, name):
    """Of two readers one takes the first and one the last: what a guard saw would not be what runs."""
    body = b"{" + twice + b"}"
    with pytest.raises(InputError, match=f"the name {name!r} stands twice"):
        read_call(hook, b"[" + body + b',{"success":true}]' if hook is Hook.POST_QUERY else body)


@settings(max_examples=300, deadline=None)
@given(body=st.recursive(
    st.text(alphabet=':\\"u03aA{', max_size=6) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet=':\\"u03a', max_size=6), inner),
    max_leaves=12,
), escaped=st.booleans())  # fmt: skip
def test_names_that_stand_once_are_never_taken_for_twice(body, escaped):
    """Colons in strings are not between a name and its value, however they are written."""
    raw = _raw(body)
    if escaped:  # in JSON, outside of strings, this stands for nothing else
        raw = b'["' + raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b":", b"\\u003a") + b'"]'
    assert read_call(Hook.CUSTOM, raw).data == raw


def test_a_large_body_that_says_a_name_twice_is_refused_without_a_search_for_the_name():
    """Looking for it takes an object for each member."""
    with pytest.raises(InputError, match="a name stands twice"):
        read_call(Hook.CUSTOM, b'{"x":"' + b"a" * 2**20 + b'","x":0}')


@pytest.mark.parametrize(
    ("hook", "body", "field"),
    [
        ("pre_query", b"", ""), ("pre_query", b"{", ""), ("pre_query", b"\xff\xfe", ""), ("pre_query", b"[]", ""),
        ("pre_query", b"null", ""), ("pre_query", b'"x"', ""), ("pre_query", b"{} {}", ""),
        ("pre_query", b"NaN", ""),
        ("pre_query", _raw({}), "query"), ("pre_query", _raw({"query": None}), "query"),
        ("pre_query", _raw({"query": 5}), "query"), ("pre_query", _raw({"query": "", "tables": "t"}), "tables"),
        ("pre_query", _raw({"query": "", "tables": [1]}), "tables"),
        ("pre_query", _raw({"query": "", "tables": [{}]}), "tables"),
        ("pre_query", _raw({"query": "", "tables": None}), "tables"),
        ("pre_query", _raw({"query": "", "is_read_only": 1}), "is_read_only"),
        ("pre_query", _raw({"query": "", "hook_context": None}), "hook_context"),
        ("pre_query", _raw({"query": "", "hook_context": []}), "hook_context"),
        ("route", _raw({"query": "", "hook_context": {"identity": 5}}), "hook_context.identity"),
        ("route", _raw({"query": "", "hook_context": {"attributes": {"a": 1}}}), "hook_context.attributes.a"),
        ("route", _raw({"query": "", "hook_context": {"request_id": 1}}), "hook_context.request_id"),
        ("route", _raw({"query": "", "hook_context": {"request_id": "x" * 257}}), "hook_context.request_id"),
        ("cache_get", _raw({"query": ""}), "key"), ("cache_set", _raw({"query": "", "key": "k"}), "value"),
        ("cache_set", _raw({"query": "", "key": "k", "value": "", "ttl_ms": "5"}), "ttl_ms"),
        ("cache_set", _raw({"query": "", "key": "k", "value": "", "ttl_ms": True}), "ttl_ms"),
        ("cache_set", _raw({"query": "", "key": "k", "value": "", "ttl_ms": -1}), "ttl_ms"),
        ("cache_set", _raw({**_WHOLE, "key": "k", "value": "", "ttl_ms": -1}), "ttl_ms"),
        ("post_query", _raw([_WHOLE, {"success": True, "elapsed_us": -1}]), "[1].elapsed_us"),
        ("post_query", _raw([_WHOLE, {"success": True, "response_bytes": -1}]), "[1].response_bytes"),
        ("post_query", b"{}", ""), ("post_query", b"[]", ""), ("post_query", b"[{}, {}, {}]", ""),
        ("post_query", _raw([[], {}]), ""), ("post_query", _raw([{"query": ""}, []]), "[1]"),
        ("post_query", _raw([{"query": ""}, {}]), "[1].success"),
        ("post_query", _raw([{"query": ""}, {"success": 1}]), "[1].success"),
        ("authenticate", _raw({"headers": []}), "headers"),
        ("authenticate", _raw({"headers": {"a": 1}}), "headers"),
        ("authenticate", _raw({"password": 5}), "password"), ("metrics", _raw({"event": []}), "event"),
    ],
)  # fmt: skip
def test_a_malformed_input_is_refused_with_its_field(hook, body, field):
    """Each with the path of what is wrong, and one sentence."""
    with pytest.raises(InputError) as refused:
        read_call(Hook(hook), body)
    assert refused.value.field == field
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["text", 5, None, [1], {"identity": 5}])
def test_a_field_that_is_no_part_of_an_input_is_never_looked_into(value):
    """An authentication has no tables: those that are sent are the guest's business."""
    raw = _raw(
        {"headers": {}, "username": "u", "password": "", "client_ip": "", "database": "d", "tables": value,
         "hook_context": _WHOLE_CONTEXT}
    )  # fmt: skip
    call = read_call(Hook.AUTHENTICATE, raw)
    assert call.data == raw
    assert (call.user, call.database) == ("u", "d")


@pytest.mark.parametrize(
    ("context", "field"),
    [(5, "hook_context"), ({"request_id": 5}, "hook_context.request_id"),
     ({"attributes": []}, "hook_context.attributes"), ({"request_id": "x" * 257}, "hook_context.request_id")],
)  # fmt: skip
def test_the_context_of_an_authentication_is_checked_as_any_other(context, field):
    """A guest that reads a request id there finds text."""
    with pytest.raises(InputError) as refused:
        read_call(Hook.AUTHENTICATE, _raw({"hook_context": context}))
    assert refused.value.field == field


def test_what_a_client_claims_of_itself_counts_before_the_context_of_its_login():
    """Nobody has proven yet who it is: a context from before a login leaves no guard out."""
    context = {"identity": "before", "database": "old", "attributes": {"application_name": "psql"}}
    call = read_call(Hook.AUTHENTICATE, _raw({"username": "u", "database": "d", "hook_context": context}))
    assert (call.user, call.database, call.application) == ("u", "d", "psql")
    call = read_call(Hook.AUTHENTICATE, _raw({"hook_context": context}))
    assert (call.user, call.database) == ("before", "old")


@pytest.mark.parametrize("hook", ["pre_query", "custom_hook", "metrics"])
@pytest.mark.parametrize("deep", ["[" * 300 + "]" * 300, '{"a":' * 300 + "1" + "}" * 300, "[" * 100_000])
def test_an_input_that_is_nested_too_deeply_is_refused(hook, deep):
    """It could be read, and not be written after a rewrite: better the first plugin does not see it either."""
    with pytest.raises(InputError):
        read_call(Hook(hook), b'{"query": "", "more": ' + deep.encode() + b"}")


def test_an_input_with_many_brackets_is_no_deep_one():
    """Width is not depth."""
    raw = _raw({**_WHOLE, "more": [[] for _ in range(5000)]})
    assert read_call(Hook.PRE_QUERY, raw).data == raw


def test_a_request_id_stays_and_is_made_where_there_is_none():
    """The proxy's own, from the context or from a header; an empty one is none."""
    for hook, body in [
        ("pre_query", _WHOLE),
        ("post_query", [_WHOLE, {"success": True}]),
        ("authenticate", {"headers": {"x-request-id": "r-1"}}),
        ("authenticate", {"hook_context": {"request_id": "r-1"}}),
        ("authenticate", {"headers": {"x-request-id": "r-2"}, "hook_context": {"request_id": "r-1"}}),
        ("custom_hook", {"hook_context": {"request_id": "r-1"}}),
    ]:
        assert read_call(Hook(hook), _raw(body)).request_id == "r-1"
    made = [
        read_call(Hook(hook), _raw(body))
        for hook, body in [
            ("pre_query", {"query": ""}),
            ("pre_query", {"query": "", "hook_context": {"request_id": ""}}),
            ("pre_query", {"query": "", "hook_context": {"request_id": None}}),
            ("authenticate", {"headers": {"x-request-id": "x" * 300}}),
            ("authenticate", {}),
            ("custom_hook", {"hook_context": 5}),
            ("custom_hook", 5),
        ]
    ]
    assert len({call.request_id for call in made}) == len(made)
    assert all(call.request_id for call in made)
    for call in made[1:5]:  # and the guest is told the same
        assert json.loads(call.data)["hook_context"]["request_id"] == call.request_id


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
_FIELDS = [
    "query", "tables", "hook_context", "attributes", "request_id", "headers", "event", "key", "value", "ttl_ms",
    "success", "is_read_only", "identity", "database",
]  # fmt: skip


def _nested(inner):
    return _LEAVES | st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_FIELDS), inner, max_size=5)


_JSON = _nested(_nested(_nested(_LEAVES)))


@settings(max_examples=600, deadline=None)
@given(hook=st.sampled_from(list(Hook)), body=_JSON)
def test_any_json_is_a_call_or_an_input_error(hook, body):
    """And a call that was read can be rewritten, retimed and matched."""
    try:
        call = read_call(hook, _raw(body))
    except InputError:
        return
    assert json.loads(call.data) is not False or body is False
    assert (call.query, call.user, call.database, call.application, call.tables, call.is_read_only) is not None
    if hook in {Hook.PRE_QUERY, Hook.REWRITE}:
        call.rewrite("x", "p")
        assert json.loads(call.data)["query"] == "x"
    if hook is Hook.CACHE_SET:
        call.change_ttl(5)
        assert call.ttl_ms == 5


@pytest.mark.parametrize("hook", ["pre_query", "authorize", "cache_set", "custom_hook"])
def test_what_a_large_call_says_is_let_go_and_found_again(hook):
    """While it waits, only its bytes are there; whoever asks hears the same as before."""
    fields = {"identity": None, "action": "read", "resource": "t", "key": "k", "value": "AA==", "ttl_ms": 5}
    body = _raw({**_WHOLE, **fields, "more": [{}] * 20_000})
    call = read_document(Hook(hook), read_json(body), body)

    def said():
        return (
            call.query, call.tables, call.is_read_only, call.database, call.user, call.application, call.rewritten,
            call.unsaid,
        )  # fmt: skip

    before = said()
    call.forget()
    with pytest.raises(AttributeError):
        object.__getattribute__(call, "_document")
    assert said() == before
    if hook == "pre_query":
        call.rewrite("select 2", "plugin")
        call.forget()
        assert (call.query, call.rewritten) == ("select 2", True)


def test_what_was_left_out_is_not_forgotten():
    """The data says a default then, and what the proxy said could not be told from it."""
    body = _raw({"query": "select 1", "more": [{}] * 20_000})
    call = read_document(Hook.PRE_QUERY, read_json(body), body)
    call.forget()
    assert call.is_read_only is None


def test_a_body_of_too_many_values_is_refused_before_it_is_parsed():
    """It would be parsed to see that it is none."""
    with pytest.raises(InputError, match="more than 262144 values and names in them, and is not parsed"):
        read_call(Hook.PRE_QUERY, b"{" + b"[" * MAX_VALUES)
