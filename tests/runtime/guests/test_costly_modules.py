"""A module that compiles for minutes costs a bounded time, once, and holds up nobody else's."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
from dataclasses import replace

import pytest

from hookline_api.config import Config
from hookline_artifacts import apart, schema_check
from hookline_artifacts.child import CPU_S, FAILED
from hookline_artifacts.errors import FetchError, VerifyError
from hookline_runtime.guest import compiler as compiler_module
from hookline_runtime.guest.compiler import MAX_FAILED, Compiler, Job, compile_s

pytestmark = pytest.mark.slow  # each compiles in a child

MIB = 2**20


def leb(number):
    """A number as the binary format has it."""
    out = b""
    while True:
        number, low = number >> 7, number & 127
        if not number:
            return out + bytes([low])
        out += bytes([low | 128])


def costly(size, *, values=20_000, seed=1):
    """One function of some hundred kilobytes: loops between which thousands of locals live.

    Which of them is alive where is found anew for every place, so that what it takes grows with both.
    """
    pick, body = random.Random(seed), bytearray()

    def get():
        return b"\x20" + leb(pick.randrange(values))

    while len(body) < size:  # loop, local.get, local.set, local.get, br_if, end
        body += b"\x03\x40" + get() + b"\x21" + leb(pick.randrange(values)) + get() + b"\x0d\x00\x0b"
    code = leb(1) + leb(values) + b"\x7f" + bytes(body) + b"\x0b"

    def section(number, content):
        return bytes([number]) + leb(len(content)) + content

    return (
        b"\0asm\1\0\0\0"
        + section(1, b"\x01\x60\0\0")
        + section(3, b"\x01\0")
        + section(10, leb(1) + leb(len(code)) + code)
    )


def small(number):
    """Another module for each number, that compiles at once."""
    return b"\0asm\1\0\0\0" + bytes([0, 2, 1]) + bytes([97 + number])


@pytest.fixture
def job(tmp_path):
    """Writes a module; what to do with it."""

    def write(wasm, plugin="p"):
        path = tmp_path / f"{hashlib.sha256(wasm).hexdigest()}.wasm"
        path.write_bytes(wasm)
        return Job(wasm=path, sha256=path.stem, fuel=False, plugin=plugin)

    return write


@pytest.fixture
def runs(monkeypatch):
    """The children that were started, by what they were wanted for: bytes of memory, order."""
    seen, real = [], compiler_module.run_apart

    async def counted(module, request, **options):
        seen.append(options)
        return await real(module, request, **options)

    monkeypatch.setattr(compiler_module, "run_apart", counted)
    return seen


@pytest.fixture
def room(monkeypatch):
    """How much memory children have together; as much as there is, until somebody says less."""
    bytes_ = [4 * 2**30]
    monkeypatch.setattr(apart._Account, "room", staticmethod(lambda: bytes_[0]))
    return bytes_


@pytest.mark.usefixtures("room")
async def test_a_module_that_compiles_for_minutes_ends_within_its_bound_and_is_remembered(
    tmp_path, job, runs, monkeypatch
):
    """100 KiB would take minutes. It is told, and not compiled again: not at a retry, and not after a restart."""
    monkeypatch.setattr(compiler_module, "COMPILE_S", 1)
    monkeypatch.setattr(compiler_module, "MEMORY", 2 * 2**30)
    bad, compiler = job(costly(100 * 1024)), Compiler(tmp_path / "compiled")
    with pytest.raises(VerifyError, match=r"compiling took more than 1 s of a core, which is what a module of 10\d{4}"):
        await compiler.prepare(bad)
    assert len(runs) == 1
    for again in (compiler, Compiler(tmp_path / "compiled")):
        with pytest.raises(VerifyError, match="it is not compiled again before it changes"):
            await again.prepare(bad)
    assert len(runs) == 1
    await compiler.prepare(job(small(1)))
    assert len(runs) == 2
    monkeypatch.setattr(compiler_module, "_BOUND", "another bound")
    with pytest.raises(VerifyError):
        await Compiler(tmp_path / "compiled").prepare(bad)
    assert len(runs) == 3


async def test_what_takes_too_much_memory_is_tried_with_all_there_is_and_then_remembered(tmp_path, job, runs, room):
    """Until there is more of it; the sentence says how much there was."""
    room[0] = 96 * MIB
    bad, compiler = job(costly(20 * 1024)), Compiler(tmp_path / "compiled")
    with pytest.raises(VerifyError, match="more than the 96 MiB of memory that a compiler may have here"):
        await compiler.prepare(bad)
    assert [each.get("wanted") for each in runs] == [compiler_module.MEMORY + 64 * bad.wasm.stat().st_size, None]
    with pytest.raises(VerifyError, match="not compiled again"):
        await compiler.prepare(bad)
    assert len(runs) == 2
    room[0] = 100 * MIB
    with pytest.raises(VerifyError, match="more than the 100 MiB"):
        await compiler.prepare(bad)


async def test_a_module_that_is_not_valid_is_read_once(tmp_path, job, runs):
    """What is wrong with it stays wrong."""
    compiler, bad = Compiler(tmp_path / "compiled"), job(b"\0asm\1\0\0\0\xff")
    for _ in range(3):
        with pytest.raises(VerifyError, match="not valid WebAssembly"):
            await compiler.prepare(bad)
    assert len(runs) == 1


async def test_what_fails_because_of_the_machine_is_tried_again(tmp_path, job, monkeypatch):
    """A disk that is full, a child that somebody killed: the module is as good as it was."""
    compiler, good = Compiler(tmp_path / "compiled"), job(small(2))
    for answer in (
        {"cause": "verify", "message": f"{FAILED}No space left on device"},
        {"cause": apart.ENDED, "message": "it ended by signal 9", "signal": 9, "memory": MIB},
        {"cause": apart.ENDED, "message": "it was not done within 600 s"},
    ):
        with monkeypatch.context() as patched:

            async def failing(*_, answer=answer, **__):
                return answer

            patched.setattr(compiler_module, "run_apart", failing)
            with pytest.raises(VerifyError):
                await compiler.prepare(good)
    assert (await compiler.prepare(good)).exists()


async def test_a_small_module_is_compiled_beside_one_that_takes_long(tmp_path, job, room, monkeypatch):
    """Where there is memory for both; nobody waits for a module that is made to take long."""
    room[0] = 2**30
    monkeypatch.setattr(compiler_module, "MEMORY_PER_BYTE", 8000)
    compiler = Compiler(tmp_path / "compiled")
    long = asyncio.create_task(compiler.prepare(job(costly(100 * 1024), "bad")))
    await asyncio.sleep(0)
    assert (await compiler.prepare(job(small(3), "good"))).exists()
    assert not long.done()
    long.cancel()
    await asyncio.gather(long, return_exceptions=True)


async def test_those_that_never_failed_go_first_and_small_ones_before_large_ones(room):
    """One at a time here, since there is memory for one."""
    room[0] = 100 * MIB
    account, ended, go = apart._Account(), [], asyncio.Event()

    async def child(name, order):
        async with account.permit(None, order):
            await go.wait()
            ended.append(name)

    waiting = [
        asyncio.create_task(child(name, order))
        for name, order in (("first", (0, 5)), ("failed", (1, 1)), ("large", (0, 9)), ("small", (0, 2)))
    ]
    await asyncio.sleep(0)
    given_up = asyncio.create_task(child("nobody", (0, 0)))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    go.set()
    await asyncio.gather(*waiting)
    assert ended == ["first", "small", "large", "failed"]
    assert (account._running, account._taken, account._waiting) == (0, 0, [])


async def test_children_have_no_more_memory_together_than_there_is(room):
    """Two where both fit; and none, with a sentence, where not even one does."""
    account, inside, most = apart._Account(), [], []

    async def child(wanted):
        async with account.permit(wanted, ()) as size:
            inside.append(size)
            most.append((len(inside), sum(inside)))
            await asyncio.sleep(0)
            inside.remove(size)

    room[0] = 256 * MIB
    await asyncio.gather(*(child(100 * MIB) for _ in range(6)), child(200 * MIB), child(None))
    assert max(count for count, _ in most) == 2
    assert max(total for _, total in most) == 256 * MIB
    room[0] = 50 * MIB
    with pytest.raises(FetchError, match="takes 64Mi of memory at the least, and 50Mi are left"):
        await child(None)


async def test_a_plugin_whose_module_failed_goes_behind_until_one_compiles(tmp_path, job, runs):
    """By its name: another module of its makes it no first-comer."""
    compiler = Compiler(tmp_path / "compiled")
    for number, wasm in enumerate((b"\0asm\1\0\0\0\xff", b"\0asm\1\0\0\0\xfe")):
        with pytest.raises(VerifyError):
            await compiler.prepare(job(wasm))
        assert runs[-1]["order"] == (number, len(wasm))
    await compiler.prepare(job(small(4)))
    await compiler.prepare(job(small(5)))
    assert [each["order"][0] for each in runs] == [0, 1, 1, 0]


async def test_whoever_failed_last_goes_behind_however_many_failed_before(tmp_path, job, runs):
    """Names that came and went filled the memory for good, and whoever failed from then on went first."""
    compiler = Compiler(tmp_path / "compiled")
    compiler._behind = dict.fromkeys(f"gone-{each}" for each in range(MAX_FAILED))
    for wasm in (b"\0asm\1\0\0\0\xff", b"\0asm\1\0\0\0\xfe"):
        with pytest.raises(VerifyError):
            await compiler.prepare(job(wasm))
    assert [each["order"][0] for each in runs] == [0, 1]
    assert len(compiler._behind) == MAX_FAILED


async def test_settings_of_jobs_that_wait_are_bytes(tmp_path, job, monkeypatch):
    """A dozen jobs with a mebibyte of settings each waited with all of their objects: 30 MiB for each."""
    there = []

    async def waits(_module, request, **_):
        there.append(sum(1 for each in gc.get_objects() if type(each) is dict and each.get("marked") == []))
        assert b'"marked":' in request
        return {}

    monkeypatch.setattr(compiler_module, "run_apart", waits)
    monkeypatch.setattr(schema_check, "run_apart", waits)
    config = Config({"list": [{"marked": []} for _ in range(100)]})
    await Compiler(tmp_path / "compiled").prepare(replace(job(small(4)), config=config, schema={}))
    await schema_check.check_apart(config, {})
    assert there == [0, 0]


def test_what_is_remembered_is_bounded(tmp_path):
    """Whoever chooses many modules makes only the oldest forgotten; a file that is damaged is none."""
    compiler = Compiler(tmp_path / "compiled")
    for number in range(MAX_FAILED + 5):
        compiler._failed.add(f"{number}", "it is bad" * 1000, memory=None)
    again = Compiler(tmp_path / "compiled")._failed
    assert again.find("4") is None
    assert again.find("5").startswith("it is bad")
    assert (tmp_path / "compiled-failed.json").stat().st_size < MAX_FAILED * 2048
    (tmp_path / "compiled-failed.json").write_text('{"a": [1], "b": 5')
    assert Compiler(tmp_path / "compiled")._failed.find("5") is None


def test_the_bound_grows_with_the_module():
    """Ten times what toolchains' modules take, and a mebibyte no longer takes 105 seconds."""
    assert [compile_s(size) for size in (0, 20_000, MIB, 3 * MIB)] == [5, 5, 15, 35]
    assert compile_s(64 * MIB) == CPU_S, "what is told is what a child has"
