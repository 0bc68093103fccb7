"""What a guest writes to standard output and standard error is in its log, with the bounds of ``log``."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline_api.bundle import BundlePlugin
from hookline_api.hooks import Hook
from hookline_runtime.errors import TrapError
from hookline_runtime.guest.said import MAX_KEPT, Said
from hookline_runtime.host import guest_log
from hookline_runtime.host.guest_log import GuestLog
from host_calls import Memory

WASI = ("wasi_snapshot_preview1", "fd_write")


@pytest.fixture
def still(monkeypatch):
    """The log's second does not end."""
    monkeypatch.setattr(guest_log, "time", SimpleNamespace(monotonic=lambda: 1.0))


async def test_standard_output_is_information_and_standard_error_a_warning(workshop, talkers, lines):
    """Each line is one of the log, with the plugin's name, like those of ``log``."""
    text = talkers.module(("out", b"one\ntwo\n"), ("err", b"three\n"), (4, b"four"))
    assert (await workshop.ask(text))["action"] == "empty"
    assert lines() == ["INFO guest: one", "INFO guest: two", "WARNING guest: three", "ERROR guest: four"]


async def test_a_line_may_be_written_in_pieces(workshop, talkers, lines):
    """As Go writes a panic's; the two streams do not mix, and an empty line is none."""
    text = talkers.module(("err", b"panic: "), ("out", b"o"), ("err", b"bo"), ("err", b"om\n\n \n"), ("out", b"k\r\n"))
    await workshop.ask(text)
    assert lines() == ["WARNING guest: panic: boom", "INFO guest: ok"]


@pytest.mark.parametrize("mode", ["PerCall", "Pooled"])
async def test_a_line_that_does_not_end_is_logged_with_its_call(workshop, talkers, lines, mode):
    """What the next call writes is not added to it."""
    runtime = await workshop.guest(talkers.module(("err", b"half")), isolation={"mode": mode})
    for _ in range(2):
        await runtime.call(Hook.CUSTOM, b"0")
    await runtime.close()
    assert lines() == ["WARNING guest: half"] * 2


@pytest.mark.parametrize("mode", ["PerCall", "Pooled"])
async def test_a_line_that_a_trap_cuts_off_is_logged(workshop, talkers, lines, mode):
    """It is the one that matters."""
    text = talkers.module(("err", b"half"), then="unreachable")
    assert (await workshop.ask(text, isolation={"mode": mode}))["failure"] == "trap"
    assert lines() == ["WARNING guest: half"]


async def test_no_line_of_a_guest_forges_one_of_the_log(workshop, talkers, lines):
    """Carriage returns, escapes, bytes that are not text: what ``log`` escapes is escaped here too."""
    await workshop.ask(talkers.module(("out", b"a\rWARNING hookline b\x1b[31m\x00\xff\xe2\x80\xa8 \xc3\xa9\n")))
    (line,) = lines()
    assert line.startswith("INFO guest: a\\rWARNING")
    assert line.isascii()
    assert line.isprintable()


def test_a_long_line_is_cut_and_goes_on_in_no_second_one(host, lines):
    """4 KiB of it are logged, also where it comes in pieces."""
    log, said = host().log, Said()
    for _ in range(10):
        assert log.write(said, 1, b"x" * 1000)
    assert log.write(said, 1, b"\nend\n")
    assert [len(line) for line in lines()] == [len("INFO guest: ") + 4096, len("INFO guest: end")]


@given(
    data=st.text(alphabet="ab\n\r \x1b\u2028é", max_size=40).map(str.encode),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
def test_how_a_guest_cuts_what_it_writes_changes_nothing(data, cuts):
    """In whichever pieces the bytes come: the same lines, and the same last words."""
    told, said = [], []
    for at in ([], sorted(cuts)):
        log, diary, heard = GuestLog(BundlePlugin(name="guest")), Said(), []
        log.say = lambda diary, level, line, heard=heard: (
            heard.append((level, line)) or diary.hear(line, loud=True) or True
        )
        for begin, end in pairwise([0, *at, len(data)]):
            assert log.write(diary, 2, data[begin:end])
        error = TrapError("custom_hook trapped")
        diary.tell(error)
        told.append(heard)
        said.append((error.line, error.why))
    assert told[0] == told[1]
    assert said[0] == said[1]
    assert [line for _, line in told[0]] == [each.rstrip() for each in data.split(b"\n") if each.strip()]


@pytest.mark.usefixtures("still")
def test_all_ways_to_write_have_one_budget(host, lines):
    """Twenty lines a second of ``log`` and both streams together; what is not logged is counted."""
    made = host()
    functions, memory = made.functions(), Memory()
    memory.put(0, b"\x10\0\0\0\2\0\0\0" + bytes(8) + b"x\n")
    assert [functions[WASI](memory, 1 + number % 2, 0, 1, 8) for number in range(15)] == [0] * 15
    answers = [functions["hookline", "log"](memory, 2, 16, 1) for _ in range(10)]
    assert (answers.count(0), len(lines())) == (5, 20)
    assert functions[WASI](memory, 2, 0, 1, 8) == 0
    assert made.refused == {"log": 5, "fd_write": 1}
    assert len(lines()) == 20


@pytest.mark.usefixtures("still")
def test_a_call_of_it_looks_at_so_many_bytes_and_lines(host, lines):
    """The rest counts as written: no deadline sees into a host function."""
    made = host()
    memory = Memory(200_000)
    memory.put(0, (1000).to_bytes(4, "little") + (150_000).to_bytes(4, "little"))
    memory.put(1000, b"\n".join(b"%d" % number for number in range(40_000)))
    assert made.functions()[WASI](memory, 2, 0, 1, 8) == 0
    assert int.from_bytes(memory.read(8, 4), "little") == 150_000
    assert len(lines()) == 20
    assert made.refused == {"fd_write": 1}


def test_little_is_kept_of_what_a_guest_says(host):
    """However long its lines are, and however many it does not end."""
    log, said = host().log, Said()
    log.write(said, 1, b"x" * 60_000)
    log.write(said, 2, b"y" * 60_000)
    assert len(said.unfinished(1)) == len(said.unfinished(2)) == 4096
    said.hear(b"z" * 60_000, loud=True)
    error = TrapError("custom_hook trapped")
    said.tell(error)
    assert len(error.line) == len(error.why) == MAX_KEPT


@pytest.mark.parametrize(
    ("descriptor", "vectors", "count", "written", "errno"),
    [
        (1, 0, 1, 8, 0),
        (1, 0, 0, 8, 0),
        (2, 1000, 1024, 16_000, 0),
        (0, 0, 1, 8, 8),
        (3, 0, 1, 8, 8),
        (-1, 0, 1, 8, 8),
        (1, 0, 1025, 8, 28),
        (1, 0, -1, 8, 28),
        (1, -8, 1, 8, 21),
        (1, 0, 1, -4, 21),
        (1, 24, 1, 8, 21),
        (1, 32, 2, 8, 28),
    ],
)
def test_its_pointers_and_its_count_are_checked(host, descriptor, vectors, count, written, errno):
    """It is our own, so its bounds are ours to keep."""
    memory = Memory(100_000)
    memory.put(0, b"\x10\0\0\0\2\0\0\0")
    memory.put(24, b"\xff\xff\xff\xff\1\0\0\0")
    memory.put(32, b"\0\0\0\0\0\x40\1\0" + b"\0\0\0\0\xff\xff\xff\xff")
    function = host().functions()[WASI]
    assert function(memory, descriptor, vectors, count, written) == errno


async def test_calls_on_threads_keep_their_lines_apart(workshop, talkers, lines):
    """Two at a time do not add to each other's."""
    text = talkers.module(("err", b"one "), ("err", b"two "), ("err", b"three\n"))
    runtime = await workshop.guest(text, limits={"timeout": "5s"})
    await asyncio.gather(*(runtime.call(Hook.CUSTOM, b"0") for _ in range(10)))
    assert lines() == ["WARNING guest: one two three"] * 10


async def test_the_values_of_secrets_are_not_in_what_is_written(workshop, talkers, lines):
    """As in ``log``, where a guest writes its settings by mistake; in pieces, too."""
    text = talkers.module(("out", b"the token is hunter"), ("out", b"2-s3cret\n"))
    await workshop.ask(text, config={"token": "hunter2-s3cret"}, secretPaths=["token"])
    (line,) = lines()
    assert "hunter2" not in line
    assert line.startswith("INFO guest: the token is ")


@pytest.mark.parametrize("ends", [b"x" * 60_000, b"\n" * 60_000, b"x\n" * 30_000])
async def test_a_guest_that_writes_without_end_is_cut_by_its_deadline(workshop, talkers, wat, lines, ends):
    """What its writing takes is its own time, and what it leaves behind is twenty lines a second and two lines."""
    body, data = talkers.says(("err", ends), at=4096)
    text = talkers.module(("err", b"")).split("(memory", 1)[0].split("(module", 1)[1]
    text = wat.module(imports=text, data=data, hooks={"custom_hook": f"(loop $ever {body} (br $ever)) (i64.const 0)"})
    runtime = await workshop.guest(text, limits={"timeout": "50ms"})
    begin = time.monotonic()
    assert (await runtime.call(Hook.CUSTOM, b"0"))["failure"] == "timeout"
    seconds = int(time.monotonic() - begin) + 2
    failure = runtime.plugins["guest"].last_failure
    assert failure.line in {None, "x", "x" * MAX_KEPT}
    assert failure.backtrace == ("custom_hook",)
    assert len(lines()) <= 20 * seconds + 1
