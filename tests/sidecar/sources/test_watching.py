"""A change of the plugin folder is noticed, whenever it comes."""

from __future__ import annotations

import asyncio

from hookline_sidecar.control.sources.manifests import scan
from hookline_sidecar.control.sources.watch import FolderWatch


async def test_a_folder_that_appears_while_it_is_read_is_read_again(tmp_path):
    """No event tells of it, and every later look would find it as it is."""
    folder, changed = tmp_path / "plugins", asyncio.Event()
    watch = FolderWatch(folder, changed)
    before = await watch.glance()
    folder.mkdir()
    await watch.remember(None, before)
    assert changed.is_set()


async def test_a_manifest_that_is_written_while_the_folder_is_read_is_read_too(tmp_path):
    """What was read is older than what is there."""
    changed = asyncio.Event()
    watch = FolderWatch(tmp_path, changed)
    before = await watch.glance()
    found = scan(tmp_path)
    (tmp_path / "guard.yaml").write_text("kind: WasmPlugin")
    await watch.remember(found, before)
    assert changed.is_set()


async def test_a_folder_that_stays_as_it_is_is_read_once(tmp_path):
    """Reading it does not count as a change."""
    changed = asyncio.Event()
    watch = FolderWatch(tmp_path, changed)
    await watch.remember(scan(tmp_path), await watch.glance())
    assert not changed.is_set()
