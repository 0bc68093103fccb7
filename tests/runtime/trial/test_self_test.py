"""A version is asked its own cases in a child process, and only one that answers them as they say may go on."""

from __future__ import annotations

import hashlib
import json

import pytest
import wasmtime

from hookline_api.bundle import BundleArtifact, BundlePlugin
from hookline_artifacts import apart
from hookline_artifacts.errors import FetchError, SelfTestError
from hookline_artifacts.module.annotate import with_sections
from hookline_artifacts.module.inspection import inspect_module
from hookline_runtime.guest.compiler import Compiler, Job
from hookline_runtime.guest.sealed import SealedFile
from hookline_runtime.trial import self_test
from hookline_runtime.trial.self_test import SelfTests

HOLDS = [{"name": "it answers", "hook": "custom_hook", "input": 1, "expect": {"action": "answered", "value": "yes"}}]
FOREVER = "(loop $ever (br $ever)) (i64.const 0)"
GREEDY = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable"
TAKES_32_MIB = """
(if (i32.eq (memory.grow (i32.const 512)) (i32.const -1)) (then unreachable))
(memory.fill (i32.const 131072) (i32.const 7) (i32.const 33554432)) (i64.const 0)
"""


class Bench:
    """Compiles versions, and asks them their cases."""

    def __init__(self, folder, *, key=None, cases_s=self_test.CASES_S):
        self.folder = folder
        self.compiler = Compiler(folder / "compiled", key=key)
        self.tests = SelfTests(self.compiler, folder / "compiled", cases_s=cases_s)

    def version(self, text, cases, **settings):
        """An entry, and its module's file; ``cases`` are a document, or its bytes."""
        wasm = bytes(wasmtime.wat2wasm(text)) if isinstance(text, str) else text
        document = cases if isinstance(cases, bytes) else json.dumps(cases).encode()
        wasm = with_sections(wasm, {"hookline.cases": document})
        info = inspect_module(wasm)
        sha256 = hashlib.sha256(wasm).hexdigest()
        path = self.folder / f"{sha256}.wasm"
        path.write_bytes(wasm)
        artifact = BundleArtifact(
            digest=f"sha256:{sha256}", sha256=sha256, size=len(wasm), layout="file", reference="x"
        )
        return BundlePlugin.model_validate({"name": "guest", "artifact": artifact, **settings}), path, info

    async def ask(self, text, cases, **settings):
        """Compile a version and ask it."""
        entry, path, info = self.version(text, cases, **settings)
        await self.compiler.prepare(Job(wasm=path, sha256=entry.artifact.sha256, fuel=entry.limits.fuel is not None))
        await self.tests.hold(entry, path, hooks=info.hooks, asks=info.permissions)

    async def refused(self, text, cases, **settings):
        """The sentence with which it is refused."""
        with pytest.raises(SelfTestError) as caught:
            await self.ask(text, cases, **settings)
        return str(caught.value)


@pytest.fixture
def bench(tmp_path):
    """With a key, as a sidecar has one."""
    return Bench(tmp_path, key=b"k" * 32)


def yes(wat):
    """A module whose custom hook answers "yes"."""
    return wat.module(answers={"custom_hook": b'"yes"'})


async def test_a_version_that_answers_its_cases_goes_on(bench, wat) -> None:
    """And what answers anything else is refused, with the case's name and what was found."""
    await bench.ask(yes(wat), HOLDS)
    told = await bench.refused(wat.module(answers={"custom_hook": b'"no"'}), HOLDS)
    assert told == 'its own case \'it answers\' does not hold: value is "no", and should be "yes"'


async def test_without_a_key_the_compiled_file_itself_is_asked(tmp_path, wat) -> None:
    """As in a program that embeds the runtime, and seals nothing."""
    bench = Bench(tmp_path)
    await bench.ask(yes(wat), HOLDS)
    assert "does not hold" in await bench.refused(wat.module(answers={"custom_hook": b"2"}), HOLDS)


async def test_where_a_system_lends_no_copy_the_child_compiles(bench, wat, monkeypatch) -> None:
    """It has the module's bytes, and checks them."""
    monkeypatch.setattr(SealedFile, "copy", lambda _: None)
    await bench.ask(yes(wat), HOLDS)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(FOREVER, "the call failed (timeout)", id="loops for ever"),
        pytest.param("unreachable", "the call failed (trap)", id="traps"),
        pytest.param(GREEDY, "the call failed (trap)", id="takes all memory"),
        pytest.param("(i64.const -1)", "the call failed (result)", id="answers from nowhere"),
        pytest.param("(i64.const 0)", 'action is "empty"', id="has no opinion"),
    ],
)
async def test_a_call_that_fails_is_a_case_that_does_not_hold(bench, wat, body, said) -> None:
    """Whatever a guest does, it is one sentence, and this process goes on."""
    told = await bench.refused(wat.module(hooks={"custom_hook": body}), HOLDS)
    assert told.startswith("its own case 'it answers' does not hold: ")
    assert said in told


async def test_a_case_may_ask_for_a_failure(bench, wat) -> None:
    """By its cause; and one that does not come is a case that does not hold."""
    case = {"name": "it is cut", "hook": "custom_hook", "input": 1, "failure": "timeout"}
    await bench.ask(wat.module(hooks={"custom_hook": FOREVER}), [case])
    told = await bench.refused(yes(wat), [case])
    assert told.endswith("the call should fail with the cause 'timeout', and does not fail")


async def test_all_cases_have_one_bound_of_processor_time(tmp_path, wat) -> None:
    """Each is within its own limit, and together they are not: a sentence says so, and it is remembered."""
    bench = Bench(tmp_path, key=b"k", cases_s=1)
    case = {"name": "slow", "hook": "custom_hook", "input": 1, "failure": "timeout", "limits": {"timeout": "60s"}}
    told = await bench.refused(wat.module(hooks={"custom_hook": FOREVER}), [case])
    assert told.startswith("its own cases took more than 1 s of a core")


async def test_a_module_that_lacks_memory_in_the_child_is_asked_once_more_with_more(bench, wat, monkeypatch) -> None:
    """A guest that fails where memory is short, and not where its limits are kept, is a good version."""
    monkeypatch.setattr(self_test, "MEMORY", 70 * 2**20)
    takes = wat.module(hooks={"custom_hook": TAKES_32_MIB}, answers={"metrics": b"0"})
    case = {"name": "it has room", "hook": "custom_hook", "input": 1, "expect": {"action": "empty"}}
    await bench.ask(takes, [case])


@pytest.mark.parametrize("mib", range(64, 112, 6))
async def test_however_a_child_ends_for_want_of_memory_it_is_asked_once_more_with_more(bench, wat, monkeypatch, mib):
    """A guest may trap, a library may end it by a signal, a thread may not start: none of it is the version's."""
    monkeypatch.setattr(self_test, "MEMORY", mib * 2**20)
    case = {"hook": "custom_hook", "input": "a:" * 2**14, "expect": {"action": "empty"}}
    cases = [{**case, "name": f"it has room {number}"} for number in range(3)]
    await bench.ask(wat.module(hooks={"custom_hook": TAKES_32_MIB}), cases)


async def test_what_fails_for_want_of_memory_is_not_remembered(bench, wat, monkeypatch) -> None:
    """It is refused with a sentence about the sidecar, and asked again: there may be room for it then."""
    case = {"name": "it has room", "hook": "custom_hook", "input": 1, "expect": {"action": "empty"}}
    takes = wat.module(hooks={"custom_hook": TAKES_32_MIB})
    with monkeypatch.context() as patched:
        patched.setattr(apart._Account, "room", staticmethod(lambda: 70 * 2**20))
        assert "give the sidecar more memory" in await bench.refused(takes, [case])
    await bench.ask(takes, [case])


async def test_what_was_found_is_remembered_over_a_restart(tmp_path, wat, monkeypatch) -> None:
    """A pass and a failure, each once; and again where the limits, the isolation or the version are others."""
    first = Bench(tmp_path, key=b"k")
    bad = wat.module(answers={"custom_hook": b'"no"'})
    await first.ask(yes(wat), HOLDS)
    told = await first.refused(bad, HOLDS)
    runs = []

    async def counted(*arguments, **options):
        runs.append(arguments)
        return await apart.run_apart(*arguments, **options)

    monkeypatch.setattr(self_test, "run_apart", counted)
    again = Bench(tmp_path, key=b"k")
    await again.ask(yes(wat), HOLDS)
    assert await again.refused(bad, HOLDS) == f"{told} (it is not asked again before it changes)"
    assert runs == []
    await again.ask(yes(wat), HOLDS, config={"a": 1}, priority=7, mode="Shadow")
    assert runs == []
    await again.ask(yes(wat), HOLDS, limits={"timeout": "2s"})
    await again.ask(yes(wat), HOLDS, isolation={"mode": "Pooled"})
    assert len(runs) == 2
    monkeypatch.setattr(self_test, "_VERSION", "another")
    await again.ask(yes(wat), HOLDS)
    assert len(runs) == 3


async def test_what_somebody_else_wrote_is_not_believed(tmp_path, wat) -> None:
    """Whoever can write into the state folder has no key: what he says holds is asked."""
    bad = wat.module(answers={"custom_hook": b'"no"'})
    first = Bench(tmp_path, key=b"k")
    await first.refused(bad, HOLDS)
    kept = tmp_path / "compiled-tested.json"
    found = json.loads(kept.read_bytes())
    kept.write_text(json.dumps({key: ["", tag] for key, (_, tag) in found.items()}))
    told = await Bench(tmp_path, key=b"k").refused(bad, HOLDS)
    assert "not asked again" not in told


@pytest.mark.parametrize("raw", [b"", b"[1]", b'{"a": 1}', b'{"a": [1, 2]}', b"\xff", b"[" * 100_000])
def test_a_file_of_results_that_cannot_be_read_is_none(tmp_path, raw) -> None:
    """What it held is found out anew."""
    (tmp_path / "compiled-tested.json").write_bytes(raw)
    assert Bench(tmp_path, key=b"k").tests._found.find("a") is None


async def test_a_module_that_is_swapped_is_not_asked(bench, wat) -> None:
    """The bytes of the file are those that were checked, or it is fetched anew; the compiled form bears the seal."""
    entry, path, info = bench.version(yes(wat), HOLDS)
    await bench.compiler.prepare(Job(wasm=path, sha256=entry.artifact.sha256, fuel=False))
    good = path.read_bytes()
    path.write_bytes(with_sections(good, {"hookline.cases": json.dumps(HOLDS[:1]).encode() + b" "}))
    with pytest.raises(FetchError, match="not the one that was checked"):
        await bench.tests.hold(entry, path, hooks=info.hooks, asks=info.permissions)


async def test_a_compiled_form_that_is_swapped_is_not_asked(bench, wat) -> None:
    """Without the seal nothing of it runs: the child compiles the bytes that it has checked."""
    entry, path, info = bench.version(yes(wat), HOLDS)
    compiled = await bench.compiler.prepare(Job(wasm=path, sha256=entry.artifact.sha256, fuel=False))
    code = bytearray(compiled.read_bytes())
    code[len(code) // 2] ^= 1
    compiled.write_bytes(code)
    await bench.tests.hold(entry, path, hooks=info.hooks, asks=info.permissions)


async def test_a_resource_is_not_what_cases_are_about(bench, wat) -> None:
    """Its match, its mode, its settings and its Secrets are not there; hooks and permissions are the module's."""
    configured = wat.configured()
    case = {
        "name": "its own settings", "hook": "route", "config": {"route": {"action": "primary"}},
        "input": {"query": "select 1"}, "expect": {"action": "primary"},
    }  # fmt: skip
    await bench.ask(
        configured, [case], hooks=["pre_query"], mode="Shadow", match={"databases": ["none"]}, permissions=[],
        config={"route": {"action": "standby"}}, secret_paths=["route.action"],
    )  # fmt: skip
    denied = case | {"permissions": [], "name": "denied", "expect": {"action": "default"}}
    told = await bench.refused(configured, [denied], permissions=["config.read"])
    assert told.startswith("its own case 'denied' does not hold: the call failed")


async def test_nobody_is_asked_and_stores_are_its_own(bench, wat) -> None:
    """A key that one case writes is not there for the next; a query is answered by the case."""
    stored = wat.module(
        imports=wat.host("env", "kv_get", "i32 i32 i32 i32", "i32")
        + wat.host("env", "kv_set", "i32 i32 i32 i32", "i32"),
        data={1024: b"k7"},
        hooks={
            "custom_hook": """
            (local.set $i (call $kv_get (i32.const 1024) (i32.const 1) (i32.const 2048) (i32.const 8)))
            (drop (call $kv_set (i32.const 1024) (i32.const 1) (i32.const 1025) (i32.const 1)))
            (if (i32.lt_s (local.get $i) (i32.const 0)) (then (return (i64.const 0))))
            (i64.const 8796093022209)"""
        },
    )
    empty, there = {"action": "empty"}, {"action": "answered"}
    steps = [{"hook": "custom_hook", "input": 1, "expect": each} for each in (empty, there)]
    cases = [{"name": name, "steps": steps} for name in ("one", "other")]
    cases.append({"name": "given", "kv": {"k": "1"}, "hook": "custom_hook", "input": 1, "expect": there})
    await bench.ask(stored, cases)


async def test_fifty_cases_take_one_child(bench, wat) -> None:
    """And each its own fresh plugin."""
    cases = [HOLDS[0] | {"name": f"case {number}"} for number in range(50)]
    await bench.ask(yes(wat), cases)
    cases[-1] = cases[-1] | {"expect": {"value": "no"}}
    assert (await bench.refused(yes(wat), cases)).startswith("its own case 'case 49' does not hold")


@pytest.mark.parametrize("mode", ["PerCall", "Pooled"])
async def test_a_version_is_asked_as_it_will_run(bench, wat, mode) -> None:
    """With its isolation and its fuel: a guest that counts its calls answers another thing where memory is kept."""
    counting = wat.module(
        hooks={
            "custom_hook": """(i32.store (i32.const 1024) (i32.add (i32.load (i32.const 1024)) (i32.const 1)))
            (call $number (i64.extend_i32_u (i32.load (i32.const 1024))))"""
        }
    )
    step = {"hook": "custom_hook", "input": 1}
    steps = [step | {"expect": {"value": 1}}, step | {"expect": {"value": 1 if mode == "PerCall" else 2}}]
    await bench.ask(counting, [{"name": "it counts", "steps": steps}], isolation={"mode": mode}, limits={"fuel": 10**6})


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"expect": {"k" * 200_000: 1}}, "k… is missing, and should be 1"),
        ({"expect": {"\x1b[2J\n": 1}}, "\\x1b[2J\\n is missing, and should be 1"),
        ({"expect": {"value": "\x9b2J\u202e"}}, 'value is "yes", and should be "\\x9b2J\\u202e"'),
        ({"kv": {"k" * 65_537: "x"}}, "its keys cannot be stored: a key has at most 65536 bytes"),
        ({"kv": {f"k{number}": "x" for number in range(1025)}}, "its keys cannot be stored: "),
    ],
)
async def test_a_case_that_means_ill_is_one_that_does_not_hold(bench, wat, more, told) -> None:
    """Its names and its keys are a stranger's: it is refused for good in one short line, and not asked ever again."""
    cases = [{**HOLDS[0], **more}]
    refused = await bench.refused(yes(wat), cases)
    assert told in refused
    assert len(refused) < 400
    assert "it is not asked again" in await bench.refused(yes(wat), cases)


async def test_cases_that_cannot_be_read_are_refused_and_no_fault_of_the_machine(bench, wat) -> None:
    """Nothing asks them; if something did, it would be told so, and not to try again."""
    assert (await bench.refused(yes(wat), b"[")).startswith("its own cases cannot be read: ")


@pytest.mark.parametrize("settings", [{}, {"limits": {"fuel": 1_000_000}}])
async def test_a_case_may_have_a_limit_of_fuel_where_the_resource_has_none(bench, wat, settings) -> None:
    """And the other way round: another compiled form is asked then, as at an author's desk."""
    fuelled = {**HOLDS[0], "limits": {"fuel": 100_000}}
    starved = {**HOLDS[0], "name": "too little", "limits": {"fuel": 1}, "expect": None, "failure": "timeout"}
    free = {**HOLDS[0], "name": "no fuel", "limits": {}}
    cases = [fuelled, {key: value for key, value in starved.items() if value is not None}, free]
    await bench.ask(yes(wat), cases, **settings)


async def test_a_child_leaves_no_files_behind_however_it_ends(tmp_path, wat, monkeypatch) -> None:
    """And it needs none but the state folder: a pod's root file system is read-only."""
    (tmp_path / "system").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "system"))
    state = tmp_path / "state"
    state.mkdir()
    (state / ".self-test-left" / "kv").mkdir(parents=True)
    bench = Bench(state, key=b"k" * 32, cases_s=1)
    told = await bench.refused(wat.module(hooks={"custom_hook": FOREVER}), HOLDS, limits={"timeout": "60s"})
    assert "more than 1 s of a core" in told
    assert list((tmp_path / "system").iterdir()) == []
    assert list(state.glob(".self-test-*")) == []
