"""Work in a child process goes behind everything else, and still comes to an end."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from hookline_artifacts import apart
from waiting import until_true

_CHILD = """
import json, os, signal, sys

def child():
    mine = os.nice(0)
    while mine >= {starving}:
        signal.pause()  # uses no processor, as one that gets none
    sys.stdin.buffer.read()
    print(json.dumps({{"niceness": mine}}), end="")
"""


@pytest.fixture
def children(tmp_path, monkeypatch):
    """Writes the module that children run: one that starves at that niceness, and at any higher one."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(starving):
        name = f"child_that_starves_at_{starving}"  # one name would be read from the bytecode of the one before
        (tmp_path / f"{name}.py").write_text(_CHILD.format(starving=starving))
        return name

    return write


async def test_a_child_goes_behind_everything_else(children, monkeypatch):
    """It begins at the lowest priority there is."""
    monkeypatch.setattr(apart, "_LOOK_S", 3600.0)  # a busy machine may let it starve there
    assert await apart.run_apart(children(starving=20), b"{}") == {"niceness": 19}


async def test_a_child_that_starves_there_is_replaced_by_one_with_a_better_priority(children, monkeypatch):
    """A pod whose workers are busy gets its new version all the same."""
    monkeypatch.setattr(apart, "_LOOK_S", 3.0)
    answer = {"niceness": max(10, os.nice(0))}
    assert await apart.run_apart(children(starving=19), b"{}") == answer
    monkeypatch.setattr(apart, "_LOOK_S", 3600.0)
    assert await apart.run_apart(children(starving=19), b"{}") == answer  # nobody waits for the same again
    monkeypatch.setattr(apart, "_BUSY_S", 0.0)
    assert await apart.run_apart(children(starving=20), b"{}") == {"niceness": 19}


async def test_a_child_that_never_gets_anywhere_ends(children, monkeypatch):
    """Also the second one: whoever waits is told."""
    monkeypatch.setattr(apart, "_LOOK_S", 0.2)
    monkeypatch.setattr(apart, "_TIMEOUT_S", 5.0)
    answer = await apart.run_apart(children(starving=0), b"{}")
    assert answer == {"cause": apart.ENDED, "message": "it was not done within 5 s"}


@pytest.mark.parametrize(("ends", "short"), [("ABRT", True), ("SEGV", True), ("BUS", True), ("KILL", False)])
async def test_a_child_that_lacks_memory_is_told_by_how_it_ends(tmp_path, monkeypatch, ends, short):
    """An allocator aborts, and native code that does not look at what it was given reads from nowhere."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = f"import os, signal\ndef child(): os.kill(os.getpid(), signal.SIG{ends})\n"
    (tmp_path / "ending_child.py").write_text(code)
    answer = await apart.run_apart("ending_child", b"{}", wanted=apart.LEAST)
    assert answer["signal"] == signal.Signals[f"SIG{ends}"]
    assert apart.lacked_memory(answer) is short


async def test_a_child_that_is_given_up_keeps_nobody_waiting_behind_it(monkeypatch):
    """It wanted all the memory, and so stood in front until the one that ran had ended."""
    monkeypatch.setattr(apart._Account, "room", staticmethod(lambda: 256 * 2**20))
    account, inside, ends = apart._Account(), [], asyncio.Event()

    async def child(name, wanted):
        async with account.permit(wanted, ()):
            inside.append(name)
            await ends.wait()

    tasks = [asyncio.create_task(child(*each)) for each in (("first", 2**27), ("all", None), ("small", 2**26))]
    await until_true(lambda: inside == ["first"], "the first is in", pause=0)
    await asyncio.sleep(0)
    assert inside == ["first"]
    tasks[1].cancel()
    await until_true(lambda: inside == ["first", "small"], "the one behind it is in", pause=0)
    ends.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert account._running == account._taken == 0
