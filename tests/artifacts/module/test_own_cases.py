"""A module's own cases are found in its bytes, bounded, and judged by what the resource asks for."""

from __future__ import annotations

import json

import pytest
import wasmtime

from guests import Guests
from hookline_api.hooks import Hook
from hookline_artifacts.errors import SelfTestError, VerifyError
from hookline_artifacts.module.annotate import custom_sections, with_sections
from hookline_artifacts.module.inspection import inspect_file, inspect_module
from hookline_artifacts.module.own_cases import judge_cases, own_cases

CASE = {"name": "a", "hook": "custom_hook", "input": 1, "expect": {"value": "yes"}}
PLAIN = Guests().saying("yes")


def carrying(document):
    """A module with this section of cases."""
    return with_sections(PLAIN, {"hookline.cases": document})


def judged(wasm, self_test="IfPresent"):
    """The notes on a module; SelfTestError where it is refused."""
    info = inspect_module(wasm)
    return judge_cases(own_cases(info), info, self_test)


def test_cases_are_found_beside_the_description(tmp_path) -> None:
    """Wherever they stand, from bytes and from a file."""
    document = json.dumps([CASE, CASE | {"name": "b"}]).encode()
    wasm = with_sections(PLAIN, {"hookline.plugin": b'{"name": "p"}', "hookline.cases": document})
    path = tmp_path / "p.wasm"
    path.write_bytes(wasm)
    for info in (inspect_module(wasm), inspect_file(path)):
        assert (info.cases, info.case_sections, info.description) == (document, 1, b'{"name": "p"}')
        assert own_cases(info).count == 2
        assert info.hooks == (Hook.CUSTOM,)
    assert custom_sections(wasm)["hookline.cases"] == document
    assert inspect_module(PLAIN).cases is None


def test_a_module_without_cases_runs_unless_they_are_required() -> None:
    """And the sentence says what to do."""
    assert judged(PLAIN) == judged(PLAIN, "Off") == []
    with pytest.raises(SelfTestError, match="build it with its cases"):
        judged(PLAIN, "Required")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        pytest.param(b"[" + b" " * 300_000 + b"]", "more than 262144 bytes", id="300 KiB"),
        pytest.param(json.dumps([CASE] * 10_000)[:262_144].encode(), "cannot be read", id="cut"),
        pytest.param(json.dumps([{}] * 10_000).encode(), "10000 cases", id="10,000 cases"),
        pytest.param(b"\xff\xfe", "not text in UTF-8", id="not UTF-8"),
        pytest.param(b"[" * 10_000, "nested deeper", id="deep"),
        pytest.param(b"[]", "the list of cases is empty", id="none"),
        pytest.param(json.dumps([CASE | {"expect": {}}]).encode(), "'expect' is empty", id="expects nothing"),
    ],
)
def test_cases_that_cannot_be_read_are_a_note_or_a_refusal(document, said) -> None:
    """As the resource asks: they say nothing of the module."""
    (note,) = judged(carrying(document))
    assert note.startswith("the section hookline.cases cannot be read: ")
    assert said in note
    with pytest.raises(SelfTestError, match="asks for cases that can be read"):
        judged(carrying(document), "Required")
    assert judged(carrying(document), "Off") == []
    assert own_cases(inspect_module(carrying(document))).count is None


def test_of_two_sections_neither_is_taken() -> None:
    """Which one counts would be an accident."""
    one = json.dumps([CASE]).encode()
    section = carrying(one)[len(PLAIN) :]
    wasm = PLAIN + section + section
    assert inspect_module(wasm).case_sections == 2
    (note,) = judged(wasm)
    assert note.startswith("the module has 2 sections hookline.cases, and may have one; it runs without a test of its")
    with pytest.raises(SelfTestError, match="2 sections"):
        judged(wasm, "Required")


@pytest.mark.parametrize("self_test", ["IfPresent", "Required"])
def test_cases_for_a_hook_that_is_not_exported_refuse_the_module(self_test) -> None:
    """They cannot hold, and that is known before any sidecar hears of it. With Off nobody asks."""
    wasm = carrying(json.dumps([CASE | {"hook": "route"}]).encode())
    with pytest.raises(SelfTestError, match="asks route, which the module does not export: it exports custom_hook"):
        judged(wasm, self_test)
    assert judged(wasm, "Off") == ["the module carries one case, and spec.selfTest: Off asks none"]


def test_a_name_of_a_section_that_is_no_text_is_a_damaged_module() -> None:
    """As any name in a module that is not UTF-8."""
    wasm = carrying(b"[]").replace(b"hookline.cases", b"hookline.case\xff")
    with pytest.raises(VerifyError, match="damaged"):
        inspect_module(wasm)


def test_the_engine_takes_a_module_with_cases() -> None:
    """A custom section changes nothing of what runs."""
    wasmtime.Module.validate(wasmtime.Engine(), carrying(json.dumps([CASE]).encode()))
