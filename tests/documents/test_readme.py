"""What the README claims is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_each_promise_names_tests_that_exist():
    """A file of tests, or a folder that has some."""
    rows = re.findall(r"^\| (?!promise|--)(.*?) \| (`tests/.*?) \|$", README, re.MULTILINE)
    assert len(rows) == 7
    for promise, tests in rows:
        named = re.findall(r"`(tests/[^`]*)`", tests)
        assert named, promise
        for each in named:
            path = ROOT / each
            assert path.is_file() or list(path.glob("test_*.py")), each


def test_every_verb_of_make_that_it_names_exists():
    """In its commands and in its sentences."""
    verbs = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z0-9-]+)", README, re.MULTILINE))
    assert {"demo", "test", "e2e", "help"} <= named <= verbs
