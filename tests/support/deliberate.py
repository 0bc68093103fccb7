"""Deliberate mistakes: what is done, and what the answer has to say of it; what is true of every answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from hookline_cli.frame import EXITS, FAULT

MOST = 600
"""Characters of an answer."""
OURS = re.compile(r"site-packages|hookline_[a-z]+[/.]|\b[A-Z][A-Za-z]+(Error|Exception)\b|<class |0x[0-9a-f]{6,}")
"""Paths and names of our code, and of Python's."""
FOUND = re.compile(r": (problem|warning|unknown): ")
SECRET = "s3cr3t-value"
"""What stands in each Secret here."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One row. ``{registry}`` and its like in arguments and texts are what the test has."""

    name: str
    done: Sequence[str]
    """The arguments of ``hookline``."""
    cause: Sequence[str]
    """Words of the answer that say what is wrong."""
    step: Sequence[str]
    """Words of the answer that say what to do: a command, a field or a file, and what of it."""
    files: Mapping[str, Any] = field(default_factory=dict)
    """By name: bytes, a text, or documents that become YAML."""
    code: int = 1


def rows(table: Sequence[Mistake]) -> Any:
    """The table as a parameter ``mistake``."""
    names = [each.name for each in table]
    assert len(set(names)) == len(names), "two mistakes have one name"
    return pytest.mark.parametrize("mistake", table, ids=[each.replace(" ", "-") for each in names])


def plugin(**spec: Any) -> dict[str, Any]:
    """A WasmPlugin; without a source, from a registry."""
    source = {"oci": {"reference": "registry.example.com/plugins/guard:1.0.0"}}
    return {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "guard"},
        "spec": {"source": source, **spec},
    }  # fmt: skip


def local(**spec: Any) -> dict[str, Any]:
    """A WasmPlugin of the file ``guard.wasm``."""
    return plugin(**{"source": {"file": {"path": "guard.wasm"}}, **spec})


def write(folder: Any, name: str, content: Any, words: Mapping[str, str]) -> None:
    """Write a file of a mistake."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    if not isinstance(content, str):
        made = name.endswith(".json")
        documents = content if isinstance(content, list) else [content]
        content = json.dumps(content) if made else yaml.safe_dump_all(documents, sort_keys=False)
    path.write_text(filled(content, words))


def filled(text: str, words: Mapping[str, str]) -> str:
    """With the test's own words in it."""
    for key, value in words.items():
        text = text.replace(f"{{{key}}}", value)
    return text


def answer(ended: Any) -> str:
    """The sentence that a command ended with: its error, its finding, or the failed call with what to do."""
    if ended.err.startswith("Usage: "):
        hint = next(line for line in ended.err.splitlines() if line.startswith("Try "))
        return f"{ended.err.rpartition('Error: ')[2].strip()} {hint}"
    if ended.err:
        return ended.err.strip().splitlines()[-1]
    lines = ended.out.strip().splitlines()
    found = [each for each in lines if FOUND.search(each)]
    if found:
        return "\n".join([each for each in found if ": problem: " in each] or found)
    told = [each.strip() for each in lines if re.match(r"  failed \(|  what to do:|FAIL  |  unanswered:", each)]
    told += [lines[at + 1].strip() for at, each in enumerate(lines) if each.startswith("FAIL  ")]
    told += [each.strip() for each in lines if each.startswith(("next:", "stopped at ", "waits at ", "note"))]
    told += [each.strip() for each in lines if each.startswith(("  note ", "hookline: "))]
    return " ".join(told)


def check(mistake: Mistake, ended: Any, folder: Any) -> None:
    """What is true of every answer, and what this one has to say."""
    said = answer(ended)
    whole = f"{ended.out}\n{ended.err}"
    assert ended.code == mistake.code, f"ended with {ended.code}: {whole}"
    assert ended.code in EXITS
    assert ended.code != FAULT
    assert "Traceback" not in whole
    assert "this is a fault" not in whole
    assert SECRET not in whole
    assert said, f"there is no answer: {whole}"
    assert "\n" not in said, f"more than one sentence: {said}"
    assert len(said) <= MOST, f"{len(said)} characters: {said}"
    assert not OURS.search(said.replace(str(folder), "")), f"a name of our code: {said}"
    for words in (*mistake.cause, *mistake.step):
        assert words in said, f"{words!r} is not in: {said}"
