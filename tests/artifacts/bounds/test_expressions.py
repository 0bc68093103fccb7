"""No regular expression of this project takes more than linear time, whatever it is given.

All of them are found (what modules have, and what is written in a call), and attacked with texts of the letters that
they know: one letter or two, again and again, and then one that does not fit.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import hookline_api
import hookline_client
import hookline_operator
import hookline_runtime
import hookline_sidecar
from hookline_artifacts.login import challenges
from matching_steps import letters, matching_steps
from steps import GROWTH, TooMuchError

METHODS = {"match", "fullmatch", "search", "sub", "split", "findall", "finditer"}
SIZE = 20
FEW = 400
"""Steps below which growth says nothing: a bounded repetition is filled."""


def modules():
    """Every module of the project."""
    for package in (hookline_api, hookline_client, hookline_operator, hookline_runtime, hookline_sidecar):
        yield package
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not found.name.endswith("__main__"):
                yield importlib.import_module(found.name)


def expressions():
    """Each pattern with the methods that it is used with."""
    found = {}
    for module in modules():
        source = Path(module.__file__).read_text()
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                used = METHODS & set(re.findall(rf"\b{name}\.(\w+)", source))
                found.setdefault((value.pattern, value.flags), set()).update(used)
        for call in ast.walk(ast.parse(source)):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and getattr(call.func.value, "id", "") == "re"
                and call.func.attr in METHODS
                and isinstance(call.args[0], ast.Constant)
            ):
                found.setdefault((call.args[0].value, 0), set()).add(call.func.attr)
    return [(re.compile(*key), method) for key, used in found.items() for method in sorted(used)]


def texts(pattern, size):
    """What may be hard for it: a beginning, something again and again, and an end that does not fit."""
    known = letters(pattern)[:6]
    for begin in ("", *known[:4]):
        for one in known:
            for other in ("", *known):
                yield begin + (one + other) * size + "\x01"


@pytest.mark.parametrize(
    ("pattern", "method"), expressions(), ids=lambda value: str(getattr(value, "pattern", value))[:60]
)
def test_a_regular_expression_takes_linear_time(pattern, method):
    """Twice the text is at most so many times the steps."""
    for small, large in zip(texts(pattern, SIZE), texts(pattern, 2 * SIZE), strict=True):
        steps = matching_steps(pattern, large, method)
        assert steps <= FEW or steps / matching_steps(pattern, small, method) <= GROWTH, large[:20]


class Counting:
    """A pattern that counts the steps of all that it is asked."""

    def __init__(self, pattern, count):
        self._pattern, self._count = pattern, count

    def match(self, text, at):
        """As a pattern's."""
        self._count(matching_steps(self._pattern, text[at:], "match"))
        return self._pattern.match(text, at)

    def search(self, text, at):
        """As a pattern's."""
        self._count(matching_steps(self._pattern, text[at:], "search"))
        return self._pattern.search(text, at)


CHALLENGES = (" ,", "a ", 'a="\\', '"', "a=b,", "=", "\\", 'a="b",', "a  ", "\x01", 'a= "')


@pytest.mark.parametrize("unit", CHALLENGES)
def test_what_a_challenge_is_read_with_reads_nothing_twice(unit, monkeypatch):
    """Each expression is linear, and so is their sum: none begins where another has been, again and again."""

    def steps(size):
        counted = []
        with monkeypatch.context() as patched:
            for name in ("_WORD", "_EQUALS", "_QUOTED", "_BARE"):
                patched.setattr(challenges, name, Counting(getattr(challenges, name), counted.append))
            challenges.parse_challenges("Bearer " + unit * size)
        return sum(counted)

    assert steps(40) / steps(20) <= GROWTH


@pytest.mark.parametrize(
    ("pattern", "method"),
    [(r"(a+)+$", "match"), (r"[\s,]*x", "search"), (r"[^/@\s]+:[^/@\s]*@", "sub"), (r"<.*?>", "findall"),
     (r"a*a*b", "match")],
)  # fmt: skip
def test_one_that_is_not_linear_is_found(pattern, method):
    """Those of which some were here once."""
    compiled = re.compile(pattern, re.DOTALL)
    with pytest.raises((AssertionError, TooMuchError)):
        test_a_regular_expression_takes_linear_time(compiled, method)
