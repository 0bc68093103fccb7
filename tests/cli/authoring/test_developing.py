"""``hookline dev``: what is saved is built, and a sidecar on this machine runs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os

import pytest

from desks import Desk
from hookline_cli.authoring.watching import Sources
from waiting import PATIENCE_S


@pytest.fixture
def desk(project):
    """Starts one; all are ended."""
    with contextlib.ExitStack() as stack:

        def start(*options):
            found = Desk(project, *options)
            stack.callback(found.process.stdout.close)
            stack.callback(found.process.stderr.close)
            stack.callback(found.process.wait, PATIENCE_S)
            stack.callback(lambda: found.process.poll() is None and found.process.terminate())
            return found

        yield start


def save(file, old, new):
    """As an editor does: a new file takes the place of the old one."""
    partial = file.with_name(".partial")
    partial.write_text(file.read_text().replace(old, new))
    partial.replace(file)


def test_what_is_saved_decides_the_next_calls(desk, project):
    """Built, taken over, and held against its cases; each decision is told, and Ctrl-C leaves nothing behind."""
    work = desk("--inputs")
    assert work.until("cases") == {"event": "cases", "held": 2, "failed": 0, "problems": {}}
    work.until("watching")
    assert work.ask("drop table t")["value"] == "DROP is not allowed"
    told = work.until("decision")
    assert (told["hook"], told["decision"]["action"]) == ("pre_query", "block")
    assert json.loads(told["input"])["query"] == "drop table t"
    save(project / "guard.c", "DROP is not allowed", "No DROP here")
    assert work.until("runs")["seconds"] > 0  # whatever its cases say
    assert work.until("cases")["failed"] == 1
    assert work.ask("drop table t")["value"] == "No DROP here"
    work.until("decision")
    save(project / "guard.c", "#include", "#inclde")
    assert "error" in work.until("failed")["output"]
    assert work.ask("drop table t")["value"] == "No DROP here"
    assert work.end() == 0


def test_a_change_is_built_once(desk, project):
    """What a build writes among the sources, and takes away again, is none."""
    work = desk()
    work.until("watching")
    save(project / "guard.c", "DROP is not allowed", "No DROP here")
    work.until("built")
    work.until("cases")
    save(project / "plugin.json", "0.1.0", "0.2.0")
    work.until("built")
    # Between them there was none: the next is the one of the description.
    assert json.loads((project / "plugin.json").read_text())["version"] == "0.2.0"
    assert work.until("runs")["sha256"]
    assert work.end() == 0


def test_a_project_that_does_not_build_is_waited_for(desk, project):
    """The sidecar answers nothing until it does."""
    good = (project / "guard.c").read_text()
    (project / "guard.c").write_text("nonsense")
    work = desk()
    work.until("failed")
    work.until("watching")
    (project / "guard.c").write_text(good)
    work.until("runs")
    assert work.ask("drop table t")["action"] == "block"
    assert work.end() == 0


def test_a_folder_of_manifests_is_written_to(desk, project, tmp_path):
    """For a sidecar of one's own; none is started."""
    (tmp_path / "manifests").mkdir()
    work = desk("--manifests", str(tmp_path / "manifests"))
    work.until("watching")
    assert {each.name for each in (tmp_path / "manifests").iterdir()} == {"guard.wasm", "guard.yaml"}
    assert work.end() == 0


def test_mistakes_are_told(hookline, project, tmp_path):
    """Before anything is started."""
    assert hookline("dev", "none").code == 3
    assert hookline("dev", "guard", "--manifests", "none").code == 3
    (tmp_path / "empty").mkdir()
    assert hookline("dev", "empty").code == 2


async def test_only_sources_that_are_others_are_changes(tmp_path):
    """A file that is made and taken away, or one that a build makes, is none."""
    (tmp_path / "a.c").write_text("1")
    before = (tmp_path / "a.c").stat()
    sources = Sources([tmp_path])
    (tmp_path / "made.wasm").write_text("x")
    (tmp_path / "a.c").write_text("1")
    os.utime(tmp_path / "a.c", ns=(before.st_atime_ns, before.st_mtime_ns))
    found = sources.changes()
    first = asyncio.ensure_future(anext(found))
    await asyncio.wait([first], timeout=0.01)
    assert not first.done()
    (tmp_path / "a.c").write_text("22")
    assert await asyncio.wait_for(first, PATIENCE_S) > 0
    await found.aclose()
