"""``query_get_tables`` and ``query_normalize``: what a text says, without a database."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from hookline_runtime.host.backends import sql_text
from hookline_runtime.host.query_errors import QueryError


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("select 1", []),
        ("select * from orders", ["orders"]),
        ('select * from public.orders o, Orders, "Orders"', ["public.orders", "orders", "Orders"]),
        ("select * from shop.public.orders", ["shop.public.orders"]),
        ('select * from "a.b", a.b, "say ""x"""', ['"a.b"', "a.b", '"say ""x"""']),
        ("select * from a join b using (i) left join lateral (select * from c) x on true", ["a", "b", "c"]),
        ("select (select max(i) from a), exists (select from b) where i in (table c)", ["a", "b", "c"]),
        ("select * from a union all (select * from b except select * from c)", ["a", "b", "c"]),
        ("select * from a, a, a", ["a"]),
        ("select f('from b') from a -- from c", ["a"]),
        ("select * from only a tablesample system (1)", ["a"]),
        ("select * from rows from (f(), g()) x, a", ["a"]),
        ("values (1, (select 1 from a))", ["a"]),
        ("insert into a select * from b on conflict do update set x = (select 1 from c)", ["a", "b", "c"]),
        ("update s.a set x = 1 from b where exists (table c) returning (select 1 from d)", ["s.a", "b", "c", "d"]),
        ("delete from a using b where i = (select 1 from c)", ["a", "b", "c"]),
        ("merge into a using b on true when matched then delete", ["a", "b"]),
        ("copy s.a (x) from stdin", ["s.a"]),
        ("copy (select * from a) to stdout", ["a"]),
        ("truncate a, s.b", ["a", "s.b"]),
        ("lock a, b", ["a", "b"]),
        ("explain (analyze) delete from a", ["a"]),
        ("prepare p as select * from a", ["a"]),
        ("declare c cursor for select * from a", ["a"]),
        ("create view v as select * from a", ["v", "a"]),
        ("create table t as select * from a", ["t", "a"]),
        ("select * into t from a", ["t", "a"]),
        ("create table t (like a) inherits (b)", ["t", "a", "b"]),
        ("create table t (i int references a)", ["t", "a"]),
        ("alter table a attach partition b default", ["a", "b"]),
        ("alter table s.a rename to b", ["s.a"]),
        ("drop table a, s.b, c.s.d", ["a", "s.b", "c.s.d"]),
        ("drop view v", ["v"]),
        ("drop trigger t on s.a", ["s.a"]),
        ("drop policy p on a", ["a"]),
        ("drop function f(int)", []),
        ("drop schema s", []),
        ("drop type t", []),
        ("comment on table s.a is 'x'", ["s.a"]),
        ("comment on column s.a.i is 'x'", ["s.a"]),
        ("comment on function f() is 'x'", []),
        ("security label on table a is 'x'", ["a"]),
        ("grant select on a, s.b to c", ["a", "s.b"]),
        ("create index on a (x) where y", ["a"]),
        ("refresh materialized view v", ["v"]),
        ("vacuum analyze a, b", ["a", "b"]),
        ("create rule r as on insert to a do instead delete from b", ["a", "b"]),
        ("create function f() returns int language sql begin atomic select 1 from a; end", ["a"]),
        ("create policy p on a using (exists (select from b))", ["a", "b"]),
        ("select * from orders o for update of o", ["orders"]),
        ("select * from a, (select * from b for share of b) x for update", ["a", "b"]),
        ("select 1; select * from a; drop table b", ["a", "b"]),
        ("do $$ begin delete from a; end $$", []),
        ("", []),
        ("-- only a comment", []),
    ],
)
async def test_a_text_has_these_tables(source, sql, tables):
    """As they are written, each once, in their order."""
    assert sorted(await source.call("query_get_tables", sql)) == sorted(tables)


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("with a as (select * from b) select * from a", ["b"]),
        ("with a as (select * from b) select * from public.a", ["b", "public.a"]),
        ("with a as (select * from a) select * from a", ["a"]),
        ("with recursive a as (select 1 union select * from a) select * from a", []),
        ("with a as (select 1), b as (select * from a) select * from b", []),
        ("with a as (select * from b), b as (select 1) select * from a, b", ["b"]),
        ("with recursive a as (select * from b), b as (select 1) select * from a", []),
        ("with a as (select 1) select * from (select * from a) x", []),
        ("select * from (with a as (select 1) select * from a) x, a", ["a"]),
        ("(with a as (select 1) select * from a) union select * from a", ["a"]),
        ("with a as (select 1) (select * from a union select * from b)", ["b"]),
        ("with a as (with a as (select * from a) select * from a) select * from a", ["a"]),
        ("with a as (with b as (select 1) select * from b) select * from a, b", ["b"]),
        ("with a as (select 1) select * from a where exists (with a as (table c) table a)", ["c"]),
        ("with a as (select 1) insert into a select * from a", ["a"]),
        ("with a as (select 1) update a set x = 1 from a z", ["a"]),
        ("with a as (select 1) delete from a", ["a"]),
        ("with a as (select 1) merge into a using a z on true when matched then delete", ["a"]),
        ("with gone as (delete from a returning *) insert into b select * from gone", ["a", "b"]),
        ('with "A" as (select 1) select * from a, "A"', ["a"]),
        ("create view v as with v as (select 1) select * from v", ["v"]),
        ("with a as (select 1) select * from b where x in (select 1 from a for update of a)", ["b"]),
        ("with a as (select $$\"relname\":\"x\"{}[]$$) select '{\"withClause\":' from a, b", ["b"]),
    ],
)  # fmt: skip
async def test_a_name_that_with_defines_is_no_table_where_it_is_seen(source, sql, tables):
    """And is one everywhere else: a guard is not led astray by a name."""
    assert sorted(await source.call("query_get_tables", sql)) == sorted(tables)


@pytest.mark.parametrize("sql", ["selec", "select * from", "'", "\x01", "select 1 from a where"])
@pytest.mark.parametrize("function", ["query_get_tables", "query_normalize"])
async def test_a_text_that_cannot_be_parsed_is_an_error(source, function, sql):
    """Never an empty list."""
    answer = await source.call(function, sql)
    assert answer["error"]["cause"] == "failed"
    assert answer["error"]["sqlstate"] == "42601"


async def test_a_text_is_normalized(source):
    """Literals become parameters."""
    answer = await source.call("query_normalize", "select * from t where a = 'x' and b in (1, 2)")
    assert answer == {"sql": "select * from t where a = $1 and b in ($2, $3)"}


_LARGE = {
    "columns": "select " + ",".join(["a"] * 131_000),
    "union": " union ".join(["select"] * 20_000),
    "plus": "select " + "+".join(["a"] * 131_000),
    "brackets": "select " + "(" * 120_000 + "1" + ")" * 120_000,
    "statements": ";".join(["select 1"] * 29_000),
    "subscripts": "select a" + "[1]" * 87_000,
    "tables": "select from " + ",".join(f"t{number}" for number in range(30_000)),
    "withs": "with " + ",".join(f"t{number} as (select)" for number in range(11_000)) + " select from t1, t",
    "nested": "with a as (" * 1_000 + "select 1 from a" + ") select 1 from a" * 1_000,
    "wide": "with a as (select 1) " + " union ".join(["select from a"] * 12_000),
    "joins": "select from a" + " join b on c" * 20_000,
}


@pytest.mark.parametrize("kind", _LARGE)
@pytest.mark.parametrize("function", ["query_get_tables", "query_normalize"])
async def test_a_text_of_the_worst_kind_costs_the_event_loop_little(source, function, kind):
    """It is read in a thread: the loop turns meanwhile; and it is answered, with an error or without."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    sql = _LARGE[kind]
    assert len(sql) <= sql_text.MAX_TEXT
    assert not sql_text.is_short(sql) or function == "query_get_tables" or kind == "brackets"
    turning = asyncio.create_task(turn())
    answer = await source.call(function, sql)
    turning.cancel()
    assert turns > 0 or sql_text.is_short(sql)
    assert isinstance(answer, list) or set(answer) <= {"error", "sql"}
    if "error" in answer:
        assert answer["error"]["cause"] in {"limit", "failed"}


async def test_a_long_text_with_names_of_with_is_read_right(source):
    """Also where there are ten thousand of them."""
    assert await source.call("query_get_tables", _LARGE["withs"]) == ["t"]
    assert await source.call("query_get_tables", _LARGE["wide"]) == []


def test_the_time_for_tables_is_linear_in_the_text():
    """Nested WITHs too: four times the text takes less than sixteen times as long, with room for noise."""

    def seconds(levels: int) -> float:
        names = ",".join(f"t{number}" for number in range(levels))
        sql = f"with a as (select from {names}) select from a, {names}"
        best = 1e9
        for _ in range(3):
            begin = time.perf_counter()
            sql_text.tables(sql)
            best = min(best, time.perf_counter() - begin)
        return best

    assert seconds(2_000) < 12 * seconds(500)


async def test_a_text_is_read_on_the_loops_own_thread_only_while_it_is_short(source, monkeypatch):
    """Short by what it may cost, not by its bytes alone."""
    threads = []
    monkeypatch.setattr(sql_text, "tables", lambda _: threads.append(threading.current_thread().name) or [])
    await source.call("query_get_tables", "select * from a")
    await source.call("query_get_tables", "select " + ",".join(["a"] * 1000))
    await source.call("query_get_tables", "select '" + "x" * 40_000 + "'")
    assert threads[0] == threading.current_thread().name
    assert all(name.startswith("hookline-sql") for name in threads[1:])


def test_what_the_parser_would_not_read_is_refused():
    """A NUL ends its text silently, and a guard would not see what stands behind."""
    for function in (sql_text.tables, sql_text.normalized):
        with pytest.raises(QueryError) as refused:
            function("select 1 from a\0, b")
        assert refused.value.sqlstate == "22021"


@pytest.mark.parametrize("run", ["+", "-+", "/*", "*/", "/**/", "+/*", "/*@", "+-*/", "</*"])
@pytest.mark.parametrize("read", [sql_text.tables, sql_text.normalized])
def test_operators_with_nothing_between_them_are_not_read(run, read):
    """The scanner reads the rest of a run anew for each of them: 256 KiB would keep everybody's parser for minutes."""
    with pytest.raises(QueryError, match="nothing between them") as raised:
        read("select 1 " + run * (200_000 // len(run)))
    assert raised.value.cause == "limit"


@pytest.mark.parametrize("run", ["+", "-+", "/*", "/**/"])
def test_a_short_text_of_many_operators_is_not_read_on_the_event_loop(run):
    """Four thousand of them take fifty milliseconds."""
    assert not sql_text.is_short("select 1 " + run * (4000 // len(run)))
    assert sql_text.is_short("select 1 " + run * (200 // len(run)))


@pytest.mark.parametrize(
    "line", ["-" * 81 + "\n", "/*" + "*" * 76 + "*/\n", "/* " + "-" * 70 + " */\n", "-- " + "=" * 77 + "\n"]
)
def test_lines_that_people_draw_are_read(line):
    """However many there are."""
    assert sql_text.tables(line * 3000 + "select * from a" + "\n" + line * 100) == ["a"]
