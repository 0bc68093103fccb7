"""Slots: what a worker or the store refuses for now is loaded once more, though nothing of it changes."""

from __future__ import annotations

import asyncio

from hookline_api.bundle import BundlePlugin, LoadFailure
from hookline_artifacts import patience
from hookline_artifacts.errors import FetchError
from hookline_runtime.guest.compiler import Compiler
from hookline_runtime.trial.self_test import SelfTests
from hookline_sidecar.control.slots import Slots
from hookline_sidecar.control.sources.source import Wanted


async def test_a_plugin_that_found_no_room_is_tried_again(tmp_path, monkeypatch):
    """After a pause, and by asking its source as at the first time; not after it is no longer wanted."""
    monkeypatch.setattr(patience, "SLOW_S", 0.01)
    asked, settled = [], asyncio.Event()

    async def resolve(*, previous, ask_again):
        asked.append((previous, ask_again))
        raise FetchError("it is nowhere", transient=False)

    compiler = Compiler(tmp_path)
    tests = SelfTests(compiler, tmp_path)
    slots = Slots(compiler, tests, running=lambda _: None, refused=lambda *_: None, settled=settled.set)
    slots.take({"p": Wanted(key="1", placeholder=BundlePlugin(name="p"), resolve=resolve)})
    await asyncio.wait_for(settled.wait(), 30)
    slot = slots["p"]
    slot.again.cancel()
    slot.failure = LoadFailure(cause="config", message="there is no room")
    settled.clear()
    slots.try_again(slot)
    await asyncio.wait_for(settled.wait(), 30)
    assert asked == [(None, False), (None, True)]
    slots.try_again(slot)
    slots.take({})
    assert slot.again.cancelled()
