"""A module that is not what the guest ABI asks for is refused when it is loaded, in one sentence."""

from __future__ import annotations

import pytest
import wasmtime
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline_api.abi import HOST_FUNCTIONS, WASI_FUNCTIONS
from hookline_api.bundle import Bundle
from hookline_api.hooks import Hook
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.inspection import ModuleInfo, inspect_module
from hookline_runtime import runtime as runtime_module
from hookline_runtime.guest.engine import compile_to
from hookline_runtime.runtime import PrepareError, Runtime

_TYPES = {"i": "i32", "I": "i64", "f": "f32", "F": "f64"}


def _refusal(text: str | bytes) -> str:
    with pytest.raises(VerifyError) as refused:
        inspect_module(bytes(wasmtime.wat2wasm(text)) if isinstance(text, str) else text)
    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("data", [b"", b"\0as", b"\x7fELF and more", b"<html>404</html>", b"\0" * 64])
def test_bytes_that_are_no_webassembly_are_refused_as_such(data):
    """Whatever a registry or a web server answered instead of a module."""
    assert "not a WebAssembly module" in _refusal(data)


def test_a_component_of_another_world_is_refused():
    """Hookline runs those of hookline:plugin."""
    message = _refusal(bytes(wasmtime.wat2wasm("(component)")))
    assert message == (
        "the component does not export 'call': func(hook: string, input: string) -> string; "
        "it is not of the world hookline:plugin"
    )


def test_a_module_of_an_unknown_version_is_refused():
    """The version is named, because nothing after it can be believed."""
    assert "02000000" in _refusal(b"\0asm\x02\0\0\0")


def test_a_module_that_is_cut_off_is_refused(wat):
    """At every length: each prefix is refused, and the whole is taken."""
    wasm = bytes(wasmtime.wat2wasm(wat.module(hooks={"pre_query": wat.no_answer})))
    # Code and data come last, and inspection does not need them; the compiler does.
    whole = inspect_module(wasm)
    for length in range(len(wasm)):
        try:
            assert inspect_module(wasm[:length]).hooks == whole.hooks
        except VerifyError as error:
            assert str(error)  # noqa: PT017 - most prefixes are refused, and none does anything else


def test_what_inspection_lets_through_of_a_cut_module_is_whole_or_refused_by_the_compiler(wat, tmp_path):
    """Inspection does not read code. A cut that compiles is one between sections, behind the code."""
    wasm = bytes(wasmtime.wat2wasm(wat.module(answers={"pre_query": {"action": "continue"}})))
    compiled = []
    for length in range(8, len(wasm)):
        try:
            inspect_module(wasm[:length])
            compile_to(wasm[:length], tmp_path / "out", fuel=False)
        except VerifyError:
            continue
        compiled.append(length)
    assert all(wasm[length] in {0, 11} for length in compiled)  # a custom section or the data begins there
    assert len(compiled) <= 2


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"memory": "(memory 2)"}, "'memory'"),
        ({"memory": '(memory 2) (global (export "memory") i32 (i32.const 0))'}, "'memory'"),
        ({"alloc": ""}, "'alloc'"),
        ({"alloc": '(func (export "alloc") (param i64) (result i32) unreachable)'}, "(i32) -> i32"),
        ({"alloc": '(func (export "alloc") (param i32))'}, "(i32) -> i32"),
        ({"alloc": '(global (export "alloc") i32 (i32.const 0))'}, "a global"),
        ({"dealloc": '(func (export "dealloc") (param i32))'}, "'dealloc'"),
        ({"dealloc": '(func (export "dealloc") (param i32 i32) (result i32) unreachable)'}, "'dealloc'"),
        ({"dealloc": '(func (export "_initialize") (result i32) unreachable)'}, "'_initialize'"),
        ({"dealloc": '(table (export "_initialize") 1 funcref)'}, "a table"),
    ],
)
def test_a_missing_or_wrong_typed_export_is_refused_by_name(wat, parts, says):
    """Each export of the ABI, missing and of the wrong type."""
    assert says in _refusal(wat.module(hooks={"route": wat.no_answer}, **parts))


@pytest.mark.parametrize("hook", Hook)
def test_a_hook_of_another_type_is_refused_by_name(wat, hook):
    """A hook that cannot be called must not be left out in silence."""
    wrong = f'(func (export "{hook}") (param i32) (result i64) (i64.const 0))'
    message = _refusal(wat.module(wrong))
    assert f"'{hook}'" in message
    assert "(i32) -> i64" in message


def test_a_module_without_any_hook_is_refused_with_the_names_of_the_hooks(wat):
    """It would be shown as running and never be called."""
    message = _refusal(wat.module())
    assert all(hook.value in message for hook in Hook)


@pytest.mark.parametrize(
    ("imported", "named"),
    [
        ('(import "env" "kv_steal" (func))', "'env.kv_steal'"),
        ('(import "hookline" "tcp_dial" (func (param i32 i32) (result i64)))', "'hookline.tcp_dial'"),
        ('(import "wasi_snapshot_preview1" "sock_open" (func))', "'wasi_snapshot_preview1.sock_open'"),
        ('(import "wasi_unstable" "fd_write" (func))', "'wasi_unstable.fd_write'"),
        ('(import "env" "memory" (memory 1))', "the memory 'env.memory'"),
        ('(import "env" "kv_get" (global i32))', "the global 'env.kv_get'"),
        ('(import "env" "table" (table 1 funcref))', "the table 'env.table'"),
    ],
)
def test_an_import_that_the_host_does_not_have_is_refused_by_name(wat, imported, named):
    """Unknown names, and anything that is not a function."""
    memory = '(memory (export "memory") 1)' if "(memory" not in imported else ""
    assert named in _refusal(wat.module(imports=imported, memory=memory, hooks={"route": wat.no_answer}))


@pytest.mark.parametrize("key", HOST_FUNCTIONS, ids=".".join)
def test_an_import_with_a_wrong_type_is_refused_and_with_the_right_one_taken(wat, key):
    """Each host function; the message shows both types."""
    function = HOST_FUNCTIONS[key]
    params = " ".join(_TYPES[letter] for letter in function.params)
    right = wat.host(*key, params, _TYPES[function.results])
    info = inspect_module(bytes(wasmtime.wat2wasm(wat.module(imports=right, hooks={"route": wat.no_answer}))))
    assert info.permissions == ({function.permission.value} if function.permission else frozenset())
    message = _refusal(
        wat.module(imports=wat.host(*key, params + " i64", _TYPES[function.results]), hooks={"route": "(i64.const 0)"})
    )
    assert ".".join(key) in message


def test_every_wasi_function_that_inspection_lets_through_can_be_linked():
    """The list of names and wasmtime's own agree, so that the operator accepts what a sidecar can load."""
    linker = wasmtime.Linker(wasmtime.Engine())
    linker.define_wasi()
    store = wasmtime.Store(linker.engine)
    for name in sorted(WASI_FUNCTIONS):
        linker.get(store, "wasi_snapshot_preview1", name)


async def test_a_wasi_import_with_a_wrong_type_is_refused_when_the_module_is_linked(workshop, wat):
    """Inspection knows WASI's names, wasmtime knows its types."""
    wrong = '(import "wasi_snapshot_preview1" "fd_write" (func (param i64)))'
    entry = await workshop.plugin(wat.module(imports=wrong, hooks={"route": wat.no_answer}))
    with pytest.raises(PrepareError, match="cannot be linked") as refused:
        await workshop.run(entry)
    assert isinstance(refused.value.reason, VerifyError)


@pytest.mark.parametrize(
    "text",
    [
        '(module (memory (export "memory") i64 1))',
        '(module (memory (export "memory") 1 1 shared))',
        '(module (memory (export "memory") 1) (memory 1))',
    ],
)
def test_memories_of_other_kinds_never_become_compiled_code(wat, tmp_path, text):
    """64-bit, shared and several memories escape the guest ABI or the memory limit."""
    rest = wat.module(hooks={"route": wat.no_answer}, memory="").removeprefix("(module")
    wasm = bytes(wasmtime.wat2wasm(text.removesuffix(")") + rest))
    with pytest.raises(VerifyError):  # noqa: PT012 - either of the two may refuse it
        inspect_module(wasm)
        compile_to(wasm, tmp_path / "out", fuel=False)


@pytest.mark.parametrize(
    "part", ["(start $spin) (func $spin (loop $l (br $l)))", '(func (export "_initialize") (loop $l (br $l)))']
)
async def test_a_start_function_that_loops_is_cut_and_the_module_refused(workshop, wat, monkeypatch, part):
    """The time of the first instance is bounded, and the message says by how much."""
    monkeypatch.setattr(runtime_module, "_FIRST_INSTANCE_MS", 60)
    entry = await workshop.plugin(wat.module(part, hooks={"route": wat.no_answer}))
    with pytest.raises(PrepareError, match=r"plugin 'guest'.*60 ms") as refused:
        await workshop.run(entry)
    assert isinstance(refused.value.reason, VerifyError)


@pytest.mark.parametrize("part", ["(start $no) (func $no unreachable)", '(func (export "_initialize") unreachable)'])
async def test_a_start_function_that_traps_gets_the_module_refused(workshop, wat, part):
    """Each of its calls would fail; better the load does."""
    entry = await workshop.plugin(wat.module(part, hooks={"route": wat.no_answer}))
    with pytest.raises(PrepareError, match="unreachable"):
        await workshop.run(entry)


async def test_a_bad_module_leaves_the_running_bundle_alone(workshop, wat):
    """Nothing of a bundle is changed before all of it is loaded."""
    runtime = await workshop.guest(wat.configured(), config={"custom_hook": 1}, permissions=["config.read"])
    before = runtime.bundle
    bad = await workshop.plugin(wat.module("(start $no) (func $no unreachable)", hooks={"route": wat.no_answer}), "bad")
    with pytest.raises(PrepareError):
        await runtime.load(Bundle.of([*before.plugins, bad]), workshop.find)
    assert runtime.bundle is before
    assert (await runtime.call(Hook.CUSTOM, b"0"))["value"] == 1


def _sample() -> bytes:
    return bytes(
        wasmtime.wat2wasm(
            """(module
            (import "env" "kv_get" (func (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
            (@custom "hookline.plugin" "{\\"name\\": \\"sample\\"}")
            (memory (export "memory") 1 2) (table 1 funcref) (global i32 (i32.const 1))
            (func (export "alloc") (param i32) (result i32) (i32.const 8))
            (func (export "pre_query") (param i32 i32) (result i64) (i64.const 0))
            (func (export "post_query") (param i32 i32)))"""
        )
    )


def test_the_border_of_a_module_is_read_without_an_engine():
    """Hooks, imports, permissions, memory and the plugin's own description."""
    info = inspect_module(_sample())
    assert info.hooks == (Hook.PRE_QUERY, Hook.POST_QUERY)
    assert [(entry.module, entry.name) for entry in info.imports] == [
        ("env", "kv_get"),
        ("wasi_snapshot_preview1", "proc_exit"),
    ]
    assert info.permissions == {"kv.read"}
    assert info.needs_wasi
    assert info.memory_pages == 1
    assert info.description == b'{"name": "sample"}'


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_any_mutation_of_a_module_is_refused_or_read_and_nothing_else(data):
    """Cut, overwritten, with pieces put in: a VerifyError or a sound description, never another exception."""
    wasm = bytearray(_sample())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(wasm)))
        match data.draw(st.sampled_from(["cut", "set", "insert", "drop"])):
            case "cut":
                del wasm[at:]
            case "set":
                wasm[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4))
            case "insert":
                wasm[at:at] = data.draw(st.sampled_from([b"\xff\xff\xff\xff\x0f", b"\0" * 9, b"\x80" * 12, b"\x07"]))
            case "drop":
                del wasm[at : at + 3]
    try:
        info = inspect_module(bytes(wasm))
    except VerifyError as error:
        assert "\n" not in str(error)  # noqa: PT017 - one of two good ends
    else:
        assert isinstance(info, ModuleInfo)
        assert info.hooks


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_behind_the_magic_number_are_refused(tail):
    """Nothing that is short and random is a plugin."""
    with pytest.raises(VerifyError):
        inspect_module(b"\0asm\x01\0\0\0" + tail)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_mutated_module_never_loads_as_something_that_inspection_did_not_see(data, tmp_path_factory):
    """What compiles after a mutation is judged again by what the engine says of it."""
    wasm = bytearray(_sample())
    at = data.draw(st.integers(8, len(wasm) - 1))
    wasm[at] = data.draw(st.integers(0, 255))
    target = tmp_path_factory.mktemp("mutated") / "out"
    try:
        info = inspect_module(bytes(wasm))
        compile_to(bytes(wasm), target, fuel=False)
    except VerifyError:
        return
    from hookline_api.resources import Limits
    from hookline_runtime.guest.calls import Guest
    from hookline_runtime.guest.engine import load_compiled

    host = dict.fromkeys(HOST_FUNCTIONS, lambda *_: 0)
    try:
        guest = Guest(load_compiled(target, fuel=False), limits=Limits(), host=host)
    except VerifyError:
        return
    assert guest.info.hooks == info.hooks
    assert guest.info.memory_pages == info.memory_pages


def test_a_runtime_without_a_bundle_says_so():
    """A call before the first load is a mistake of the embedding program."""
    runtime = Runtime()
    assert runtime.bundle is None
    assert dict(runtime.plugins) == {}
    with pytest.raises(RuntimeError, match="no bundle"):
        _ = runtime.chains
    runtime._ticker.stop()
