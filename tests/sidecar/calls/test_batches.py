"""``POST /v1/hooks:batch``: each call is answered as it would be alone, in order, by one bundle."""

from __future__ import annotations

import json
import os
import tracemalloc

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from hookline_api.hooks import MAX_CALLS, BatchResult
from hookline_runtime.chain.pipeline import Chains
from hookline_runtime.guest import accelerator
from hookline_sidecar.hooks import batch
from hookline_sidecar.replies import Problem

CONTEXT = {"request_id": "r-1", "client_id": None, "identity": None, "database": None, "branch": None, "attributes": {}}
QUERY = {"query": "select 1", "normalized": "select $1", "tables": [], "is_read_only": True, "hook_context": CONTEXT}
CALLS = {
    "authenticate": {"headers": {"x-request-id": "r-1"}},
    "authorize": QUERY | {"action": "read", "resource": "t"},
    "pre_query": QUERY,
    "Pre_Query": {"query": "select 1", "hook_context": {"request_id": "r-1"}},
    "rewrite": QUERY,
    "route": QUERY,
    "cache_get": QUERY | {"key": "k"},
    "cache_set": QUERY | {"key": "k", "value": "AQI=", "ttl_ms": 7},
    "post_query": [QUERY, {"success": True}],
    "on_connect": {"hook_context": CONTEXT, "event": {"n": 1.5}},
    "custom_hook": {"hook_context": {"request_id": "r-1"}, "any": ["thing", None, 1e30, "\u00e9"]},
    "nothing": QUERY,
    "cache_get ": QUERY,
    "prequery": {"query": 1},
    "routing": {"query": "", "hook_context": {"attributes": {"n": 1}}},
}
ANSWERS = {
    "authenticate": {"action": "defer"},
    "authorize": {"action": "allow"},
    "pre_query": {"action": "rewrite", "value": "select 2"},
    "rewrite": {"action": "continue"},
    "route": {"action": "node", "target": "n7"},
    "cache_get": {"action": "hit", "data": [1, 2]},
    "cache_set": {"action": "store", "ttl_ms": 5},
}


@pytest.fixture(scope="module")
def sidecar(new_sidecar, guests):
    """A plugin that answers what its config says, and one that echoes the bytes it gets, after a while on threads."""
    sidecar = new_sidecar(max_body="1Mi")
    sidecar.folder.plugin("decider", guests.configured(), config=ANSWERS)
    sidecar.folder.plugin("echo", guests.module({"custom_hook": guests.echo}), priority=10)
    return sidecar.start()


async def post(sidecar, body):
    """Status and document of a batch."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    async with sidecar.client() as session, session.post("/v1/hooks:batch", data=raw, headers=headers) as response:
        return response.status, json.loads(await response.read())


async def alone(sidecar, hook, data):
    """What the call is answered by itself."""
    async with sidecar.client() as session, session.post(f"/v1/hooks/{hook}", json=data) as response:
        return json.loads(await response.read())


def calls(*pairs):
    """A batch's body."""
    return {"calls": [{"hook": hook, "input": data} for hook, data in pairs]}


@pytest.mark.parametrize("times", [1, 20], ids=["a few", "many"])
async def test_each_call_is_answered_as_it_would_be_alone(sidecar, times):
    """Decisions and problems alike; problems say which call they are about."""
    status, document = await post(sidecar, calls(*CALLS.items()) | {"calls": calls(*CALLS.items())["calls"] * times})
    assert status == 200
    TypeAdapter(BatchResult).validate_python(document)
    assert len(document["decisions"]) == len(CALLS) * times
    for index, decision in enumerate(document["decisions"]):
        hook, data = list(CALLS.items())[index % len(CALLS)]
        expected = await alone(sidecar, hook, data) if index < len(CALLS) else document["decisions"][index - len(CALLS)]
        if "status" in expected:
            field = decision.pop("field")
            assert field.startswith(f"calls[{index}]") or index >= len(CALLS)
            before = f"calls[{index}].{'hook' if expected['status'] == 404 else 'input'}"
            inner = expected.pop("field", "") if index < len(CALLS) else None
            assert inner is None or field == f"{before}.{inner}".rstrip(".")
        assert decision == expected


async def test_request_ids_stay_with_their_calls(sidecar):
    """And one is made where there is none."""
    given = [QUERY | {"hook_context": CONTEXT | {"request_id": f"r-{number}"}} for number in range(100)]
    _, document = await post(sidecar, calls(*(("route", data) for data in given), ("route", {"query": ""})))
    *ids, made = [decision["request_id"] for decision in document["decisions"]]
    assert ids == [f"r-{number}" for number in range(100)]
    assert len(made) == 16


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not valid JSON"),
        (b"[]", "calls"),
        (b"{}", "calls"),
        (b'{"calls": {}}', "calls"),
        ({"calls": [{"hook": "route", "input": {"query": ""}}] * (MAX_CALLS + 1)}, str(MAX_CALLS)),
        (b'{"calls": ' + b"[" * 600 + b"]" * 600 + b"}", "nested"),
        (b'{"calls": [' + b"\xff" + b"]}", "not valid JSON"),
    ],
    ids=["nothing", "an array", "no calls", "an object", "too many", "too deep", "no UTF-8"],
)
async def test_what_is_no_batch_is_a_400(sidecar, body, words):
    """As a whole: no call of it is run."""
    status, document = await post(sidecar, body)
    assert status == 400
    assert words in document["detail"]


async def test_a_batch_of_nothing_is_answered_with_nothing(sidecar):
    """As is the one that has as many calls as there may be."""
    assert await post(sidecar, {"calls": []}) == (200, {"decisions": []})
    status, document = await post(sidecar, calls(*[("route", QUERY)] * MAX_CALLS))
    assert status == 200
    assert {decision["target"] for decision in document["decisions"]} == {"n7"}
    assert len(document["decisions"]) == MAX_CALLS


@pytest.mark.parametrize(
    "one", [1, "x", None, [], {}, {"hook": "route"}, {"hook": 5, "input": {}}, {"hook": None}], ids=repr
)
async def test_a_call_that_is_none_costs_the_others_nothing(sidecar, one):
    """It is answered with a problem in its place."""
    batch = calls(("route", QUERY), ("route", QUERY))
    batch["calls"].insert(1, one)
    status, document = await post(sidecar, batch)
    assert status == 200
    first, problem, last = document["decisions"]
    assert first["action"] == last["action"] == "node"
    assert problem["status"] in {400, 404}
    assert problem["field"].startswith("calls[1]")


async def test_one_bundle_answers_a_whole_batch(new_sidecar, guests):
    """Although plugins are replaced again and again meanwhile, and have to be waited for."""
    sidecar = new_sidecar()
    for number in range(2):
        sidecar.folder.write(f"v{number}.wasm", guests.saying(number))
    write = lambda number: sidecar.folder.plugin("p", source={"file": {"path": f"v{number}.wasm"}})  # noqa: E731
    write(0)
    sidecar.start()
    seen = set()
    for number in range(1, 7):
        write(number % 2)
        while True:
            _, document = await post(sidecar, calls(*[("custom_hook", 1)] * 300))
            decisions = {(decision["bundle"], decision["value"]) for decision in document["decisions"]}
            assert len(decisions) == 1
            seen |= decisions
            if next(iter(decisions))[1] == number % 2:
                break
    assert len(seen) == 2


async def test_a_batch_of_large_decisions_is_bounded(new_sidecar, guests):
    """Some kilobytes that ask for the same cached answer again and again: the first are answered, the rest not run."""
    sidecar = new_sidecar()
    kept = "eXl5" * 200_000
    sidecar.folder.plugin("cache", guests.configured(), config={"cache_get": {"action": "hit", "data_base64": kept}})
    sidecar.start()
    status, body = await post(sidecar, calls(*[("cache_get", {"query": "select 1", "key": "k"})] * 100))
    assert status == 200
    hits = [each for each in body["decisions"] if "action" in each]
    assert {each["data_base64"] for each in hits} == {kept}
    assert 8 * 2**20 < len(json.dumps(hits)) < 9 * 2**20
    problems = body["decisions"][len(hits) :]
    assert [each.get("status") for each in problems] == [413] * (100 - len(hits))
    assert problems[0]["field"] == f"calls[{len(hits)}]"
    (plugin,) = sidecar.plugins().values()
    assert plugin["stats"]["cache_get"]["calls"] == len(hits)


@pytest.mark.skipif(accelerator.unused is not None, reason=str(accelerator.unused))
async def test_inputs_reach_the_guests_as_they_came(new_sidecar, guests):
    """Byte for byte, with their spaces."""
    sidecar = new_sidecar()
    answer = '{"action":"node","target":"1000"}'
    digits = "".join(
        f"(i32.store8 (i32.const {4096 + answer.index('1000') + place}) (i32.add (i32.const 48)"
        f" (i32.rem_u (i32.div_u (local.get $n) (i32.const {10 ** (3 - place)})) (i32.const 10))))"
        for place in range(1, 4)
    )
    hook = f"{digits} (i64.const {4096 << 32 | len(answer)})"
    data = {4096: answer.encode()}
    sidecar.folder.plugin("p", guests.module({"custom_hook": hook, "route": hook}, data=data))
    sidecar.start()
    whole = json.dumps(QUERY, indent=2).encode()
    inputs = [b'{ "a" :\n1, "b": 2.50 }', b"{}", whole, b'{"more": "\\u0041"}', *[whole] * 8]
    hooks = [b"custom_hook"] * 4 + [b"route"] * 8
    raw = b",\n".join(b'{ "hook": "%b",  "input": %b\t}' % each for each in zip(hooks, inputs, strict=True))
    status, document = await post(sidecar, b'{"calls": [' + raw + b"] }\r\n")
    assert status == 200
    said = [each.get("value", each)["target"] for each in document["decisions"]]
    assert said == [str(1000 + len(each)) for each in inputs]


@pytest.mark.parametrize(
    ("calls", "refused"),
    [
        (b'[{"hook":"route","input":{"query":"a","query":"b"}},%b]', {0}),
        (b'[%b,{"hook":"custom_hook","input":[{"x":{"n":1,"\\u006e":2}}]},%b]', {1}),
        (b'[{"hook":"route","hook":"pre_query","input":{"query":"a"}},%b]', {0}),
        (b'[%b,{"hook":"route","input":{"query":"a"},"input":{"query":"b"}}]', {1}),
        (b'[%b,{"hook":"custom_hook","input":"\\u003a"},%b]', set()),
    ],
)
async def test_a_call_that_says_a_name_twice_is_a_problem_and_the_others_are_decided(sidecar, calls, refused):
    """As each alone would be; one client's odd name costs no other client its answer."""
    good = b'{"hook":"route","input":{"query":"select 1"}}'
    calls = calls.replace(b"%b", good)
    status, document = await post(sidecar, b'{"calls":' + calls + b"}")
    assert status == 200
    assert {at for at, each in enumerate(document["decisions"]) if each.get("status") == 400} == refused
    assert all("stands twice" in document["decisions"][at]["detail"] for at in refused)


@pytest.mark.parametrize(
    "body", [b'{"calls":[],"calls":[]}', b'{"calls":[],"x":{"n":1,"n":2}}', b'{"calls":[],"calls":1}']
)
async def test_a_batch_that_says_twice_what_its_calls_are_is_refused(sidecar, body):
    """As a whole: which calls it has is anybody's guess."""
    status, problem = await post(sidecar, body)
    assert (status, problem["status"]) == (400, 400)


async def test_what_an_input_leaves_out_is_left_out_also_where_its_plugin_is_waited_for(new_sidecar, guests):
    """A plugin for what is read only is asked where the proxy did not say that, from the first call on."""
    sidecar = new_sidecar()
    sidecar.folder.plugin(
        "guard", guests.answering(route={"action": "block", "reason": "no"}), match={"queryClasses": ["read"]}
    )
    sidecar.start()
    for odd in ({}, {"more": 1e30}):
        _, document = await post(sidecar, calls(*[("route", {"query": "select 1"} | odd)] * 40))
        assert {decision["action"] for decision in document["decisions"]} == {"block"}


_PIECES = [
    b'{"calls":[', b'{"hook":"', b'"input":', b'{"hook":"route","input":{}}', b'"hook":"route",', b"]}", b"}", b"{",
    b"}\0{", b"[", b"]", b",", b":", b'"', b"\\", b" ", b"\n", b"\x0b", b"\xff", b"null", b"1", b"1e5", b"{}", b"[]",
    b"\0", b'"calls":[],', b'"input":{},', b"\\u0072", b"Route", b"pre_query", b"nothing", b'"\\ud800"', b"[" * 40,
]  # fmt: skip


@st.composite
def _bodies(draw):
    given_calls = draw(st.lists(st.sampled_from([*CALLS.items(), *[("route", QUERY)] * 20]), min_size=1, max_size=4))
    tight = {"separators": (",", ":")}
    form = draw(st.sampled_from([{}, tight, tight, {"indent": 1}]))
    body = json.dumps(calls(*given_calls), **form).encode()
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        body = body[:at] + draw(st.sampled_from(_PIECES)) + body[at + draw(st.integers(0, 12)) :]
    return body


@pytest.mark.skipif(accelerator.unused is not None, reason=str(accelerator.unused))
@settings(max_examples=int(os.environ.get("HOOKLINE_FUZZ", "1500")), deadline=None)
@given(_bodies())
def test_a_body_is_cut_only_where_parsing_finds_the_same_calls(body):
    """Their hooks, their inputs, and what is to be known of these; a body that is cut is a batch."""
    chains = Chains("v", [])
    found = batch._cut(chains, body)
    if found is None:
        return
    parsed = batch._read(body)
    assert [each[0] for each in found] == [each[0] for each in parsed]
    for (hook, data, scanned), (_, written, _) in zip(found, parsed, strict=True):
        assert orjson.dumps(orjson.loads(data)) == written
        assert scanned == (accelerator.scan(chains.ways[hook].look, data) if hook in chains.ways else None)


@pytest.mark.skipif(accelerator.unused is not None, reason=str(accelerator.unused))
def test_common_bodies_are_cut():
    """Else all of this would hold of something that never cuts. What has too many calls is refused in words."""
    chains = Chains("v", [])
    for form in {}, {"indent": 1}, {"separators": (",", ":")}:
        several = [("route", QUERY), ("route", QUERY), ("pre_query", QUERY), ("custom_hook", {})]
        body = json.dumps(calls(*several * 9), **form)
        assert len(batch._cut(chains, body.encode())) == 36
        assert batch._cut(chains, body[:-1].encode()) is None
    one = b'{"hook":"route","input":{}}'
    assert batch._cut(chains, b'{"calls":[%b}' % one) is batch._cut(chains, b'{"calls":[]}') is None
    for each in (b"", b"\0", b" ", b"\n\0"):  # nothing but a comma, and what comes with it, is between two calls
        assert batch._cut(chains, b'{"calls":[%b%b{}}]}' % (one[:-1], each)) is None
        assert batch._cut(chains, b'{"calls":[%b,%b%b{}}]}' % (one, one[:-1], each)) is None
    many = b'{"calls":[' + b",".join([one] * (MAX_CALLS + 1)) + b"]}"
    assert batch._cut(chains, many) is None
    with pytest.raises(Problem, match=str(MAX_CALLS)):
        batch.Batch(many).advance(chains)


def test_inputs_that_are_answered_are_let_go():
    """Answers may be as large as the inputs: a worker is not to hold both of several batches."""
    work = batch.Batch(json.dumps(calls(*[("custom_hook", "a" * 10_000)] * 1000)).encode())
    chains, reply = Chains("1", []), None
    tracemalloc.start()
    try:
        while reply is None:
            reply = work.advance(chains)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(json.loads(reply.body)["decisions"]) == 1000
    assert held < 2**20
