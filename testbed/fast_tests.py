"""A pytest plugin: marks the tests that start no program, neither themselves nor by a fixture, as ``fast``.

That is read from the code: from a test and its fixtures, through all functions and classes of the tests and their rigs
that these name. So the choice needs no list, and follows a test wherever it moves. Programs that the product itself
starts (to compile a guest, say) are not seen; whatever computes for seconds is marked ``slow`` instead.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
_READ: Final = tuple(str(ROOT / folder) + "/" for folder in ("tests", "testbed", "scripts", "bench", "examples"))
# Who names one of these starts a program, or looks for one to start.
_MODULES: Final = frozenset({"subprocess", "multiprocessing"})
_PROGRAMS: Final = _MODULES | {"create_subprocess_exec", "create_subprocess_shell", "fork", "posix_spawn", "which"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark them, where a run chooses by the mark."""
    if "fast" not in config.option.markexpr:
        return
    reader = Reader()
    for item in items:
        if not isinstance(item, pytest.Function) or item.get_closest_marker("slow"):
            continue
        if not any(map(reader.starts_programs, _parts(item))):
            item.add_marker("fast")


def _parts(item: pytest.Function) -> Iterator[object]:
    yield item.function
    for fixtures in item._fixtureinfo.name2fixturedefs.values():  # noqa: SLF001 - pytest has no public name for it
        for fixture in fixtures:
            yield fixture.func


class Reader:
    """Reads each function once."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[bool, list[object]]] = {}
        self._answers: dict[int, bool] = {}
        self._kept: list[object] = []  # an id is good for as long as its object lives

    def starts_programs(self, thing: object) -> bool:
        """Whether a function or a class leads to the start of a program."""
        if id(thing) not in self._answers:
            self._kept.append(thing)
            self._answers[id(thing)] = self._search(thing)
        return self._answers[id(thing)]

    def _search(self, thing: object) -> bool:
        seen: set[int] = set()
        ahead = [thing]
        while ahead:
            each = ahead.pop()
            if id(each) in seen:
                continue
            seen.add(id(each))
            if id(each) not in self._read:
                self._kept.append(each)
                self._read[id(each)] = _read(each)
            starts, named = self._read[id(each)]
            if starts:
                return True
            ahead += named
        return False


def _read(thing: object) -> tuple[bool, list[object]]:
    """Whether it starts a program by itself, and what else it names."""
    origin = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", "")
    if origin in _MODULES:
        return True, []
    named: list[object] = []
    for function in _functions(thing):
        codes = [function.__code__]
        for code in codes:
            codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
            if not _PROGRAMS.isdisjoint(code.co_names):
                return True, []
            named += [function.__globals__[name] for name in code.co_names if name in function.__globals__]
    return False, named


def _functions(thing: object) -> Iterator[types.FunctionType]:
    if isinstance(thing, type):
        for each in (*vars(thing).values(), *thing.__bases__):
            yield from _functions(each)
    elif isinstance(thing, property):
        yield from _functions(thing.fget)
    elif isinstance(thing, functools.cached_property):
        yield from _functions(thing.func)
    elif isinstance(thing, staticmethod | classmethod | types.MethodType):
        yield from _functions(thing.__func__)
    elif isinstance(thing, types.FunctionType):
        function = inspect.unwrap(thing)
        if isinstance(function, types.FunctionType) and function.__code__.co_filename.startswith(_READ):
            yield function
