"""Modules that the node has brought: taken from a mounted image by their sha256, and by nothing else.

No runtime here can mount an image as a volume, so a plain folder stands where one would be.
"""

from __future__ import annotations

import hashlib
import io
import os

import pytest

from hookline_sidecar.control.sources import images


def take(folder, module):
    """What is taken for a module; None for nothing."""
    into = io.BytesIO(b"left over")
    found = images.take(folder, sha256=hashlib.sha256(module).hexdigest(), size=len(module), into=into)
    return into.getvalue() if found else (None if into.getvalue() == b"" else pytest.fail("something was left"))


async def test_a_module_that_is_in_an_image_is_not_asked_for(sidecar, operator, guests, tmp_path):
    """The operator says what runs; only what no image has comes from it."""
    here, away = guests.saying("here"), guests.answering(pre_query="away")
    folder = tmp_path / "images" / "guard" / "deep"
    folder.mkdir(parents=True)
    (folder / "plugin.wasm").write_bytes(here)
    operator.send(operator.entry("here", here), operator.entry("away", away, hooks=["pre_query"]))
    at = {"operator": operator.url, "operator_ca": operator.ca, "operator_token": operator.token}
    sidecar.start(plugins=None, images=tmp_path / "images", **at)
    assert await sidecar.says() == "here"
    assert {name for name, _ in operator.asked} == {"away"}


def test_a_name_says_nothing_and_other_bytes_are_passed_over(tmp_path):
    """Of the same size too; the right ones may be in any file."""
    module, other = b"m" * 1000, b"o" * 1000
    (tmp_path / "plugin.wasm").write_bytes(other)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "zzz.txt").write_bytes(module)
    assert take(tmp_path, module) == module
    assert take(tmp_path, b"x" * 1000) is None
    assert take(tmp_path / "none", module) is None


def test_no_link_is_followed_and_nothing_but_files_is_read(tmp_path):
    """Neither out of the image nor within it."""
    module, root = b"m" * 1000, tmp_path / "root"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plugin.wasm").write_bytes(module)
    root.mkdir()
    (root / "file").symlink_to(tmp_path / "out" / "plugin.wasm")
    (root / "folder").symlink_to(tmp_path / "out")
    os.mkfifo(root / "pipe")
    assert take(root, module) is None


def test_a_large_image_is_looked_at_up_to_a_bound(tmp_path, monkeypatch):
    """In entries, in depth, and in files that are read."""
    module = b"m" * 100
    deep = tmp_path / "deep"
    for _ in range(12):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "plugin.wasm").write_bytes(module)
    assert take(tmp_path / "deep", module) is None

    many = tmp_path / "many"
    many.mkdir()
    for number in range(images._MAX_HASHED):
        (many / f"a{number}").write_bytes(b"%100d" % number)
    (many / "z").write_bytes(module)
    assert take(many, module) is None
    (many / "a0").unlink()
    assert take(many, module) == module
    monkeypatch.setattr(images, "_MAX_ENTRIES", 3)
    assert take(many, module) is None
