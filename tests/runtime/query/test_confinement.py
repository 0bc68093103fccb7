"""A guest's statement is one, in a transaction of its own, and nothing of it is left for the next one."""

from __future__ import annotations

import asyncio

import pytest

import postgres
from waiting import until_true


@pytest.mark.parametrize(
    "sql",
    [
        "select 1; select 2",
        "select 1; insert into orders values (7, 'x', 1)",
        "commit; insert into orders values (7, 'x', 1)",
        "rollback; set transaction read write",
        "begin read write; insert into orders values (7, 'x', 1); commit",
        "select 1;; select 2",
        "/* ; */ select ';'; drop table orders",
    ],
)
async def test_a_statement_that_is_several_is_refused(source, sql):
    """By the server itself: it is sent so that it takes one alone. None of them is run."""
    assert await source.error(sql) == ("failed", "42601")
    assert await source.one("select count(*) from orders") == 2


async def test_one_statement_may_end_with_a_semicolon(source):
    """That is still one."""
    assert await source.one("select 1;") == 1


@pytest.mark.parametrize(
    "sql",
    [
        "insert into orders values (7, 'x', 1)",
        "update orders set note = 'x'",
        "delete from orders",
        "select * from orders for update",
        "with gone as (delete from orders returning *) select * from gone",
        "explain analyze delete from orders",
        "create temp table t (a int)",
        "create table t (a int)",
        "select nextval('s')",
        "do $$ begin delete from orders; end $$",
        "do $$ begin set transaction read write; delete from orders; end $$",
        "do $$ begin perform set_config('transaction_read_only', 'off', true); delete from orders; end $$",
        "do $$ begin set default_transaction_read_only = off; commit; delete from orders; end $$",
        "do $$ begin rollback; set transaction read write; delete from orders; commit; end $$",
        "do $$ begin execute 'begin read write'; delete from orders; end $$",
        "select set_config('transaction_read_only', 'off', false) from (select 1) one",
        "truncate orders",
        "prepare transaction 'x'",
        "select lo_create(0)",
        "copy orders from stdin",
    ],
)
async def test_a_read_only_source_is_never_written(source, server, sql):
    """Whatever the statement tries: the transaction was read-only before it began."""
    server.psql("create sequence if not exists s; grant usage on s to reader; grant create on schema public to reader")
    before = server.psql("select * from orders order by id; select count(*) from pg_class; select last_value from s")
    await source.ask(sql)
    after = server.psql("select * from orders order by id; select count(*) from pg_class; select last_value from s")
    assert after == before
    assert server.psql("select count(*) from pg_prepared_xacts") == "0"
    assert await source.error("insert into orders values (7, 'x', 1)") == ("denied", "25006")


@pytest.mark.parametrize(
    "sql",
    [
        "commit",
        "rollback",
        "commit and chain",
        "rollback and chain",
        "begin",
        "begin read write",
        "set transaction read write",
        "set session characteristics as transaction read write",
        "set default_transaction_read_only = off",
        "select set_config('default_transaction_read_only', 'off', false)",
        "savepoint s",
        "do $$ begin perform set_config('default_transaction_read_only', 'off', false); end $$",
        "reset all",
        "discard all",
        "set session authorization default",
        "set role none",
        "reset default_transaction_read_only",
    ],
)
@pytest.mark.parametrize("pool", [1])
async def test_what_a_statement_says_of_transactions_ends_with_it(make, sql, pool):
    """The next one on the same connection is in a read-only transaction again."""
    source = make(poolSize=pool)
    backend = await source.one("select pg_backend_pid()")
    await source.ask(sql)
    assert await source.error("insert into orders values (7, 'x', 1)") == ("denied", "25006")
    assert await source.one("show transaction_read_only") == "on"
    assert await source.one("select pg_backend_pid()") == backend


@pytest.mark.parametrize(
    ("sql", "look", "clean"),
    [
        ("set statement_timeout = 0", "show statement_timeout", "10s"),
        ("select set_config('statement_timeout', '0', false)", "show statement_timeout", "10s"),
        ("set timezone = 'Asia/Tokyo'", "show timezone", "UTC"),
        ("set datestyle = 'german'", "show datestyle", "ISO, MDY"),
        ("set client_encoding = 'latin1'", "show client_encoding", "UTF8"),
        ("set search_path = nowhere", "select count(*) from orders", 2),
        ("set my.own = 'mine'", "select current_setting('my.own', true)", ""),
        ("set application_name = 'me'", "select current_setting('application_name') ~ '^hookline-[0-9a-f]{32}$'", True),
        ("listen channel", "select count(*) from pg_listening_channels()", 0),
        ("prepare mine as select 1", "select count(*) from pg_prepared_statements where name = 'mine'", 0),
        ("declare mine cursor with hold for select 1", "select count(*) from pg_cursors where name = 'mine'", 0),
        ("select pg_advisory_lock(7)", "select count(*) from pg_locks where locktype = 'advisory'", 0),
        ("set role pg_monitor", "select current_user::text", "reader"),
        ("create temp table mine (a int)", "select to_regclass('pg_temp.mine')", None),
    ],
)
@pytest.mark.parametrize("access", ["ReadOnly", "ReadWrite"])
async def test_the_session_is_as_new_for_the_next_statement(make, sql, look, clean, access):
    """On the same connection, also where the statement was committed."""
    source = make(poolSize=1, access=access)
    backend = await source.one("select pg_backend_pid()")
    await source.ask(sql)
    assert await source.one(look) in {clean, None if clean == "" else clean}
    assert await source.one("select pg_backend_pid()") == backend


@pytest.mark.parametrize(
    "sql", ["set statement_timeout = 1", "set local statement_timeout = 1", "set lock_timeout = 1"]
)
async def test_a_session_that_cannot_be_tidied_is_not_used_again(make, sql):
    """As where the statement's own settings end what tidies it: the answer is given all the same."""
    source = make(poolSize=1, access="ReadWrite")
    for _ in range(30):
        assert "error" not in await source.ask(sql)
        await source.idle()
        assert await source.one("show statement_timeout") == "10s"


async def test_a_lock_of_a_statement_is_free_after_it(make, server):
    """Not when the connection is used again: when the statement is answered."""
    source = make(poolSize=1)
    await source.ask("select pg_advisory_lock(8)")
    assert server.psql("select count(*) from pg_locks where locktype = 'advisory'") == "0"


async def test_a_source_that_may_write_commits_each_statement(make, server):
    """Each by itself; one that fails leaves nothing."""
    source = make(access="ReadWrite")
    assert (await source.ask("insert into orders values ($1, 'x', 1)", [70]))["rowCount"] == 1
    assert server.psql("select count(*) from orders where id = 70") == "1"
    assert await source.error("insert into orders values (71, 'x', 1), (70, 'x', 1)") == ("failed", "23505")
    answer = await source.ask("delete from orders where id >= 70 returning id")
    assert answer["rows"] == [[70]]
    assert answer["rowCount"] == 1
    assert server.psql("select count(*) from orders") == "2"


async def test_what_fails_as_it_is_committed_is_an_error(make, server):
    """A constraint that is looked at last."""
    server.psql("create table late (a int unique deferrable initially deferred); grant all on late to reader")
    try:
        source = make(access="ReadWrite")
        assert await source.error("insert into late values (1), (1)") == ("failed", "23505")
        assert await source.one("select count(*) from late") == 0
    finally:
        server.psql("drop table late")


@pytest.mark.parametrize("sql", ["copy orders to stdout", "copy orders from stdin", "copy (select 1) to stdout"])
async def test_copy_to_the_client_is_refused(make, sql):
    """It is no result, and the source goes on."""
    source = make(access="ReadWrite")
    assert (await source.error(sql))[0] == "failed"
    await source.idle()
    assert await source.one("select 1") == 1


async def test_notices_and_notifications_are_not_kept(make, server):
    """A statement may raise many; the next result is its own."""
    source = make(access="ReadWrite", poolSize=1)
    await source.ask("listen channel")
    answer = await source.ask("do $$ begin for i in 1..100 loop raise notice 'n %', i; end loop; end $$")
    assert answer == {"columns": [], "rows": [], "rowCount": 0}
    server.psql("notify channel, 'text'")
    assert await source.one("select 1") == 1
    assert source.database.connections == 1


async def test_a_statement_that_ends_its_own_connection_harms_nobody_else(make):
    """It is told, and the source is not taken for away."""
    source = make()
    assert (await source.error("select pg_terminate_backend(pg_backend_pid())"))[1] in {"57P01", "08006"}
    await source.idle()
    assert await source.one("select 1") == 1
    assert source.unavailable == {}


async def test_a_query_that_sleeps_ends_with_its_time(make, server):
    """Whatever it says of the time-out itself; the connection goes on."""
    source = make(statementTimeout="50ms", poolSize=1)
    for sql in (
        "select pg_sleep(60)",
        "select set_config('statement_timeout', '0', false), pg_sleep(60)",
        "do $$ begin set statement_timeout = 0; perform pg_sleep(60); end $$",
    ):
        assert await source.error(sql) == ("timeout", "57014")
    assert await source.one("select 1") == 1
    assert server.psql(f"select count(*) from pg_stat_activity where usename = '{postgres.USER}'") == "1"


@pytest.mark.parametrize(
    ("permissions", "cause"),
    [(["query.execute:db"], None), (["query.execute"], None), (["query.execute:other"], "denied"),
     (["query.execute:d"], "denied"), (["query.execute:db2", "kv.read"], "denied")],
)  # fmt: skip
async def test_a_permission_names_the_sources_that_it_is_for(make, permissions, cause):
    """Another source is denied, before anybody is asked."""
    source = make(permissions=permissions)
    for answer in (await source.ask("select 1"), await source.call("query_prepare", "db", "select 1")):
        assert answer.get("error", {}).get("cause") == cause
    assert source.database.connections == (cause is None)
    assert (await source.call("query_normalize", "select 1")) == {"sql": "select $1"}


@pytest.mark.parametrize("name", ["other", "", "DB", "db\n", "x" * 300])
async def test_a_source_that_is_not_there_is_denied(source, name):
    """With its name in the sentence, as far as it can be one."""
    answer = await source.ask("select 1", source=name)
    assert answer["error"]["cause"] in {"denied", "limit"}
    assert len(answer["error"]["message"]) < 600
    assert source.database.connections == 0


async def test_statements_at_the_same_time_do_not_meet(make):
    """Each has its own connection and result."""
    source = make(poolSize=4)
    answers = await asyncio.gather(*(source.one("select $1::int from pg_sleep(0.001)", [n]) for n in range(100)))
    assert answers == list(range(100))
    await until_true(lambda: source.database.used == 0, "an idle source")
    assert source.database.connections <= 4


@pytest.mark.parametrize("comments", ["/**/" * 200_000, "/*" * 200_000, "/* */\n" * 150_000])
async def test_a_statement_behind_very_many_comments_is_not_read(source, comments):
    """They are looked through on the event loop, which has nobody's quarter of a second for it."""
    assert (await source.error(comments + "select 1"))[0] == "limit"
    assert await source.one("/* a */" * 500 + "select 1") == 1
