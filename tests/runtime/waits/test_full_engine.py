"""As many calls wait as the engine has places for: each still gets its answer."""

from __future__ import annotations

import asyncio

import pytest

from asking_guests import ASK, FETCH, SETTINGS
from hookline_api.hooks import Hook
from hookline_runtime.guest import calls, engine

pytestmark = pytest.mark.skipif(calls._fibers_unfit is not None, reason=f"there are no fibers: {calls._fibers_unfit}")
_PLUGINS = 4


async def test_the_answers_of_a_full_engine_have_a_place(workshop, wat, others):
    """Where alloc says where an answer goes, it runs on a stack beside those of all calls that wait."""
    each = engine._INSTANCES // _PLUGINS
    text = wat.module(imports=FETCH, hooks={"custom_hook": ASK})
    limits = {"wait": "60s", "memory": 2**17, "concurrency": each}
    plugins = [await workshop.plugin(text, name=f"guest{at}", **SETTINGS, limits=limits) for at in range(_PLUGINS)]
    runtime = await workshop.run(*plugins)
    for plugin in runtime.plugins.values():
        plugin.trust()
        plugin._instances.shed()  # what is kept for other calls has a place, too
    waiting = [
        asyncio.create_task(plugin.call(Hook.CUSTOM, b"0"))
        for plugin in runtime.plugins.values()
        for _ in range(each)
    ]  # fmt: skip
    await others.until(engine._INSTANCES)
    others.answer_all()
    assert [answer.action for answer in await asyncio.gather(*waiting)]
    assert others.most == engine._INSTANCES
