"""The accelerator never says anything else than the Python code that it stands for, whatever a body holds."""

from __future__ import annotations

import json
import os

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hookline_api.hooks import Hook
from hookline_api.resources import Match
from hookline_runtime.call import inputs, looks, shapes
from hookline_runtime.call.matching import Choice
from hookline_runtime.errors import InputError
from hookline_runtime.guest import accelerator

pytestmark = pytest.mark.skipif(accelerator.unused is not None, reason=str(accelerator.unused))


_CONTEXT = {
    "request_id": "r-1", "client_id": None, "identity": "ann", "database": "shop", "branch": None,
    "attributes": {"tenant_id": "t", "ü": "\\"},
}  # fmt: skip
_QUERY = {"query": 'select "ä€𝄞" from t -- \n', "normalized": "select $1", "tables": ["t", "u"], "is_read_only": True}
_WHOLE = _QUERY | {"hook_context": _CONTEXT}
_BODIES = {
    Hook.PRE_QUERY: _WHOLE,
    Hook.REWRITE: _WHOLE,
    Hook.ROUTE: _WHOLE | {"more": {"of": [1, -2.5, None, True, [[]], {}, ""]}},
    Hook.AUTHORIZE: _WHOLE | {"identity": None, "action": "read", "resource": ""},
    Hook.CACHE_GET: _WHOLE | {"key": "k"},
    Hook.CACHE_SET: _WHOLE | {"key": "k", "value": "AA==", "ttl_ms": 5},
    Hook.METRICS: {"hook_context": _CONTEXT, "event": {"n": 0.5}},
}
_PIECES = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\x00", b"\x1f", b"\x7f", b"\x80", b"\xc0\x80",
    b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", "é".encode(), "𝄞".encode(), b"\xef\xbb\xbf",
    b"null", b"true", b"fals", b"NaN", b"0", b"-0", b"01", b"1.", b".5", b"1e5", b"1e400", b"18446744073709551616",
    b"9" * 400, b'"x"', b'"\\ud800"', b'"\\ud834\\udd1e"', b'"\\u0041"', b"\\u00", b'"query":',
    b'"\\u0071uery":null,', b'"hook_context":{},', b'"request_id":"",', b'"tables":[1],',
    b'"request_id":"' + b"x" * 257 + b'",', b'"normalized":"",', b'"n":', b'"n":0,',
    b'"attributes":{"a":1},', b"[" * 40, b"[" * 40 + b"]" * 40, b"{}",
]  # fmt: skip


def _agrees(hook: Hook, body: bytes) -> bool:
    """Whether the accelerator finds it complete; and then it is, with that request id."""
    quoted, key = accelerator.scan(looks.LOOKS[hook], body) or (None, b"")
    assert key == b""
    within = accelerator.scan_from(looks.LOOKS[hook], b"[" + body + b"]", 1)
    if within is not None:
        assert accelerator.scan(looks.LOOKS[hook], body[: within[1] - 1]) == within[0]
    if quoted is None:
        return False
    document = orjson.loads(body)
    assert within == ((quoted, b""), 1 + len(body.rstrip(b" \n\r\t")))
    found = shapes.SHAPES[hook].fits(document)
    assert found is not None
    assert quoted == orjson.dumps(found)
    call = inputs.read_call(hook, body)
    assert (call.data, call.request_id, call.rewritten, call.unsaid) == (body, found, False, frozenset())
    assert call._document == document
    return True


@pytest.mark.parametrize("hook", _BODIES)
@pytest.mark.parametrize("form", [{}, {"indent": 3}, {"ensure_ascii": False, "separators": (",", ":")}])
def test_what_proxies_send_is_found_complete(hook, form):
    """Without this, all else here would hold of an accelerator that never knows."""
    body = json.loads(json.dumps(_BODIES[hook]))
    if form.get("ensure_ascii", True):
        body["hook_context"]["attributes"].pop("ü")  # its value is an escape; and 𝄞 is two
        if "query" in body:
            body["query"] = "select 'ä'"
    assert _agrees(hook, json.dumps(body, **form).encode())


@pytest.mark.parametrize("hook", _BODIES)
def test_whatever_is_cut_off_or_missing_is_left_to_python(hook):
    """Each prefix, and each body without one field, or with that field twice."""
    body = json.dumps(_BODIES[hook], ensure_ascii=False).encode()
    assert not any(_agrees(hook, body[:end]) for end in range(len(body)))
    for name in shapes.NAMES[hook]:
        assert not _agrees(hook, json.dumps({k: v for k, v in _BODIES[hook].items() if k != name}).encode())
        assert not _agrees(hook, b"{" + json.dumps({name: _BODIES[hook][name]}).encode()[1:-1] + b"," + body[1:])


@st.composite
def _mutated(draw):
    hook = draw(st.sampled_from(list(_BODIES)))
    body = json.dumps(_BODIES[hook], ensure_ascii=draw(st.booleans())).encode()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        piece = draw(st.sampled_from(_PIECES) | st.binary(max_size=3))
        body = body[:at] + piece + body[at + draw(st.integers(0, 6)) :]
    return hook, body


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def _changed(draw):
    hook = draw(st.sampled_from(list(_BODIES)))
    document = json.loads(json.dumps(_BODIES[hook]))
    for _ in range(draw(st.integers(1, 2))):
        target = draw(st.sampled_from([document, document["hook_context"], document["hook_context"]["attributes"]]))
        if isinstance(target, dict):
            target[draw(st.sampled_from([*target, "new"]))] = draw(_JSON)
        if not isinstance(document.get("hook_context"), dict) or not isinstance(
            document["hook_context"].get("attributes"), dict
        ):
            break
    return hook, json.dumps(document, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 1]))).encode(
        errors="surrogatepass"
    )


_EXAMPLES = int(os.environ.get("HOOKLINE_FUZZ", "1500"))


@settings(max_examples=_EXAMPLES, deadline=None)
@given(_mutated() | _changed())
@example((Hook.METRICS, b'{"hook_context":{"request_id":"a\\n"}}'))
def test_never_is_anything_found_complete_that_is_not(case):
    """Bytes put in, left out and replaced, and values of every kind: in doubt it says nothing."""
    hook, body = case
    _agrees(hook, body)
    with pytest.MonkeyPatch.context() as patched:
        theirs = _read(hook, body)
        patched.setattr(inputs, "LOOKS", {})
        assert theirs == _read(hook, body)


def _read(hook, body):
    try:
        call = inputs.read_call(hook, body)
    except InputError as error:
        return str(error), error.field
    return call.data if call.data is body else call._document.keys(), call.query, call.tables, call.user, call.database


def test_a_body_of_any_length_is_read_to_its_end_and_no_further():
    """Strings end at each place relative to the eight bytes that are looked at together."""
    look = looks.LOOKS[Hook.ROUTE]
    for length in range(70):
        body = orjson.dumps(_WHOLE | {"query": "q" * length, "more": "é" * (length % 9)})
        assert accelerator.scan(look, body) == (b'"r-1"', b"")
        assert accelerator.scan(look, body + b" ") == (b'"r-1"', b"")
        assert accelerator.scan(look, body[:-1]) is None
    assert accelerator.scan(look, orjson.dumps(_WHOLE | {"query": "q" * 70_000})) is None


_TEXTS = {
    "database": [b"null", b'""', b'"shop"', b'"sh\\u006fp"', b'"other"', b'"shop\\"'],
    "identity": [b"null", b'""', b'"ann"', b'"bob"', b'"b\\u000ab"', b'"eve"'],
    "attributes": [
        b"{}", b'{"application_name":"till"}', b'{"a":"b", "application_name" : "web"}', b'{"application_name":""}',
        b'{"application_name":"till","application_name":"web"}', b'{"application\\u005fname":"till"}', b'{"\\n":""}',
    ],
    "tables": [b"[]", b'["items"]', b'[ "x" , "orders"]', b'["x", "orders"]', b'["x","\\u006frders"]', b'["x"]'],
    "is_read_only": [b"true", b"false"],
    "query": [
        b'"' + lead + word + rest + b'"'
        for lead in (b"", b" ", b"(", b"-- \\n", b"/*!*/", b"\\u0020", b"\\t")
        for word in (b"select", b"SeLeCt", b"delete", b"with", b"drop", b"")
        for rest in (b"", b" 1", b"1", b"\xc3\xa9", b";", b" 1;", b";;", b"; drop", rb"\u003b drop", rb"\\u003b drop",
                     rb"\n;\n", rb" \";", rb" from \"t\"", b" '" + b"x" * 600 + b"'")
    ],
}  # fmt: skip
_OUTSIDE = ["database", "username", "query", "tables", "is_read_only"]
_ODD = [b"null", b"false", b"0", b"1", b"12", b'"shop"', b'"ann"', b'["items"]', b'{"a": [0]}', b'"select 1"', b"true"]


@st.composite
def _said(draw):
    hook = draw(st.sampled_from(list(_BODIES)))
    document, context = ({k: json.dumps(v).encode() for k, v in part.items()} for part in (_BODIES[hook], _CONTEXT))
    for name, texts in _TEXTS.items():
        if name in context or name in document:
            (context if name in context else document)[name] = draw(st.sampled_from(texts))
    for name in draw(st.sets(st.sampled_from(_OUTSIDE), max_size=2)):
        document[name] = draw(st.sampled_from(_ODD if name not in _BODIES[hook] else _TEXTS[name]))
    document["hook_context"] = _object(draw, context)
    return hook, _object(draw, document)


def _object(draw, texts):
    space = draw(st.sampled_from([b"", b"", b" "]))
    members = [b'"%b":%b%b' % (name.encode(), space, text) for name, text in texts.items()]
    return b"{" + b",".join(reversed(members) if draw(st.booleans()) else members) + b"}"


_MATCHES = [
    Match(databases=["shop"]), Match(users=["ann", "b*"]), Match(applications=["till"]), Match(tables=["items", "o*"]),
    Match(query_classes=["write", "select"]), Match(query_classes=["ddl", "delete"]),
]  # fmt: skip
_CHOICES = [Choice(list(enumerate(each))) for each in [_MATCHES, *([one] for one in _MATCHES)]]
_chosen: dict[tuple[int, Hook, bytes], tuple[int, ...]] = {}


@settings(max_examples=_EXAMPLES, deadline=None)
@given(_said() | _said() | _mutated() | _changed())
def test_calls_of_one_key_are_for_the_same_plugins(case):
    """Whatever else they say; and the key is there wherever the request id alone would be, if it is short."""
    _check_key(*case)


@pytest.mark.parametrize("is_read_only", [True, False])
def test_queries_of_one_key_are_of_the_same_classes(is_read_only):
    """Every way to begin one, and to hide another statement behind it."""
    body = orjson.dumps(_WHOLE | {"query": "Q", "is_read_only": is_read_only})
    for query in _TEXTS["query"]:
        _check_key(Hook.ROUTE, body.replace(b'"Q"', query))


def _check_key(hook: Hook, body: bytes) -> None:
    for at, choice in enumerate(_CHOICES):
        found = accelerator.scan(looks.look(hook, choice.facts), body)
        if found is None:
            continue
        assert accelerator.scan(looks.LOOKS[hook], body) == (found[0], b"")
        chosen = choice._chosen(inputs.read_document(hook, inputs.read_json(body), body))
        assert _chosen.setdefault((at, hook, found[1]), chosen) == chosen


def test_a_key_has_no_more_of_a_query_than_its_class_needs():
    """So that the next query of its kind is known already. A fact that the proxy did not say is in no key."""

    def key(facts, **said):
        _, key = accelerator.scan(looks.look(Hook.ROUTE, frozenset(facts)), orjson.dumps(_WHOLE | said))
        return key

    assert key([]) == b""
    assert key(["classes"], query="select 1;") == key(["classes"], query='select "\n" from t') != b""
    assert len({key(["classes"], query=each) for each in ("select 1", "SELECT 1", "select 1; drop", "(select 1)")}) == 4
    assert key(["application"]) == b""
    assert len({key([fact]) for fact in ("database", "user", "tables", "classes")}) == 4
    assert key(["tables"], tables=["t" * 500]) != b""
    assert accelerator.scan(looks.look(Hook.ROUTE, {"tables"}), orjson.dumps(_WHOLE | {"tables": ["t" * 510]})) is None


def test_what_is_no_shape_is_refused():
    """Nothing but bytes of the right length and counts is read; a name that does not fit is ignored."""
    look, body = looks.LOOKS[Hook.ROUTE], orjson.dumps(_WHOLE)
    size = len(look) // 3
    wrong = [None, look.decode("latin-1"), bytearray(look), b"", look[:-1], look + b"\0", look[:size]]
    wrong += [look[: size - 2] + b"\x11\x00" + look[size:], look[:-1] + b"\x01", look[:-2] + b"\xff\xff"]
    for each in wrong:
        with pytest.raises(TypeError, match="scan"):
            accelerator.scan(each, body)
    assert accelerator.scan(b"\xff" * (size - 2) + b"\x10\x10" + look[size:], body) is None
    for fields in ([("x" * 29, 1, 0, 0)], [("x", 1, 0, 0)] * 17):
        with pytest.raises(ValueError, match="too"):
            accelerator.shape(fields, 0)
    for start in (-1, len(body) + 1, 2**63, 2**64, -(2**64)):
        with pytest.raises((ValueError, OverflowError)):
            accelerator.scan_from(look, body, start)
    for body_, start in (body, "0"), (bytearray(body), 0), (body.decode(), 0), (None, 0):
        with pytest.raises((ValueError, TypeError)):
            accelerator.scan_from(look, body_, start)
    assert accelerator.scan_from(look, body, len(body)) is None
