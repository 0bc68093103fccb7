"""docs/operate/sources.md, "A role for PostgreSQL": its statements as they stand there, and what the role may do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import postgres

_PAGE = (Path(__file__).parents[3] / "docs" / "operate" / "sources.md").read_text()


@pytest.fixture(scope="module")
def role(server):
    """The page's role, with a table for it to read; they are gone with the test."""
    (block,) = re.findall(r"^```sql\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)
    server.psql("create table public.grants (name text primary key, role text); insert into grants values ('a', 'r');")
    assert postgres.DATABASE == "shop"
    server.psql(block)
    yield {"user": "hookline", "access": "ReadWrite"}  # what the role may not do is none of the resource's doing
    server.psql("drop owned by hookline; drop role hookline; drop table public.grants;")


@pytest.fixture
def source(make, role):
    """A data source that asks as that role; its password has the line break of the file that it comes from."""
    return make(**role, credentials={"db/password": "CHANGE-ME\n"})


async def test_the_role_reads_the_table_that_it_is_for(source):
    """By the statement that the page's plugin asks."""
    assert await source.one("select role from grants where name = $1", ["a"]) == "r"


@pytest.mark.parametrize(
    ("sql", "sqlstate"),
    [
        ("select * from private", "42501"),
        ("insert into grants values ('b', 'r')", "42501"),
        ("create table public.mine (id int)", "42501"),
    ],
)
async def test_the_role_does_nothing_else(source, sql, sqlstate):
    """It reads no other table, writes none, and makes none."""
    assert await source.error(sql) == ("denied", sqlstate)


async def test_the_roles_own_settings_hold_where_the_resource_says_nothing(source):
    """A session that is not Hookline's begins read-only, too."""
    settings = "select setconfig from pg_db_role_setting where setrole = 'hookline'::regrole"
    assert await source.one(settings) == ["default_transaction_read_only=on", "statement_timeout=1s"]
