"""Cases are read strictly and within bounds, and what is wrong with them is one sentence with its place."""

from __future__ import annotations

import json

import pytest

from hookline_api.cases import MAX_DOCUMENT, CasesError, difference, read_cases, unanswerable, written_out
from hookline_api.hooks import Hook

STEP = {"hook": "pre_query", "input": {"query": "select 1"}, "expect": {"action": "continue"}}
CASE = STEP | {"name": "a"}


def document(*changes, **fields):
    """A document with one case for each of these changes."""
    return json.dumps(
        [CASE | {"name": f"case {number}"} | change for number, change in enumerate(changes or (fields,))]
    )


def problem(text):
    """The sentence about a document that cannot be read."""
    with pytest.raises(CasesError) as caught:
        read_cases(text)
    return str(caught.value)


def test_a_case_is_one_question_or_several() -> None:
    """A hook is known by any spelling that manifests have, and what is not said has a default."""
    one, several = read_cases(document({"hook": "PreQuery"}, {"kv": {"a": "b"}}))
    assert [step.hook for step in one.steps] == [Hook.PRE_QUERY]
    assert (one.permissions, one.limits, one.config) == (None, None, {})
    assert several.kv == {"a": "b"}
    steps = [{"hook": "route", "input": 1, "failure": "trap"}, {"hook": "metrics", "input": 1, "expect": {"a": 1}}]
    (case,) = read_cases(json.dumps([{"name": "two", "steps": steps}]))
    assert [(step.hook, step.failure) for step in case.steps] == [(Hook.ROUTE, "trap"), (Hook.METRICS, None)]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"expectt": 1}, "case 'case 0', expectt: there is no such field"),
        ({"hook": "no_such"}, "case 'case 0', steps[0].hook: "),
        ({"expect": {}}, "'expect' is empty, which any answer meets"),
        ({"expect": None}, "a case says either what is expected ('expect') or how it fails ('failure')"),
        ({"failure": "trap"}, "a case says either what is expected ('expect') or how it fails ('failure')"),
        ({"repeat": 0}, "steps[0].repeat: "),
        ({"repeat": 10_001}, "steps[0].repeat: "),
        ({"steps": [], "hook": "route"}, "case 'case 0', hook: there is no such field"),
        ({"answers": [{"function": "kv_get", "answer": 1}]}, "answers[0].function: "),
        ({"limits": {"timeout": "an hour"}}, "limits.timeout: "),
        ({"kv": {"a": 1}}, "kv.a: "),
        ({"name": ""}, "name: "),
    ],
)
def test_a_mistake_is_told_with_its_place(fields, said) -> None:
    """By the name of the case, and the field; pydantic's words are never seen."""
    told = problem(document(fields))
    assert said in told
    assert "validation error" not in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the cases are not JSON"),
        ("{", "the cases are not JSON"),
        ("[]", "the list of cases is empty"),
        ("{}", "the cases are an object, and have to be a list of them"),
        ("[1]", "[0]: "),
        ('[{"name": NaN}]', "NaN is no number there"),
        (b"\xff\xfe[]", "the cases are not text in UTF-8: byte 0 is none of it"),
        ("[]".encode("utf-16"), "the cases are not text in UTF-8"),
        (document(CASE | {"input": "\ud800"}), "half of a surrogate pair"),
        (document(CASE | {"input": {"\ud800": 1}}), "half of a surrogate pair"),
        (document(CASE | {"input": 2**64}), "a number has more than 64 bits"),
        ("[" + "9" * 5000 + "]", "digits"),
        (json.dumps([CASE, CASE]), "two cases have the name 'a'"),
    ],
)
def test_what_is_no_list_of_cases_is_told(text, said) -> None:
    """Whatever the bytes are."""
    assert said in problem(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(b" " * (MAX_DOCUMENT + 1), "more than 262144 bytes", id="300 KiB"),
        pytest.param(json.dumps([{}] * 10_000), "10000 cases", id="10,000 cases"),
        pytest.param(json.dumps([0] * 60_000), "more than 50000 values", id="values"),
        pytest.param("[" * 5_000, "nested deeper than 64", id="open brackets"),
        pytest.param('{"a":' * 3_000 + "1" + "}" * 3_000, "nested deeper than 64", id="deep objects"),
        pytest.param(json.dumps([{"name": "a", "steps": [STEP] * 65}]), "64", id="65 steps"),
        pytest.param(
            document(*({"repeat": 10_000} for _ in range(11))), "ask 110000 questions", id="calls"
        ),
        pytest.param(
            document({"input": {"$repeat": ["x", 2**20 + 1]}}), "makes more than 1048576 characters", id="one text"
        ),
        pytest.param(
            document({"input": [{"$repeat": ["x", 2**20]}] * 33}), "more than 33554432 characters", id="all texts"
        ),
        pytest.param(
            document({"input": {"$concat": [{"$repeat": ["x" * 1000, 1000]}] * 2}}), "a $concat makes", id="joined"
        ),
        pytest.param(document({"answers": [{"function": "http_fetch", "answer": {"$repeat": ["x", 2**40]}}]}),
                     "a $repeat makes", id="in an answer"),
    ],
)  # fmt: skip
def test_what_is_too_much_is_refused_before_it_is_made(text, said) -> None:
    """Bytes, values, depth, cases, steps, calls and the texts that are written out."""
    assert said in problem(text)


@pytest.mark.parametrize(
    "value",
    [
        {"$repeat": "x"},
        {"$repeat": ["x"]},
        {"$repeat": ["x", "3"]},
        {"$repeat": ["x", -1]},
        {"$repeat": ["x", True]},
        {"$repeat": [{"$repeat": ["x", 3]}, 3]},
        {"$repeat": [[1], 3]},
        {"$concat": "x"},
        {"$concat": [1]},
        {"$concat": [{"a": "b"}]},
        {"$concat": [["x"]]},
    ],
)
def test_a_text_that_is_none_is_refused(value) -> None:
    """Where it is read, and where it is written out."""
    assert "$" in problem(document({"input": {"query": value}}))
    with pytest.raises(CasesError):
        written_out(value)


def test_texts_are_written_out() -> None:
    """In each other, and not where an object has another member too."""
    inner = {"$concat": ["a", {"$repeat": ["xy", 2]}, {"$concat": []}]}
    assert written_out({"q": [inner, {"$concat": [inner, inner]}]}) == {"q": ["axyxy", "axyxyaxyxy"]}
    assert written_out({"$repeat": ["x", 0]}) == ""
    assert written_out({"$repeat": 1, "b": 2}) == {"$repeat": 1, "b": 2}


@pytest.mark.parametrize(
    ("expected", "found", "said"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, None),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2], "c": 0}}, None),
        ({"a": {"b": 1}}, {"a": {}}, "a.b is missing, and should be 1"),
        ({"a": {"b": 1}}, {"a": 5}, "a is 5, and should be an object"),
        ({"a": [1]}, {"a": [1, 2]}, "a is [1, 2], and should be [1]"),
        ({"a": True}, {"a": 1}, "a is 1, and should be true"),
        ({"a": None}, {"a": 0}, "a is 0, and should be null"),
        ({"a": "x"}, [], "the decision is [], and should be an object"),
    ],
)
def test_a_difference_is_one_sentence(expected, found, said) -> None:
    """More may be found than is expected."""
    assert difference(expected, found) == said


def test_a_long_difference_is_cut() -> None:
    """Both sides may have a megabyte."""
    told = difference({"a": "x" * 10**6}, {"a": "y" * 10**6})
    assert told is not None
    assert len(told) < 500


def test_a_case_for_a_hook_that_is_not_there_is_told() -> None:
    """It would be answered by nobody, and hold of anything."""
    found = read_cases(document({"hook": "route", "name": "r"}))
    assert unanswerable(found, [Hook.ROUTE]) is None
    told = unanswerable(found, [Hook.METRICS, Hook.REWRITE])
    assert told == "its own case 'r' asks route, which the module does not export: it exports metrics, rewrite"
