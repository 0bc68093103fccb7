"""Slots: what a worker or the store refuses for now is loaded once more, though nothing of it changes."""

from __future__ import annotations

import asyncio
import hashlib

from hookline_api.bundle import BundleArtifact, BundlePlugin, LoadFailure
from hookline_api.standing import STILL_LOADING
from hookline_artifacts import patience
from hookline_artifacts.errors import FetchError
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.module.inspection import inspect_file
from hookline_artifacts.resolve import Resolved
from hookline_artifacts.store import Artifact
from hookline_runtime.guest.compiler import Compiler
from hookline_runtime.trial.self_test import SelfTests
from hookline_sidecar.control.assembly import assemble
from hookline_sidecar.control.slots import Slots
from hookline_sidecar.control.sources.source import Wanted


async def test_a_slot_says_whether_it_fetches_or_compiles(tmp_path, guests):
    """So that whoever asks meanwhile hears what is slow; a module that is compiled already is not compiled."""
    fetched, compiled, settled, seen = asyncio.Event(), asyncio.Event(), asyncio.Event(), []

    class Slow(Compiler):
        async def prepare(self, job):
            await compiled.wait()
            return await super().prepare(job)

    raw = guests.saying("fine")
    module, sha256 = tmp_path / "m.wasm", hashlib.sha256(raw).hexdigest()
    module.write_bytes(raw)
    kept = Artifact(
        digest=f"sha256:{sha256}", sha256=sha256, size=len(raw), layout="file", path=module, description=None
    )
    resolved = Resolved(
        entry=BundlePlugin(
            name="p",
            artifact=BundleArtifact(digest=kept.digest, sha256=sha256, size=kept.size, layout="file", reference="p"),
        ),
        artifact=kept, info=inspect_file(module), description=PluginDescription(), hooks=(),
    )  # fmt: skip

    async def resolve(**_):
        await fetched.wait()
        return resolved

    def look():
        seen.append(slots["p"].stage)
        settled.set()

    compiler = Slow(tmp_path / "compiled")
    tests = SelfTests(compiler, tmp_path)
    slots = Slots(compiler, tests, running=lambda _: None, refused=lambda *_: None, settled=look)
    slots.take({"p": Wanted(key="1", placeholder=BundlePlugin(name="p"), resolve=resolve)})
    assert slots["p"].stage == "fetching"
    assert assemble(slots, None).bundle.plugins[0].failure == STILL_LOADING["fetching"]
    fetched.set()
    await asyncio.wait_for(settled.wait(), 30)
    assert seen == ["compiling"]
    assert assemble(slots, None).bundle.plugins[0].failure == STILL_LOADING["compiling"]
    settled.clear()
    compiled.set()
    await asyncio.wait_for(settled.wait(), 30)
    assert slots["p"].resolved is not None
    slots.take({"p": Wanted(key="2", placeholder=BundlePlugin(name="p"), resolve=resolve)})
    await slots["p"].task
    assert seen == ["compiling", "fetching", "fetching"]  # the second time there is nothing to compile


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
