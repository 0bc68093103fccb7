"""docs/trust.md: each cell of its tables is a test, its resources are some, and its figures are those of the code."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

from hookline_api.policies import MAX_REFUSALS, PluginTrustPolicy
from hookline_api.resources import WasmPlugin
from hookline_api.trust import Verify
from hookline_artifacts.trust import collect, cosign, direct, evidence, offline, patterns, provenance
from hookline_operator.status import reasons
from hookline_sidecar.settings import TRUST_POLICIES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "trust.md").read_text()
LIMITS = re.sub(r"\s+", " ", (ROOT / "docs" / "limits.md").read_text())
TESTED = PAGE.split("\n## What is tested\n")[1].split("\n## ")[0]
KIB, MIB = 2**10, 2**20


def tables(text):
    """The tables of a text, each as rows of cells without the line below the head."""
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        yield [row for row in rows if not set("".join(row)) <= set("-")]


FOUND = list(tables(TESTED))
(LEGEND,) = (each for each in FOUND if each[0][1] == "test")
GRIDS = [each for each in FOUND if each[0][0] in {"layout", "source", "rule"}]
NAMED = {letter: test.strip("`") for letter, test, _ in LEGEND[1:]}
CELLS = [
    (row[0].strip("`"), column.strip("`"), letters.split(), grid)
    for grid in GRIDS
    for row in grid[1:]
    for column, letters in zip(grid[0][1:], row[1:], strict=True)
]
_SIDE_BY_SIDE = {"a URL": "http", "a ConfigMap": "configMap"}
"""What the parameters of a test call sources."""


def test_no_cell_is_empty():
    """Each has letters of the list, and each letter of the list is in a cell."""
    assert len(GRIDS) == 4
    assert all(letters for *_, letters, _ in CELLS)
    assert {each for *_, letters, _ in CELLS for each in letters} == set(NAMED)


@pytest.mark.parametrize("letter", NAMED)
def test_each_test_that_it_names_exists(letter):
    """As a function of that file."""
    path, _, name = NAMED[letter].partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), NAMED[letter]


def parameters(letter):
    """All values that a test is run with, as texts."""
    path, _, name = NAMED[letter].partition("::")
    spec = importlib.util.spec_from_file_location(f"named_{letter}", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look there
        spec.loader.exec_module(module)
    marks = [each for each in getattr(module, name).pytestmark if each.name == "parametrize"]
    values = [value for each in marks for value in each.args[1]]
    values += [each for value in values if isinstance(value, tuple) for each in value]
    return {str(each) for each in values if isinstance(each, str)}


@pytest.mark.parametrize("letter", ["L", "C", "S", "N", "O", "M", "P", "E", "G", "Q"])
def test_each_cell_is_a_run_of_its_test(letter):
    """Where a test is run with layouts, sources or forms, it is with those of the cell."""
    runs, looked = parameters(letter), 0
    for row, column, letters, grid in CELLS:
        if letter not in letters:
            continue
        rows = {each[0].strip("`") for each in grid[1:]}
        columns = {each.strip("`") for each in grid[0][1:]}
        name = {"heliosdb-tar": "packed"}.get(row, row) if letter == "E" else _SIDE_BY_SIDE.get(row, row)
        looked += 1
        if runs & (rows - {"bundle"}) or letter == "Q":
            assert name in runs | {f"{column}-of-{row}"}, (row, column)
        if runs & columns:
            assert column in runs, (row, column)
    assert looked


def test_the_first_table_has_all_that_is_run():
    """Each layout, and each form."""
    assert {row[0].strip("`") for row in GRIDS[0][1:]} | {each.strip("`") for each in GRIDS[0][0][1:]} == parameters(
        "L"
    ) - {"fallback tag", "referrers API", "folder"}
    assert all("L" in letters for *_, letters, grid in CELLS if grid is GRIDS[0])
    assert {row[0].strip("`") for row in GRIDS[1][1:]} == parameters("N") - {".sig", ".sigstore.json"}


def test_its_resources_are_some():
    """Whole ones, and parts of ``spec``."""
    blocks = [yaml.safe_load(each) for each in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]
    kinds = {"WasmPlugin": WasmPlugin, "PluginTrustPolicy": PluginTrustPolicy}
    for block in blocks:
        if "kind" in block:
            assert kinds[block["kind"]].model_validate(block).spec
        else:
            assert Verify.model_validate(block["verify"]).wanted
    assert len(blocks) == 4


def test_its_reasons_are_the_operators():
    """Each word in capitals that stands as a reason."""
    said = PAGE.split("\n## What kubectl says\n")[1]
    (table, *_) = tables(said)
    words = {word for row in table[1:] for word in re.findall(r"`([A-Z][a-z]+[A-Z]\w+)`", row[0])}
    known = {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
    assert words >= {"SignatureFailed", "PolicyForbids", "PermissionsIncreased"}
    assert words <= known


SAID = [
    ("more than 512 beside the artifact", PAGE, collect.MAX_OPENED, 512),
    ("`status.refusals` names ten", PAGE, MAX_REFUSALS, 10),
    ("`/etc/hookline/trust`", PAGE, str(TRUST_POLICIES), "/etc/hookline/trust"),
    ("512 referrers of one digest", LIMITS, collect.MAX_OPENED, 512),
    ("512 signatures", LIMITS, collect.MAX_COLLECTED, 512),
    ("8 MiB of manifests and as much of signatures", LIMITS, collect._MAX_ALL, 8 * MIB),
    ("one of at most 64 KiB", LIMITS, collect._MAX_REFERRER, 64 * KIB),
    ("of at most 512 KiB is read", LIMITS, collect._MAX_BLOB, 512 * KIB),
    ("that together have more than 512 KiB", LIMITS, evidence.MAX_EVIDENCE, 512 * KIB),
    ("2,048 pairs", LIMITS, cosign.MAX_TRIED, 2048),
    ("1 GiB in all", LIMITS, direct._MAX_HASHED, 2**30),
    ("more than 2,048 characters fit no pattern", LIMITS, patterns.MAX_TEXT, 2048),
    ("compared in 20 million steps for one requirement", LIMITS, patterns.MAX_STEPS, 20_000_000),
    ("provenance may name 256 sources", LIMITS, provenance.MAX_SOURCES, 256),
    ("a trust root 8 time stamp authorities", LIMITS, offline._MAX_STAMPERS, 8),
]
"""What a page says, which page, what the code has, and what the sentence means."""


@pytest.mark.parametrize(("sentence", "page", "is_so", "meant"), SAID, ids=[each[0] for each in SAID])
def test_a_bound_is_the_code_s(sentence, page, is_so, meant):
    """Who changes one of the two is told of the other."""
    assert sentence in page
    assert is_so == meant
