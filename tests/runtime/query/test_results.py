"""What ``query_execute`` and ``query_prepare`` answer."""

from __future__ import annotations

import base64

import pytest


async def test_a_select_is_answered_with_its_columns_and_rows(source):
    """And with how many there are."""
    assert await source.ask("select id, note, price from orders order by id") == {
        "columns": [{"name": "id", "type": "int4"}, {"name": "note", "type": "text"},
                    {"name": "price", "type": "numeric"}],
        "rows": [[1, "first", "10.500"], [2, None, "0.001"]],
        "rowCount": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("null::int", None),
        ("true", True),
        ("9223372036854775807", 2**63 - 1),
        ("1.5::float8", 1.5),
        ("1e300::float8", 1e300),
        ("'NaN'::float8", "NaN"),
        ("'-Infinity'::float4", "-Infinity"),
        ("0.1000000000000000000000000001::numeric", "0.1000000000000000000000000001"),
        ("'NaN'::numeric", "NaN"),
        ('$$a "quoted" \\ text,\nü €$$', 'a "quoted" \\ text,\nü €'),
        ("'\\x00ff10'::bytea", base64.b64encode(b"\x00\xff\x10").decode()),
        ("''::bytea", ""),
        ("'2026-11-29'::date", "2026-11-29"),
        ("'infinity'::date", "infinity"),
        ("'0044-03-15 BC'::date", "0044-03-15 BC"),
        ("'2026-11-29 18:30:00.25'::timestamp", "2026-11-29T18:30:00.25"),
        ("'2026-11-29 18:30:00+02'::timestamptz", "2026-11-29T16:30:00Z"),
        ("'18:30'::time", "18:30:00"),
        ("'18:30+05:30'::timetz", "18:30:00+05:30"),
        ("'1 day 2 hours'::interval", "P1DT2H"),
        ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("'10.0.0.0/8'::inet", "10.0.0.0/8"),
        ('\'{"a": [1, {"b": null}]}\'::jsonb', {"a": [1, {"b": None}]}),
        ("'[1,  2]'::json", [1, 2]),
        ("array[1, null, 3]", [1, None, 3]),
        ("array[[1, 2], [3, 4]]", [[1, 2], [3, 4]]),
        ("'{}'::int[]", []),
        ("'[0:1]={7,8}'::int[]", [7, 8]),
        ("array['a,b', 'c\"d', 'e\\f', '', 'null', '{x}']", ["a,b", 'c"d', "e\\f", "", "null", "{x}"]),
        ("array['NULL', null]", ["NULL", None]),
        ("array[1.50, 2]::numeric[]", ["1.50", "2"]),
        ("array['\\x00'::bytea]", ["AA=="]),
        ("array['{\"a\": 1}'::jsonb]", [{"a": 1}]),
        ("array['2026-11-29 18:30:00+00'::timestamptz]", ["2026-11-29T18:30:00Z"]),
        ("array[box '(1,2),(3,4)', box '(5,6),(7,8)']", ["(3,4),(1,2)", "(7,8),(5,6)"]),
        ("array[true, false]", [True, False]),
        ("int4range(1, 5)", "[1,5)"),
        ("row(1, 'a')", "(1,a)"),
    ],
)
async def test_each_type_has_its_form_in_json(source, sql, value):
    """As docs/host-functions.md says."""
    assert await source.one(f"select {sql}") == value


@pytest.mark.parametrize(
    ("sql", "given", "value"),
    [
        ("select $1::int + 1", [41], 42),
        ("select $1::text", ["it's"], "it's"),
        ("select $1::bool", [True], True),
        ("select $1::int is null", [None], True),
        ("select $1::float8", [0.1], 0.1),
        ("select $1::numeric", ["0.30000000000000000001"], "0.30000000000000000001"),
        ("select $1::jsonb", [{"a": [1]}], {"a": [1]}),
        ("select $1::int[]", [[1, None, 3]], [1, None, 3]),
        ("select $1::text[]", [['a"b', "c\\d", "{,}", ""]], ['a"b', "c\\d", "{,}", ""]),
        ("select $1::int[]", [[[1], [2]]], [[1], [2]]),
        ("select $1", ["untyped"], "untyped"),
        ("select note from orders where id = $1", [1], "first"),
        ("select count(*) from orders where id = any($1)", [[1, 2, 3]], 2),
        ("select decode($1, 'base64')", ["AAE="], "AAE="),
    ],
)
async def test_parameters_are_json(source, sql, given, value):
    """Their types are the statement's."""
    assert await source.one(sql, given) == value


@pytest.mark.parametrize(
    ("sql", "given", "cause", "sqlstate"),
    [
        ("select $1::int, $2::int", [1], "failed", "08P01"),
        ("select $1::int", [1, 2], "failed", "08P01"),
        ("select 1", [1], "failed", "08P01"),
        ("select $1::int", [], "failed", "08P01"),
        ("select $1::int", ["a"], "failed", "22P02"),
        ("select $1::int", [1.5], "failed", "22P02"),
        ("select $1::int", [2**40], "failed", "22003"),
        ("select $1::bool", ["perhaps"], "failed", "22P02"),
        ("select $1::jsonb", ["{"], "failed", "22P02"),
        ("select $1::text", ["a\0b"], "failed", "22021"),
        ("select $1::text[]", [["a\0b"]], "failed", "22021"),
        ("select 1", {"a": 1}, "failed", "22023"),
        ("select 1", "text", "failed", "22023"),
        ("select $1::int[]", [[[[[[[[1]]]]]]]], "failed", "22023"),
        ("select 1", [1] * 1001, "limit", None),
        ("selec 1", None, "failed", "42601"),
        ("", None, "failed", "42601"),
        ("-- nothing", None, "failed", "42601"),
        ("select * from missing", None, "failed", "42P01"),
        ("select * from private", None, "denied", "42501"),
        ("select 1/0", None, "failed", "22012"),
    ],
)
async def test_a_mistake_is_told_with_its_sqlstate(source, sql, given, cause, sqlstate):
    """And the connection goes on."""
    assert await source.error(sql, given) == (cause, sqlstate)
    assert await source.one("select 1") == 1
    assert source.database.connections == 1
    assert source.counted == [("query_execute", False)]


@pytest.mark.parametrize("given", [b"[1", b"\xff", b"[" * 2000, b"nul"])
async def test_parameters_that_are_no_json_are_refused(source, given):
    """Whatever the bytes."""
    answer = await source.call("query_execute", "db", "select 1", given)
    assert answer["error"]["cause"] == "failed"
    assert answer["error"]["sqlstate"] == "22023"


async def test_parameters_of_many_values_are_not_parsed(source):
    """A mebibyte of them would take a hundred."""
    answer = await source.call("query_execute", "db", "select 1", b"[" + b"[]," * 100_000 + b"[]]")
    assert answer["error"]["cause"] == "limit"


@pytest.mark.parametrize(("sql", "what"), [(b"select '\0'", "22021"), (b"select '\xff'", "22021")])
@pytest.mark.parametrize("function", ["query_execute", "query_prepare", "query_get_tables", "query_normalize"])
async def test_a_text_that_is_none_is_refused(source, function, sql, what):
    """NUL ends a text in C, and a guard would read less than the server."""
    texts = {"query_execute": ("db", sql, b""), "query_prepare": ("db", sql)}.get(function, (sql,))
    answer = await source.call(function, *texts)
    assert answer["error"]["cause"] == "failed"
    assert answer["error"]["sqlstate"] == what


@pytest.mark.parametrize("function", ["query_execute", "query_prepare", "query_get_tables", "query_normalize"])
async def test_a_text_that_is_too_long_is_refused(source, function):
    """A mebibyte is the most."""
    sql = b"select 1 -- " + b"x" * 2**20
    texts = {"query_execute": ("db", sql, b""), "query_prepare": ("db", sql)}.get(function, (sql,))
    assert (await source.call(function, *texts))["error"]["cause"] == "limit"


async def test_prepare_describes_and_runs_nothing(make):
    """Parameters by type, columns by name and type."""
    source = make(access="ReadWrite")
    answer = await source.call("query_prepare", "db", "insert into orders values ($1, $2, $3) returning id, price")
    assert answer == {
        "parameters": ["int4", "text", "numeric"],
        "columns": [{"name": "id", "type": "int4"}, {"name": "price", "type": "numeric"}],
    }
    assert await source.one("select count(*) from orders") == 2
    assert (await source.call("query_prepare", "db", "select $1::int[]"))["parameters"] == ["int4[]"]
    assert (await source.call("query_prepare", "db", "selec"))["error"]["sqlstate"] == "42601"


async def test_a_type_of_the_databases_own_is_a_number_and_a_text(source, server):
    """No second query asks for its name."""
    server.psql("create type mood as enum ('good', 'bad')")
    try:
        answer = await source.ask("select 'good'::mood, array['bad'::mood]")
    finally:
        server.psql("drop type mood")
    assert answer["rows"] == [["good", "{bad}"]]
    assert all(column["type"].isdigit() for column in answer["columns"])
