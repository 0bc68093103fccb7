"""``match``: a plugin is left out only where the call says that it is for something else."""

from __future__ import annotations

import fnmatch
import itertools
import json
import random
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hookline_api.bundle import LoadFailure
from hookline_api.hooks import Hook
from hookline_api.resources import Match
from hookline_runtime.call import matching
from hookline_runtime.call.inputs import read_call
from hookline_runtime.call.matching import Choice, compile_match, query_classes
from hookline_runtime.guest import accelerator


def _matches(match: dict[str, object], hook: str = "pre_query", **fields: object) -> bool:
    body = {"query": "select 1", **fields}
    matcher = compile_match(Match.model_validate(match))
    return matcher is None or matcher(read_call(Hook(hook), json.dumps(body).encode()))


def _context(**fields: object) -> dict[str, object]:
    return {"hook_context": fields}


@pytest.mark.parametrize(
    ("match", "fields", "asked"),
    [
        ({}, {}, True),
        ({"databases": ["shop"]}, _context(database="shop"), True),
        ({"databases": ["shop"]}, _context(database="Shop"), False),
        ({"databases": ["shop"]}, _context(database="shopping"), False),
        ({"databases": ["shop*"]}, _context(database="shopping"), True),
        ({"databases": ["*_test", "s*p"]}, _context(database="shop"), True),
        ({"databases": ["shop"]}, _context(database=None), True),
        ({"databases": ["shop"]}, _context(database=""), True),
        ({"databases": ["shop"]}, {}, True),
        ({"databases": ["a.b"]}, _context(database="axb"), False),
        ({"databases": ["*"]}, _context(database="line\nbreak"), True),
        ({"users": ["ann"]}, _context(identity="bob"), False),
        ({"users": ["ann"]}, _context(identity="ann"), True),
        ({"applications": ["web*"]}, _context(attributes={"application_name": "webshop"}), True),
        ({"applications": ["web*"]}, _context(attributes={"application_name": "cron"}), False),
        ({"applications": ["web*"]}, _context(attributes={}), True),
        ({"tables": ["users"]}, {"tables": ["orders", "users"]}, True),
        ({"tables": ["users"]}, {"tables": ["orders"]}, False),
        ({"tables": ["users"]}, {"tables": []}, True),
        ({"tables": ["users"]}, {"tables": ["orders", ""]}, True),
        ({"tables": ["public.*"]}, {"tables": ["public.users"]}, True),
        ({"queryClasses": ["write"]}, {"is_read_only": True}, False),
        ({"queryClasses": ["read"]}, {"is_read_only": True}, True),
        ({"queryClasses": ["write"]}, {"is_read_only": False}, True),
        ({"queryClasses": ["write"]}, {}, True),
        ({"queryClasses": ["ddl"]}, {}, True),
        ({"queryClasses": ["ddl"]}, {"is_read_only": False}, False),
        ({"queryClasses": ["ddl"]}, {"is_read_only": False, "query": "drop table t"}, True),
        ({"databases": ["shop"], "users": ["ann"]}, _context(database="shop", identity="bob"), False),
        ({"databases": ["shop"], "users": ["ann"]}, _context(database="shop"), True),
    ],
)
def test_all_given_fields_must_match_and_what_is_unsaid_does(match, fields, asked):
    """Case counts, a star stands for anything, and what the proxy did not say counts as a match."""
    assert _matches(match, **fields) is asked


def test_a_rewrite_makes_tables_and_classes_unknown():
    """A guard for one table is asked again when the query is no longer what the proxy described."""
    call = read_call(Hook.PRE_QUERY, b'{"query": "select 1", "tables": ["a"], "is_read_only": true}')
    matcher = compile_match(Match(tables=["secret"], query_classes=["ddl"]))
    assert not matcher(call)
    call.rewrite("select * from secret", "p")
    assert matcher(call)


def test_an_observer_of_queries_is_matched_by_the_query_that_was():
    """``post_query`` comes as context and outcome; the context is what is matched."""
    body = [{"query": "select 1", "tables": ["orders"], "is_read_only": True}, {"success": True}]
    call = read_call(Hook.POST_QUERY, json.dumps(body).encode())
    assert not compile_match(Match(tables=["users"]))(call)
    assert compile_match(Match(tables=["orders"], query_classes=["read"]))(call)


def test_an_authentication_is_matched_by_its_user_name():
    """There is no identity yet."""
    call = read_call(Hook.AUTHENTICATE, b'{"username": "ann", "database": "shop"}')
    assert compile_match(Match(users=["ann"], databases=["shop"]))(call)
    assert not compile_match(Match(users=["bob"]))(call)


@pytest.mark.parametrize("value", [5, True, ["x"], {"a": 1}, [{}], None])
@pytest.mark.parametrize("pattern", ["x", "x*"])
def test_a_custom_call_of_any_shape_is_matched_without_an_error(value, pattern):
    """Its fields are whatever the proxy sends; anything but text counts as unsaid."""
    fields = dict.fromkeys(("database", "username", "tables", "query", "is_read_only", "hook_context"), value)
    call = read_call(Hook.CUSTOM, json.dumps(fields).encode())
    match = Match(databases=[pattern], users=[pattern], tables=[pattern], query_classes=["ddl"], applications=["x"])
    compile_match(match)(call)


_CLASSES = [
    ("select 1", {"select"}), ("  SELECT 1", {"select"}), ("(select 1)", {"select"}),
    ("((values (1)))", {"select"}),
    ("insert into t values (1)", {"insert"}), ("Update t set a=1", {"update"}), ("delete from t", {"delete"}),
    ("create table t (a int)", {"ddl"}), ("truncate t", {"ddl"}), ("grant all on t to u", {"ddl"}),
    ("commit", {"other"}), ("rollback;", {"other"}), ("select 1; drop table t", {"select", "ddl"}),
    ("-- a comment\nselect 1", {"select"}), ("/* a */ /* b */delete from t", {"delete"}),
    ("/**/select 1", {"select"}), ("--\n--\r\n/***/ (\tselect 1", {"select"}),
    (";;; select 1 ;", {"select"}), ("select '; drop table t'", {"select", "ddl"}),
    # unknown: anything may be behind it
    ("with x as (delete from t returning *) select * from x", None), ("explain analyze delete from t", None),
    ("call p()", None), ("do $$ begin drop table t; end $$", None), ("execute p", None),
    ("copy t from '/x'", None),
    ("begin delete from t; end", None), ("set statement max_statement_time=1 for delete from t", None),
    ("merge into t using s on true when matched then delete", None), ("", None), ("   ", None), ("-- only", None),
    ("/* only */", None), ("/* open", None), ("select 1; /* open", None), ("*/ drop table t", None),
    ("# mysql\ndrop table t", None), ("\ufeffdrop table t", None), ("0x44", None), ("'select'", None),
    # hostile: servers differ about where these comments end, or run what is in them
    ("/*! drop table t */", None), ("/*!50000 drop table t */ select 1", None), ("/*M! drop table t */", None),
    ("/*M!100100 drop table t */", None), ("/* /* */ select 1 */ drop table t", None),
    ("/*/*/ select 1 */*/ drop table t", None), ("/* /*! */ drop table t", None),
    ("-- \rdrop table t", None), ("-- \rselect 1\ndrop table t", None), ("--\r\nselect 1", {"select"}),
    ("/* a\rb */ select 1", None), ("-- /*\n/*! drop table t */", None), ("/*;*/ drop table t", None),
    ("select 1 -- ; \n; drop table t", {"select", "ddl"}),
]  # fmt: skip


@pytest.mark.parametrize(("query", "classes"), _CLASSES)
def test_a_statements_class_is_its_first_word_or_unknown(query, classes):
    """Comments, brackets, several statements; unknown wherever the first word does not tell for every server."""
    assert query_classes(query) == (None if classes is None else frozenset(classes))


def test_a_text_of_very_many_statements_is_unknown():
    """Nobody counts for ever."""
    assert query_classes("select 1;" * 1000) is None


@settings(max_examples=300, deadline=None)
@given(
    lead=st.lists(
        st.sampled_from(
            [" ", "\n", "(", "-- c\n", "--\n", "/* c */", "/**/", "/***/", "/* * / */", "\t", "--;\n", ";"]
        ),
        max_size=8,
    ),
    word=st.sampled_from(["drop", "DELETE", "Insert", "truncate"]),
)
def test_no_lead_of_comments_hides_a_statement(lead, word):
    """Whatever stands in front of it, the statement's class is among the classes, or they are unknown."""
    classes = query_classes("".join(lead) + word + " t")
    wanted = {"drop": "ddl", "truncate": "ddl"}.get(word.lower(), word.lower())
    assert classes is None or wanted in classes


@pytest.mark.parametrize(
    "text",
    [
        "/*" + "*" * 1_000_000, "/*" + "* " * 500_000 + "*/x", "(" * 1_000_000 + "!", "-- \n" * 250_000,
        "/**/" * 250_000 + "x", "/*a" * 300_000, " " * 1_000_000, "/" * 1_000_000, "-" * 1_000_000,
        ";" * 1_000_000,
    ],
)  # fmt: skip
def test_a_hostile_megabyte_of_sql_is_classified_in_linear_time(text):
    """Every part of the expression is possessive: nothing is tried twice. A backtracking one hangs here."""
    query_classes(text)
    pattern = matching._LEAD.pattern
    assert re.search(r"[)\]][*+](?![+])", pattern.replace(".*?", "").replace("[^\\n]*+", "")) is None


_NAMES = st.text(alphabet="ab*.", max_size=8)


@settings(max_examples=500, deadline=None)
@given(
    patterns=st.lists(_NAMES.filter(bool), min_size=1, max_size=4),
    value=st.text(alphabet="ab.\n", min_size=1, max_size=10),
)
@example(patterns=["a*b*b"], value="abb")
@example(patterns=["a*a"], value="a")
@example(patterns=["a|b*"], value="b")
def test_a_pattern_means_what_a_shell_means_by_its_stars(patterns, value):
    """The match that does not backtrack finds what one that does would."""
    escaped = [re.sub(r"([\[\]?])", r"[\1]", pattern) for pattern in patterns]
    wanted = any(re.fullmatch(fnmatch.translate(pattern), value) for pattern in escaped)
    assert _matches({"databases": patterns}, **_context(database=value)) is wanted


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("*a" * 120 + "b", "a" * 1_000_000),
        ("*" * 250, "a" * 1_000_000),
        ("*a*" * 80 + "b*", "a" * 1_000_000),
        ("*" + "a" * 200 + "b", "a" * 1_000_000),
        ("*ab" * 80, "a" * 1_000_000),
    ],
)
def test_a_pattern_of_many_stars_does_not_backtrack(pattern, value):
    """120 stars against a megabyte: each star's place is taken for good. A backtracking one never ends here."""
    assert _matches({"users": [pattern]}, **_context(identity=value)) is (set(pattern) == {"*"})


class _Counted:
    """A call that counts how often each of its facts is read."""

    def __init__(self, **facts):
        self.rewritten = False
        self.reads = 0
        self._facts = {"database": None, "user": None, "application": None, "tables": [], "query": None} | facts

    def __getattr__(self, name):
        self.reads += 1
        return self._facts[name]


def test_ten_plugins_that_are_not_asked_cost_one_look_into_a_table():
    """However many plugins want other databases, the call's own is read once."""
    choice = Choice([(f"p{number}", Match(databases=[f"other-{number}"])) for number in range(10)])
    for _ in range(3):
        call = _Counted(database="shop")
        assert choice.of(call) == ()
    assert call.reads == 1
    assert choice.of(_Counted(database="other-3")) == ("p3",)
    assert choice.of(_Counted(database=None)) == tuple(f"p{number}" for number in range(10))


@pytest.mark.parametrize("many", [5000])
def test_what_a_choice_remembers_is_bounded(many):
    """Names that never come again, and names as long as a body may be."""
    choice = Choice([("p", Match(databases=["shop*"]))])
    for number in range(many):
        assert choice.of(_Counted(database=f"shop{number}")) == ("p",)
    assert choice.of(_Counted(database="x" * 2**20)) == ()
    assert len(choice._known) <= 512
    assert max(map(len, map(str, choice._known))) <= 512


def test_what_a_choice_remembered_is_what_each_plugin_would_have_said():
    """Databases, users, applications, tables and classes at once, asked twice in different orders."""
    matches = [
        Match(databases=["shop"]), Match(users=["ann", "b*"]), Match(applications=["till"]), Match(tables=["items"]),
        Match(query_classes=["write"]), Match(query_classes=["select"], tables=["items", "o*"]), Match(),
    ]  # fmt: skip
    choice = Choice(list(enumerate(matches)))
    bodies = [
        {"query": query, "tables": tables, **({} if only is None else {"is_read_only": only}),
         "hook_context": {"database": database, "identity": user, "attributes": attributes}}
        for query, tables, only, database, user, attributes in itertools.product(
            ("select 1", "delete from t", "explain x"), ([], ["items"], ["orders", "x"]), (None, True, False),
            (None, "shop", "else"), (None, "ann", "bob", "eve"), ({}, {"application_name": "till"}),
        )
    ]  # fmt: skip
    for _ in range(2):
        random.Random(7).shuffle(bodies)
        for body in bodies:
            call = read_call(Hook.PRE_QUERY, json.dumps(body).encode())
            expected = tuple(
                place for place, match in enumerate(matches) if (test := compile_match(match)) is None or test(call)
            )
            assert choice.of(call) == expected, body


_FAILURE = LoadFailure(cause="verify", message="no")
_DECIDERS = [
    ({"action": "rewrite", "value": "drop table x"}, {"query_classes": ["select"]}),
    (None, {"databases": ["shop"]}),
    ({"action": "block", "value": "ddl"}, {"query_classes": ["ddl"]}),
    ({"action": "rewrite", "value": "select 2"}, {"users": ["a*"], "applications": ["till"]}),
    ({"action": "block", "value": "items"}, {"tables": ["items"], "databases": ["else"]}),
]


@pytest.mark.parametrize("count", range(len(_DECIDERS) + 2))
async def test_a_call_that_nobody_looks_into_is_answered_as_one_that_is_parsed(workshop, wat, count):
    """Chains of every length, on hooks of each rule: asked or not, after a rewrite too, and where one is not loaded."""
    plugins = [
        await workshop.plugin(
            wat.configured(), f"p{at}", priority=-at, match=match, permissions=["config.read"],
            hooks=["pre_query", "route", "authorize", "cache_set"],
            config={} if answer is None else {"pre_query": answer, "route": {"action": "node", "target": f"n{at}"},
                               "authorize": {"action": ("allow", "deny")[at & 1]},
                               "cache_set": {"action": "store", "ttl_ms": at}},
        )
        for at, (answer, match) in enumerate(_DECIDERS[:count])
    ]  # fmt: skip
    if count > len(_DECIDERS):
        lost = plugins[1].model_copy(update={"name": "lost", "artifact": None, "priority": -9, "failure": _FAILURE})
        plugins.append(lost)
    runtime = await workshop.run(*plugins)
    bodies = [
        {"query": query, "normalized": "n", "tables": tables, "is_read_only": False, "action": "", "resource": "",
         "identity": None, "key": "k", "value": "", "ttl_ms": 5,
         "hook_context": {"request_id": "r", "client_id": None, "identity": user, "database": database, "branch": None,
                          "attributes": {"application_name": application}}}
        for query, tables, user, database, application in itertools.product(
            ("select 1", "create t", "select 1; drop t"), (["items"], ["x"], []), ("ann", None, "bob"),
            ("shop", "else", "third"), ("till", "web")
        )
    ] * 2  # fmt: skip
    random.Random(count).shuffle(bodies)
    for hook, body in itertools.product((Hook.PRE_QUERY, Hook.ROUTE, Hook.AUTHORIZE, Hook.CACHE_SET), bodies):
        raw = json.dumps(body).encode()
        _trust_all(runtime)
        parsed = runtime.chains._answer_read(read_call(hook, raw))
        _trust_all(runtime)
        assert isinstance(parsed, bytes)
        assert parsed == runtime.answer(hook, raw)


def _trust_all(runtime):
    """One that took long by the clock would be waited for."""
    for plugin in runtime.plugins.values():
        plugin.trust()


@pytest.mark.usefixtures("unhurried")
async def test_a_guard_that_only_a_rewrite_calls_for_is_waited_for(workshop, wat):
    """And one that no rewrite calls for is not, although it never ran, and so would have to be."""
    rewriter = await workshop.plugin(wat.module(answers={"pre_query": {"kind": "rewrite", "sql": "drop t"}}), "r")
    guard = wat.module(answers={"pre_query": {"kind": "block", "reason": "no"}})
    match = {"databases": ["shop"], "query_classes": ["ddl"]}
    runtime = await workshop.run(rewriter, await workshop.plugin(guard, "guard", priority=-1, match=match))
    for database, decided in ("shop", "block"), ("else", "rewrite"):
        context = {"client_id": None, "identity": None, "branch": None, "database": database}
        context |= {"request_id": "r", "attributes": {}}
        body = {"query": "select 1", "normalized": "n", "tables": [], "is_read_only": True, "hook_context": context}
        raw = json.dumps(body).encode()
        runtime.plugins["r"].trust()
        is_later = not isinstance(runtime.answer(Hook.PRE_QUERY, raw), bytes)
        assert accelerator.scan is None or is_later is (database == "shop")
        assert (await runtime.call(Hook.PRE_QUERY, raw))["action"] == decided
