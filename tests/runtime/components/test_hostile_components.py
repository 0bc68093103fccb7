"""Components that mean ill: what is refused by its bytes, and what is bounded while it runs."""

from __future__ import annotations

import contextlib
import resource

import pytest
import wasmtime

from component_guests import ECHO, component, described
from hookline_api.component import FUNCTIONS, written_out
from hookline_api.hooks import Hook
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.inspection import inspect_module

SHELL = """
(core module $m
  (memory (export "memory") 1)
  (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 64))
  (func (export "call") (param i32 i32 i32 i32) (result i32) (i32.const 0)))
(core instance $i (instantiate $m))
(func (export "call") (param "hook" string) (param "input" string) (result string)
  (canon lift (core func $i "call") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
"""
POOLED = {"isolation": {"mode": "Pooled", "size": 1}}


def made(text: str) -> bytes:
    """A component of text, with a description."""
    return described(bytes(wasmtime.wat2wasm(f"(component {text})")))


def test_a_component_is_what_its_border_and_its_description_say() -> None:
    """Hooks are those that it declares; host functions those that it imports and declares a permission for."""
    wasm = component(uses=("kv-set", "log"), hooks=("route", "pre_query"), permissions=("kv.write",))
    info = inspect_module(wasm)
    assert info.is_component
    assert info.hooks == (Hook.ROUTE, Hook.PRE_QUERY)
    assert info.functions == ("env.kv_set", "hookline.log")
    assert info.permissions == {"kv.write"}
    assert inspect_module(component(uses=("kv-set",))).permissions == frozenset()


@pytest.mark.parametrize(
    ("outside", "message"),
    [
        ('(import "evil:host/api" (instance))', "imports 'evil:host/api', which this version of Hookline does not"),
        ('(import "hookline:plugin/host" (func))', "which is an interface, as something else"),
        (
            '(import "hookline:plugin/host" (instance (export "shell" (func (param "command" string)))))',
            r"imports 'hookline:plugin/host\.shell', which this version",
        ),
        (
            '(import "hookline:plugin/host" (instance (export "log" (func (param "level" u32)))))',
            r"host\.log' as func\(level: u32\), and it is func\(level: string, text: string\)",
        ),
        ('(import "wasi:http/types@0.3.0" (instance))', "imports 'wasi:http/types@0.3.0', which"),
        ('(import "a" (value string))', "values|unknown|damaged"),
        ("(type $r (resource (rep i32)))", "resources of its own"),
        ("(type $s (stream u8))", "0x66|streams, futures"),
    ],
)  # fmt: skip
def test_what_it_may_not_import_or_have_is_named(outside, message) -> None:
    """Before an engine sees it, with what to do."""
    try:
        wasm = made(outside + SHELL)
    except wasmtime.WasmtimeError:  # the text format of this engine has no such thing
        pytest.skip("this cannot be written as text here")
    with pytest.raises(VerifyError, match=message):
        inspect_module(wasm)


def test_resources_of_its_own_are_refused_wherever_they_are() -> None:
    """The engine's table of them grows with each, and no limit counts it."""
    nested = """(component $n (type $r (resource (rep i32))) (core func $new (canon resource.new $r)))"""
    with pytest.raises(VerifyError, match="makes resources of its own"):
        inspect_module(made(nested + SHELL))


@pytest.mark.parametrize(
    ("export", "message"),
    [
        ("", "does not export 'call'"),
        ('(func (export "call") (canon lift (core func $i "f")))', r"export 'call' is func\(\), and must be"),
        ('(component $c) (export "call" (component $c))', "export 'call' is a component"),
    ],
)
def test_the_export_is_one_function_of_one_type(export, message) -> None:
    """``call``, from texts to a text."""
    module = '(core module $m (func (export "f"))) (core instance $i (instantiate $m))'
    with pytest.raises(VerifyError, match=message):
        inspect_module(made(module + export))


@pytest.mark.parametrize("hooks", [None, ()])
def test_a_component_that_declares_no_hook_is_refused(hooks) -> None:
    """Its border cannot say which it answers."""
    with pytest.raises(VerifyError, match="does not say which hooks it answers"):
        inspect_module(component(hooks=hooks))


def nested(depth: int) -> bytes:
    """Components in components, by their bytes."""
    inner = b"\0asm\x0d\0\x01\0"
    for _ in range(depth):
        size, length = len(inner), bytearray()
        while size > 0x7F:
            length.append(size & 0x7F | 0x80)
            size >>= 7
        inner = b"\0asm\x0d\0\x01\0\x04" + bytes((*length, size)) + inner
    return inner


def test_ten_thousand_components_in_each_other_are_refused() -> None:
    """Without recursion to match."""
    with pytest.raises(VerifyError, match="deeper than 16"):
        inspect_module(nested(10_000))


def test_ten_thousand_components_beside_each_other_are_refused() -> None:
    """The engine would make each."""
    with pytest.raises(VerifyError, match="more than 1000 components"):
        inspect_module(b"\0asm\x0d\0\x01\0" + b"\x04\x08\0asm\x0d\0\x01\0" * 10_000)


def test_a_type_of_types_of_types_is_not_spelled_out() -> None:
    """Each could be twice as long as the one before."""
    types = '(type $t0 (func (param "a" string)))' + "".join(
        f"(type $v{number} (result {f'$v{number - 1}' if number else 'string'} (error "
        f"{f'$v{number - 1}' if number else 'string'})))"
        for number in range(40)
    )
    imported = '(import "hookline:plugin/host" (instance (export "log" (func (param "level" string)))))'
    with pytest.raises(VerifyError, match=r"host\.log"):
        inspect_module(made(types + imported + SHELL))


def test_five_memories_are_refused() -> None:
    """limits.memory is divided among them."""
    with pytest.raises(VerifyError, match="more than 4 linear memories"):
        inspect_module(made("(core module (memory 1))" * 4 + SHELL))


@pytest.mark.parametrize("step", [1, 7])
def test_a_component_that_is_cut_or_bent_anywhere_is_refused_or_read(step) -> None:
    """Nothing but a VerifyError ever comes of bytes."""
    whole = component(uses=("kv-set",))
    for at in range(8, len(whole), step):
        for wasm in (whole[:at], whole[:at] + bytes((whole[at] ^ 0xFF,)) + whole[at + 1 :]):
            with contextlib.suppress(VerifyError):
                inspect_module(wasm)


@pytest.mark.parametrize("interface", ["wasi:sockets/tcp@0.2.3", "wasi:filesystem/types@0.2.0", "wasi:io/poll@0.2.6"])
async def test_wasi_may_be_imported_and_grants_nothing(workshop, interface) -> None:
    """A call of what is not there ends the hook's call."""
    outside = f"""
    (import "{interface}" (instance $w (export "reach" (func))))
    (core func $reach (canon lower (func $w "reach")))
    (core instance $given (export "reach" (func $reach)))"""
    module = SHELL.replace("(core module $m", '(core module $m (import "w" "reach" (func $reach))').replace(
        "(result i32) (i32.const 0))", "(result i32) (call $reach) (i32.const 0))"
    )
    wasm = made(outside + module.replace("(instantiate $m)", '(instantiate $m (with "w" (instance $given)))'))
    runtime = await workshop.guest(wasm)
    assert (await runtime.call(Hook.CUSTOM, b"0"))["failure"] == "trap"
    assert runtime.plugins["guest"].last_failure.message == (
        f"custom_hook failed: unknown import: `{interface}#reach` has not been defined"
    )


async def test_ten_thousand_pooled_calls_leave_no_memory_behind(workshop) -> None:
    """Texts that cross the border are given back, in both directions."""
    body = f"""(call $kv-set (i32.const 1024) (i32.const 1) (i32.const 1024) (i32.const 1) (i32.const 128)) {ECHO}"""
    wasm = component(body, uses=("kv-set",), data={1024: b"k"}, permissions=("kv.write",))
    runtime = await workshop.guest(wasm, **POOLED)  # without the permission, each call makes an error's text
    plugin = runtime.plugins["guest"]
    hook, data = plugin.hooks[Hook.CUSTOM], b'"' + b"x" * 20_000 + b'"'
    instance = plugin._instances.guest.instantiate()
    for _ in range(1000):
        instance.call(hook.export, data, last=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(10_000):
        instance.call(hook.export, data, last=False)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB; 200 MB went each way
    instance.close()


def test_the_world_is_written_out_where_authors_get_it(request) -> None:
    """`scripts/write_wit.py` was run, and what it wrote is a world of all functions."""
    folder = request.config.rootpath / "sdk" / "hookline_sdk"
    for language in ("wit", "javascript", "python"):
        assert (folder / language / "hookline.wit").read_text() == written_out()
    assert all(f"  {name}: func(" in written_out() for name in FUNCTIONS)
