"""What a plugin asks of a database behind a hooked proxy is not asked about again; and nobody can pretend to be one."""

from __future__ import annotations

import json

import pytest

import postgres
from hookline_api.bundle import BundlePlugin
from hookline_api.hooks import Hook
from hookline_runtime.host.recursion import application_name

_SOURCES = [
    {"name": "db", "postgres": {"host": "db.example", "database": "shop", "user": "reader"}},
    {"name": "more", "postgres": {"host": "db.example", "database": "more", "user": "other"}},
]
_ASKS = {"dataSources": _SOURCES, "permissions": ["query.execute"]}


def _block(reason):
    return {"pre_query": {"action": "block", "value": reason}, "authenticate": {"action": "denied", "message": reason}}


def _call(application, user="reader", database="shop", **attributes):
    names = {"application_name": application} if application is not None else {}
    return json.dumps({
        "query": "select 1",
        "hook_context": {"identity": user, "database": database, "attributes": {**names, **attributes}},
    }).encode()  # fmt: skip


@pytest.fixture
def name():
    """Of the connections of the plugin ``asks`` to its source ``db``."""
    plugin = BundlePlugin.model_validate({"name": "asks", **_ASKS})
    return application_name(plugin, plugin.data_sources[0])


@pytest.fixture
async def runtime(workshop, wat):
    """Two plugins with data sources, and behind them one without."""
    asks = await workshop.plugin(wat.module(answers=_block("asks")), "asks", priority=3, **_ASKS)
    also = await workshop.plugin(wat.module(answers=_block("also")), "also", priority=2, **_ASKS)
    plain = await workshop.plugin(wat.module(answers=_block("plain")), "plain", priority=1)
    return await workshop.run(asks, also, plain)


async def test_plugins_with_sources_are_left_out_of_what_one_of_them_asks(runtime, name):
    """All of them, since each might ask the other; a plugin that asks nothing decides as ever."""
    for _ in range(3):
        assert (await runtime.call(Hook.PRE_QUERY, _call(name)))["plugin"] == "plain"
        assert (await runtime.call(Hook.PRE_QUERY, _call("till")))["plugin"] == "asks"


@pytest.mark.parametrize(
    ("user", "database"), [("other", "shop"), ("reader", "more"), (None, "shop"), ("reader", None), ("", "")]
)
async def test_the_name_counts_only_with_the_sources_own_user_and_database(runtime, name, user, database):
    """Whoever read the name in the server's list of sessions is asked about like anybody else."""
    assert (await runtime.call(Hook.PRE_QUERY, _call(name, user, database)))["plugin"] == "asks"


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda name: name[:-1],
        lambda name: name + " ",
        lambda _: "hookline",
        lambda _: "hookline-" + "0" * 32,
        lambda _: None,
    ],
)
async def test_another_name_counts_for_nothing(runtime, name, change):
    """Nobody guesses it."""
    assert (await runtime.call(Hook.PRE_QUERY, _call(change(name))))["plugin"] == "asks"


async def test_one_who_logs_in_has_proven_nothing_yet(runtime, name):
    """So every plugin is asked about that."""
    body = json.loads(_call(name)) | {"username": "reader", "database": "shop", "headers": {}, "client_ip": "1.2.3.4"}
    del body["query"]
    assert (await runtime.call(Hook.AUTHENTICATE, json.dumps(body).encode()))["plugin"] == "asks"


async def test_an_observer_with_a_source_is_left_out_too(workshop, wat, name):
    """Else each query of it would be shown to it."""
    counts = "(drop (call $kv_incr (i32.const 1024) (i32.const 1) (i64.const 1))) (i64.const 0)"
    text = wat.module(
        imports=wat.host("hookline", "kv_incr", "i32 i32 i64", "i64"),
        data={1024: b"n"},
        hooks={"pre_query": counts},
    )
    settings = _ASKS | {"permissions": ["query.execute", "kv.write"]}
    runtime = await workshop.run(await workshop.plugin(text, "asks", mode="Shadow", **settings))
    for application in (name, "till", name):
        await runtime.call(Hook.PRE_QUERY, _call(application))
    await runtime.plugins["asks"].backlog.drained()
    assert workshop.kv.get("asks", b"n") == b"1"


async def test_the_servers_sessions_have_the_name(make, server):
    """A connection says it from its first message on, so that a proxy in front sees it."""
    source = make()
    [there] = source.plugin.data_sources
    assert await source.one("show application_name") == application_name(source.plugin, there)
    name = server.psql(f"select application_name from pg_stat_activity where usename = '{postgres.USER}'")
    assert name == application_name(source.plugin, there)
    assert len(name) <= 63


def test_the_name_differs_by_plugin_source_and_secrets_and_is_alike_in_all_pods():
    """With a seal, it is made of that alone."""
    plugin = BundlePlugin.model_validate({"name": "asks", "seal": "s" * 64, **_ASKS})
    others = [
        plugin.model_copy(update={"name": "another"}),
        plugin.model_copy(update={"namespace": "elsewhere"}),
        plugin.model_copy(update={"seal": "t" * 64}),
        plugin.model_copy(update={"seal": None}),
    ]
    names = {application_name(each, source) for each in (plugin, *others) for source in each.data_sources}
    assert len(names) == 10
    assert application_name(plugin.model_copy(deep=True), plugin.data_sources[0]) in names
    assert all("s" * 8 not in each for each in names)
