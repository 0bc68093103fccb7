"""``match``: which calls a plugin is asked about, compiled once per bundle.

Each plugin has one function, and each chain one ``Choice``, which remembers what the functions said of calls that
look alike to them.

A call is skipped only where it says that it is for something else. What the proxy did not say counts as a
match, and so does what a rewrite made unknown: a guard is never left out by an omission.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from hookline_api.resources import Match
    from hookline_runtime.call.inputs import Call

Matcher = Callable[["Call"], bool]
T = TypeVar("T")

_CLASS_OF_WORD: Final = {
    "select": "select", "values": "select", "table": "select", "show": "select",
    "insert": "insert", "update": "update", "delete": "delete",
    "create": "ddl", "alter": "ddl", "drop": "ddl", "truncate": "ddl", "rename": "ddl", "comment": "ddl",
    "grant": "ddl", "revoke": "ddl", "reindex": "ddl",
    "start": "other", "commit": "other", "rollback": "other", "end": "other", "reset": "other",
    "savepoint": "other", "release": "other", "abort": "other", "discard": "other",
}  # fmt: skip
# Not in the table, because a statement of any class may follow: WITH, EXPLAIN, CALL, DO, EXECUTE, COPY, BEGIN (a
# block), SET (MariaDB's SET STATEMENT … FOR).

# White space, comments and opening brackets in front of a statement's first word. Nothing is taken back once it is
# read (``(?>``, ``++``, ``*+``), so the match is linear in time, and needs no memory for the way back.
_LEAD: Final = re.compile(r"(?:[\s(]++|--[^\n]*+|(?>/\*.*?\*/))*+([A-Za-z]++)?", re.DOTALL)
# PostgreSQL ends a line's comment at a carriage return too, MySQL does not.
_UNSURE_LINE: Final = re.compile(r"\r(?!\n)")
_MAX_STATEMENTS: Final = 64
MAX_KNOWN: Final = 512
"""Calls, by what a choice reads of them, that are remembered at a time."""
_MAX_KNOWN_TEXT: Final = 512
"""Characters of a text that is remembered."""


def compile_match(match: Match) -> Matcher | None:
    """A function that says whether a call is for the plugin; None where every call is."""
    tests: list[Matcher] = []
    if match.databases:
        databases = _any_of(match.databases)
        tests.append(lambda call: _unsaid_or(databases, call.database))
    if match.users:
        users = _any_of(match.users)
        tests.append(lambda call: _unsaid_or(users, call.user))
    if match.applications:
        applications = _any_of(match.applications)
        tests.append(lambda call: _unsaid_or(applications, call.application))
    if match.tables:
        tables = _any_of(match.tables)
        tests.append(
            lambda call: call.rewritten or not call.tables or any(_unsaid_or(tables, table) for table in call.tables)
        )
    if match.query_classes:
        wanted = frozenset(match.query_classes)
        tests.append(lambda call: call.rewritten or _in_classes(wanted, call))
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda call: all(test(call) for test in tests)


Origin = tuple[str | None, str | None, str | None]
"""Who asks, of a call: application, user, database."""


def _without(own: frozenset[Origin] | None, match: Match) -> Matcher | None:
    """The function of a ``match``, and no for calls that look like these."""
    test = compile_match(match)
    if not own:
        return test

    def asked(call: Call) -> bool:
        if (call.application, call.user, call.database) in own:
            return False
        return test is None or test(call)

    return asked


class Choice(Generic[T]):
    """Which of a chain's items are asked about a call.

    The functions read a few facts of a call and nothing else, so what they said is remembered by these facts: ten
    plugins that are not asked cost one look into a table.

    ``own`` is how calls look that are about what plugins ask by themselves: application, user and database. The items
    ``left_out`` are not asked about those.
    """

    def __init__(
        self, items: Sequence[tuple[T, Match]], *, own: frozenset[Origin] = frozenset(), left_out: Collection[T] = ()
    ) -> None:
        self._tests = tuple((item, _without(own if item in left_out else None, match)) for item, match in items)
        guarded = bool(own) and any(item in left_out for item, _ in items)
        self.items = tuple(item for item, _ in items)
        """All of them, in their order."""
        named = {
            "database": guarded or any(match.databases for _, match in items),
            "user": guarded or any(match.users for _, match in items),
            "application": guarded or any(match.applications for _, match in items),
            "tables": any(match.tables for _, match in items),
            "classes": any(match.query_classes for _, match in items),
        }
        self.facts = frozenset(name for name, is_named in named.items() if is_named)
        """Which facts of a call the functions read, in the words of ``inputs.look``."""
        self._facts = [_FACTS[name] for name in named if name in self.facts]
        self._known: dict[Any, tuple[T, ...]] = {}

    def of(self, call: Call) -> tuple[T, ...]:
        """The items that are asked, in their order."""
        facts = self._facts
        if not facts:
            return self.items  # nobody has a ``match``
        if call.rewritten:
            return self._chosen(call)
        key = facts[0](call) if len(facts) == 1 else tuple([fact(call) for fact in facts])
        found = self._known.get(key)
        if found is None:
            found = self._chosen(call)
            if len(str(key)) <= _MAX_KNOWN_TEXT:  # a proxy's own words are short
                if len(self._known) >= MAX_KNOWN:
                    self._known.clear()
                self._known[key] = found
        return found

    def after(self, item: T, call: Call) -> tuple[T, ...]:
        """The items behind one of them that are asked now: after a rewrite, they may be others."""
        behind = self.items.index(item) + 1
        return tuple(each for each, test in self._tests[behind:] if test is None or test(call))

    def _chosen(self, call: Call) -> tuple[T, ...]:
        return tuple(item for item, test in self._tests if test is None or test(call))


def _database(call: Call) -> Any:
    return call.database


def _user(call: Call) -> Any:
    return call.user


def _application(call: Call) -> Any:
    return call.application


def _tables(call: Call) -> Any:
    return tuple(call.tables)


def _classes(call: Call) -> Any:
    return call.is_read_only, None if call.query is None else _query_classes(call.query)


def _query_classes(query: str) -> frozenset[str] | None:
    return _known_classes(query) if len(query) <= _MAX_KNOWN_TEXT else query_classes(query)


def query_classes(query: str) -> frozenset[str] | None:
    """The classes of the statements in a text, by their first words; None where that does not tell.

    Splitting at each ``;``, also within strings, can only add statements, and so classes.
    """
    statements = query.split(";", _MAX_STATEMENTS)
    if len(statements) > _MAX_STATEMENTS:
        return None
    found = set()
    for statement in statements:
        lead = _LEAD.match(statement)
        word = lead[1] if lead else None
        if lead is not None and _is_unsure(lead[0]):
            return None
        if word is None:
            if lead is not None and lead.end() == len(statement):
                continue  # nothing but space and comments
            return None
        known = _CLASS_OF_WORD.get(word.lower())
        if known is None:
            return None
        found.add(known)
    return frozenset(found) or None


def _is_unsure(lead: str) -> bool:
    """Whether servers differ about where the comments in front of a statement end."""
    if _UNSURE_LINE.search(lead):
        return True
    # A comment within a comment ends at different places in PostgreSQL and in MySQL (the star is that of the
    # comment's own end, as in ``/*/*/``). What is in ``/*! */``, and in MariaDB also in ``/*M! */``, is run.
    at = 0
    while (begin := lead.find("/*", at)) >= 0:
        end = lead.find("*/", begin + 2)
        if end < 0:
            return False  # nor does any later one end: to look for the ends of all takes quadratic time
        text = lead[begin + 2 : end]
        if text.startswith(("!", "M!")) or "/*" in text + "*":
            return True
        at = end + 2
    return False


def _in_classes(wanted: frozenset[str], call: Call) -> bool:
    if call.is_read_only is None or ("read" if call.is_read_only else "write") in wanted:
        return True
    if call.query is None:
        return True
    classes = _query_classes(call.query)
    return classes is None or not wanted.isdisjoint(classes)


def _any_of(patterns: Sequence[str]) -> Callable[[Any], bool]:
    if not any("*" in pattern for pattern in patterns):
        return frozenset(patterns).__contains__
    compiled = re.compile("|".join(_glob(pattern) for pattern in patterns), re.DOTALL)
    return lambda value: compiled.fullmatch(value) is not None


def _glob(pattern: str) -> str:
    first, *rest = (re.escape(part) for part in pattern.split("*"))
    if not rest:
        return first
    # The leftmost place of each part between two stars is as good as any other, so it is taken for good (an
    # atomic group): the search does not backtrack, however many stars and however long the name.
    return first + "".join(f"(?>.*?{part})" for part in rest[:-1]) + ".*" + rest[-1]


def _unsaid_or(test: Callable[[Any], bool], value: str | None) -> bool:
    return not value or test(value)


_FACTS: Final[dict[str, Callable[[Call], Any]]] = {
    "database": _database, "user": _user, "application": _application, "tables": _tables, "classes": _classes,
}  # fmt: skip
_known_classes: Final = functools.lru_cache(MAX_KNOWN)(query_classes)
