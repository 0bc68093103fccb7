"""One plugin by itself: what its calls came to, answered by nobody but the case."""

from __future__ import annotations

import json

import pytest
import wasmtime

from guests import Guests
from hookline_api.bundle import BundlePlugin
from hookline_api.cases import HostAnswer, read_cases
from hookline_api.hooks import Hook
from hookline_runtime.trial.cases import try_case
from hookline_runtime.trial.trial import compiled, on_trial

FETCH = '(import "hookline" "http_fetch" (func $fetch (param i32 i32) (result i64)))'
REQUEST = {"method": "GET", "url": "https://keys.example.com/set"}


def asking(request=REQUEST):
    """A module whose custom hook answers what it fetches."""
    raw = json.dumps(request).encode() if not isinstance(request, bytes) else request
    body = f"(call $fetch (i32.const 1024) (i32.const {len(raw)}))"
    return Guests().module({"custom_hook": body}, imports=FETCH, data={1024: raw})


@pytest.fixture
def folder(tmp_path):
    """For compiled modules."""
    return tmp_path / "compiled"


def entry(**settings):
    """A plugin that may fetch, and is told by its resource what no trial is about."""
    base = {"name": "p", "hooks": ["custom_hook"], "permissions": ["http.fetch"], "match": {"databases": ["none"]}}
    return BundlePlugin.model_validate({**base, "mode": "Shadow", **settings})


async def tried(folder, wasm, **case):
    """The result of one case of the custom hook."""
    (made,) = read_cases(json.dumps([{"name": "c", "hook": "custom_hook", "input": 1, **case}]))
    return await try_case(made, entry(), wasm, compiled(wasm, folder))


async def test_a_question_is_answered_by_the_case_alone(folder) -> None:
    """The first answer that fits; long texts in it are written out."""
    long = {"$repeat": ["x", 5000]}
    answers = [
        {"function": "http_post", "answer": {"status": 1}},
        {"function": "http_fetch", "when": {"url": "https://other"}, "answer": {"status": 2}},
        {"function": "http_fetch", "when": {"url": REQUEST["url"]}, "answer": {"status": 3, "body": long}},
        {"function": "http_fetch", "answer": {"status": 4}},
    ]
    found = await tried(folder, asking(), answers=answers, expect={"value": {"status": 3, "body": "x" * 5000}})
    assert found.holds, found.problem
    assert found.called is not None
    assert found.called.host_calls == {"http_fetch": 1}
    assert found.called.unanswered is None


async def test_a_question_without_an_answer_is_one_to_nobody(folder) -> None:
    """The guest is told so, and so is the author."""
    found = await tried(folder, asking(), expect={"value": {"error": {"cause": "unavailable"}}})
    assert found.holds, found.problem
    assert found.called is not None
    assert found.called.unanswered == {"function": "http_fetch", "question": REQUEST}


async def test_a_question_that_is_no_json_or_costs_too_much_is_text(folder) -> None:
    """Nothing of it is parsed."""
    for raw in (b"not JSON", b"[" * 20_000):
        found = await tried(folder, asking(raw), expect={"value": {"error": {"cause": "unavailable"}}})
        assert found.holds, found.problem
        assert found.called is not None
        assert found.called.unanswered is not None
        assert found.called.unanswered["question"] == raw.decode()


async def test_without_its_permission_a_question_is_denied(folder) -> None:
    """As in a pod."""
    found = await tried(folder, asking(), permissions=[], expect={"value": {"error": {"cause": "denied"}}})
    assert found.holds, found.problem
    assert found.called is not None
    assert found.called.denied == {"http_fetch": 1}


async def test_a_case_of_another_hook_holds_of_nothing(folder) -> None:
    """The chain would answer it with the hook's default."""
    found = await tried(folder, asking(), hook="route", expect={"action": "default"})
    assert found.problem == "its own case 'c' asks route, which the module does not export: it exports custom_hook"


async def test_an_input_that_is_not_the_hooks_is_told(folder) -> None:
    """It is the case that is wrong."""
    wasm = Guests().answering(pre_query={"action": "continue"})
    (case,) = read_cases(json.dumps([{"name": "c", "hook": "pre_query", "input": [], "expect": {"action": "x"}}]))
    found = await try_case(case, entry(hooks=["pre_query"]), wasm, compiled(wasm, folder))
    assert found.problem is not None
    assert found.problem.startswith("the input is wrong: ")


async def test_of_a_guest_that_logs_without_end_the_first_lines_are_kept(folder) -> None:
    """And each is seen, whatever the level of the program's own log."""
    log = '(import "hookline" "log" (func $log (param i32 i32 i32) (result i32)))'
    body = """(loop $more (drop (call $log (i32.const 0) (i32.const 1024) (i32.const 2)))
      (local.set $i (i64.add (local.get $i) (i64.const 1))) (br_if $more (i64.lt_u (local.get $i) (i64.const 5000))))
      (i64.const 0)"""
    wasm = Guests().module({"custom_hook": body}, imports=log, data={1024: b"hi"})
    async with on_trial(entry(mode="Enforce", match={}), wasm, compiled(wasm, folder)) as trial:
        called = await trial.call(Hook.CUSTOM, b"1")
    assert 0 < len(called.log) <= 1000
    assert (called.log[0].level, called.log[0].text) == ("trace", "hi")


async def test_two_trials_share_no_key(folder) -> None:
    """Also at the same time."""
    wasm = Guests().stored()
    module = compiled(wasm, folder)
    may = entry(mode="Enforce", match={}, permissions=["kv.read"])
    async with (
        on_trial(may, wasm, module, keys={"k": "1"}) as one,
        on_trial(may, wasm, module, answers=[HostAnswer(function="http_post", answer=1)]) as other,
    ):
        assert (await one.call(Hook.CUSTOM, b"0")).decision["value"] == 1
        assert (await other.call(Hook.CUSTOM, b"0")).decision["action"] == "empty"


def test_a_module_is_compiled_once(folder) -> None:
    """By its bytes, into a folder that nobody else may enter."""
    wasm = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1))'))
    made = compiled(wasm, folder)
    assert compiled(wasm, folder) == made
    assert folder.stat().st_mode & 0o777 == 0o700
