"""A guest in WebAssembly asks as it would call any function, and others answer meanwhile."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from hookline_api.hooks import Hook
from hookline_runtime.runtime import PrepareError
from http_guests import client
from waiting import until_true


def asking(wat):
    """Its custom hook asks for what it is called with, and answers what came."""
    return wat.module(
        imports=wat.host("hookline", "http_fetch", "i32 i32", "i64"),
        hooks={"custom_hook": "(call $http_fetch (local.get $p) (local.get $n))"},
        memory='(memory (export "memory") 64)',
    )


async def ask(runtime, **request):
    """What its answer says."""
    return (await runtime.call(Hook.CUSTOM, json.dumps(request).encode()))["value"]


@pytest.fixture
def settings(plain):
    """Of a plugin that may ask."""
    return {"permissions": ["http.fetch"], "egress": [plain.rule()], "limits": {"wait": "50s"}}


async def test_a_guest_asks_and_answers_what_came(workshop, wat, plain, settings):
    """And what went wrong, as JSON, and without a trap."""
    plain.page("/", "hello")
    runtime = await workshop.guest(asking(wat), **settings)
    answer = await ask(runtime, url=plain.url())
    assert (answer["status"], answer["body"]) == (200, "hello")
    assert (await ask(runtime, url="https://example.com/"))["error"]["cause"] == "denied"
    plain.page("/large", "x" * 2**19)
    assert len((await ask(runtime, url=plain.url("/large")))["body"]) == 2**19


async def test_guests_that_wait_hold_up_nobody(workshop, wat, plain, settings):
    """All of them are asked at the same time, and another plugin answers meanwhile."""
    here, opened = [], asyncio.Event()

    async def slow(request):
        here.append(request.path_qs)
        await opened.wait()
        return web.Response(text=request.path_qs)

    plain.pages["/"] = slow
    settings["limits"]["concurrency"] = 64
    runtime = await workshop.run(
        await workshop.plugin(asking(wat), **settings),
        await workshop.plugin(wat.module(answers={"route": {"action": "primary"}}), name="quick"),
    )
    calls = [asyncio.create_task(ask(runtime, url=plain.url(f"/?{n}"))) for n in range(20)]
    await until_true(lambda: len(here) == 20, "all have come")
    question = {"query": "select 1", "hook_context": {"request_id": "1"}}
    assert (await runtime.call(Hook.ROUTE, json.dumps(question).encode()))["action"] == "primary"
    opened.set()
    assert {answer["body"] for answer in await asyncio.gather(*calls)} == {f"/?{n}" for n in range(20)}


async def test_a_call_that_is_cut_ends_its_request(workshop, wat, plain, settings):
    """By the plugin's own `limits.wait`: the guest gets to know before."""
    here, gone = asyncio.Event(), asyncio.Event()

    async def silent(_):
        here.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    plain.pages["/"] = silent
    settings["limits"]["wait"] = "300ms"
    runtime = await workshop.guest(asking(wat), **settings)
    answer = await ask(runtime, url=plain.url())
    assert answer["error"]["cause"] == "timeout"
    await here.wait()
    asks = client(runtime.plugins["guest"].host)
    assert asks._waiting == 0
    assert asks._flights == {}


async def test_a_plugin_whose_authority_cannot_be_read_is_not_loaded(workshop, wat, site):
    """And the sentence names the place."""
    with pytest.raises(PrepareError, match=r"spec\.egress\[0\]\.caFrom"):
        await workshop.guest(
            asking(wat), permissions=["http.fetch"], egress=[site.rule()], credentials={"tls/ca": "nonsense"}
        )
