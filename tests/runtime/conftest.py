"""A workshop for the runtime's tests: small guests in WebAssembly text, compiled and run by the real parts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import wasmtime

from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin
from hookline_api.hooks import Hook
from hookline_artifacts.module.inspection import inspect_module
from hookline_runtime.guest.compiler import Compiler
from hookline_runtime.guest.engine import compile_to
from hookline_runtime.host.kv import KvStore
from hookline_runtime.plugin import plugin as plugin_module
from hookline_runtime.runtime import Runtime
from valkey import PACKAGE, PROGRAM, RedisServer, redis_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

_BUMP = """
(global $top (mut i32) (i32.const 65536))
(func $alloc (export "alloc") (param $n i32) (result i32)
  (local $p i32)
  (local.set $p (global.get $top))
  (global.set $top (i32.add (global.get $top) (local.get $n)))
  (block $enough (loop $more
    (br_if $enough (i32.le_u (global.get $top) (i32.mul (memory.size) (i32.const 65536))))
    (br_if $enough (i32.eq (memory.grow (i32.const 16)) (i32.const -1)))
    (br $more)))
  (local.get $p))
"""
_TIMEOUT = "900ms"
"""Of a plugin whose test is about something else: no busy machine takes that long for a call that does little, and it
is short enough for the event loop."""
_DEALLOC = '(func (export "dealloc") (param i32 i32))'
_FREE_LAST = """
(func (export "dealloc") (param $p i32) (param $n i32)
  (if (i32.eq (i32.add (local.get $p) (local.get $n)) (global.get $top)) (then (global.set $top (local.get $p)))))
"""
_NUMBER = """
(func $number (param $v i64) (result i64) (local $at i32) (local $minus i32)
  (local.set $at (i32.const 64))
  (if (i64.lt_s (local.get $v) (i64.const 0))
    (then (local.set $minus (i32.const 1)) (local.set $v (i64.sub (i64.const 0) (local.get $v)))))
  (loop $digit
    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
    (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $v) (i64.const 10)))))
    (local.set $v (i64.div_u (local.get $v) (i64.const 10)))
    (br_if $digit (i64.ne (local.get $v) (i64.const 0))))
  (if (local.get $minus)
    (then (local.set $at (i32.sub (local.get $at) (i32.const 1))) (i32.store8 (local.get $at) (i32.const 45))))
  (i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32))
          (i64.extend_i32_u (i32.sub (i32.const 64) (local.get $at)))))
"""


class Wat:
    """Writes modules of the guest ABI as text.

    In a hook's body ``$p`` and ``$n`` are its input, ``$i``, ``$j`` (i32) and ``$w`` (i64) are free, and
    ``(call $number (i64…))`` makes an answer of a number.
    """

    echo = """(i64.or (i64.shl (i64.extend_i32_u (local.get $p)) (i64.const 32))
                      (i64.extend_i32_u (local.get $n)))"""
    """The body of a hook that answers its input."""
    no_answer = "(i64.const 0)"

    def module(
        self,
        *parts: str,
        hooks: dict[str, str] | None = None,
        answers: dict[str, Any] | None = None,
        imports: str = "",
        memory: str = '(memory (export "memory") 2)',
        alloc: str = _BUMP,
        dealloc: str | None = None,
        data: dict[int, bytes] | None = None,
    ) -> str:
        """A module. ``hooks`` are bodies by name; ``answers`` are constants, text or what is written as JSON.

        Its own ``alloc`` takes from 64 KiB upwards, or from behind its data; its ``dealloc`` takes the last piece back.
        """
        if dealloc is None:
            dealloc = _FREE_LAST if alloc == _BUMP else _DEALLOC
        bodies, segments, at = dict(hooks or {}), dict(data or {}), 8192
        for name, answer in (answers or {}).items():
            raw = self.raw(answer)
            segments[at] = raw
            bodies[name] = f"(i64.const {at << 32 | len(raw)})"
            at += len(raw) + 16
        functions = [
            f'(func (export "{name}") (param $p i32) (param $n i32) (result i64) (local $i i32) (local $j i32)'
            f" (local $w i64) {body})"
            for name, body in bodies.items()
        ]
        constants = [f'(data (i32.const {where}) "{self.quoted(raw)}")' for where, raw in segments.items()]
        behind = max([65_536, *(-(-(where + len(raw)) // 16) * 16 for where, raw in segments.items())])
        alloc = alloc.replace(
            "(global $top (mut i32) (i32.const 65536))", f"(global $top (mut i32) (i32.const {behind}))"
        )
        written = _NUMBER if any("$number" in body for body in bodies.values()) else ""
        return "\n".join(["(module", imports, memory, *constants, written, alloc, dealloc, *functions, *parts, ")"])

    @staticmethod
    def raw(answer: Any) -> bytes:
        """An answer's bytes."""
        if isinstance(answer, bytes):
            return answer
        return answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()

    @staticmethod
    def quoted(raw: bytes) -> str:
        """Bytes as a string of the text format."""
        return "".join(f"\\{byte:02x}" for byte in raw)

    @staticmethod
    def host(module: str, name: str, params: str, result: str) -> str:
        """An import, callable as ``$name``."""
        return f'(import "{module}" "{name}" (func ${name} (param {params}) (result {result})))'

    def configured(self) -> str:
        """A module whose every hook answers what its config holds under the hook's name; nothing without."""
        names = {hook.value: 1024 + 64 * index for index, hook in enumerate(Hook)}
        return self.module(
            imports=self.host("hookline", "get_config", "i32 i32", "i64"),
            data={where: name.encode() for name, where in names.items()},
            hooks={
                name: f"(call $get_config (i32.const {where}) (i32.const {len(name)}))" for name, where in names.items()
            },
        )

    def switch(self) -> str:
        """A custom hook that does what the input's first byte says.

        ``0`` answers the input, ``1`` traps, ``2`` never ends, ``3`` answers nonsense, ``4`` has no opinion.
        """
        return self.module(
            data={1024: b"nonsense"},
            hooks={
                "custom_hook": f"""
                (local.set $i (i32.load8_u (local.get $p)))
                (if (i32.eq (local.get $i) (i32.const {ord("1")})) (then unreachable))
                (if (i32.eq (local.get $i) (i32.const {ord("2")})) (then (loop $ever (br $ever))))
                (if (i32.eq (local.get $i) (i32.const {ord("3")})) (then (return (i64.const {1024 << 32 | 8}))))
                (if (i32.eq (local.get $i) (i32.const {ord("4")})) (then (return (i64.const 0))))
                {self.echo}"""
            },
        )


@dataclass
class Workshop:
    """Makes bundle entries of guests, and runtimes that run them; closes what it started."""

    compiler: Compiler
    kv: KvStore
    started: list[Runtime]

    async def plugin(self, text: str | bytes, name: str = "guest", **settings: Any) -> BundlePlugin:
        """A bundle's entry for a module, compiled; ``settings`` are a resource's.

        Hooks are by default all, and the time-out is long.
        """
        wasm = bytes(wasmtime.wat2wasm(text)) if isinstance(text, str) else text
        sha256 = hashlib.sha256(wasm).hexdigest()
        settings.setdefault("hooks", list(inspect_module(wasm).hooks))
        settings["limits"] = {"timeout": _TIMEOUT} | settings.get("limits", {})
        artifact = BundleArtifact(
            digest=f"sha256:{sha256}", sha256=sha256, size=len(wasm), layout="file", reference=name
        )
        entry = BundlePlugin.model_validate({"name": name, "artifact": artifact, **settings})
        compiled = self.find(entry)
        if not compiled.exists():  # what the compiler's child does; the child is the subject of test_compiler.py
            compile_to(wasm, compiled, fuel=entry.limits.fuel is not None)
        return entry

    def find(self, entry: BundlePlugin) -> Path:
        """Where an entry's compiled module is."""
        assert entry.artifact is not None
        return self.compiler.path(entry.artifact.sha256, fuel=entry.limits.fuel is not None)

    async def run(self, *plugins: BundlePlugin, **options: Any) -> Runtime:
        """A runtime that runs these plugins."""
        runtime = Runtime(kv=self.kv, **options)
        self.started.append(runtime)
        await runtime.load(Bundle.of(list(plugins)), self.find)
        return runtime

    async def guest(self, text: str | bytes, **settings: Any) -> Runtime:
        """A runtime that runs one plugin, named ``guest``."""
        return await self.run(await self.plugin(text, **settings))

    async def ask(self, text: str | bytes, hook: str = "custom_hook", body: Any = 0, **settings: Any) -> Any:
        """One call of one plugin; the decision without its frame."""
        runtime = await self.guest(text, **settings)
        decision = await runtime.call(Hook(hook), json.dumps(body).encode())
        assert decision.pop("bundle") == runtime.bundle.version
        assert decision.pop("request_id")
        assert decision.pop("plugin") in {"guest", None}
        return decision


@pytest.fixture(scope="session")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """One cache of compiled modules for the whole session."""
    return Compiler(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="session")
def wat() -> Wat:
    """The writer of modules."""
    return Wat()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is slow from 100 ms of processor time on: what does little is quick also where all else makes it wait."""
    monkeypatch.setattr(plugin_module, "_QUICK_NS", 100_000_000)


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[KvStore]:
    """A key-value store of the test's own."""
    store = KvStore(tmp_path / "kv")
    yield store
    store.close()


@pytest.fixture
async def workshop(compiler: Compiler, kv: KvStore) -> AsyncIterator[Workshop]:
    """Runs guests with the real runtime."""
    made = Workshop(compiler=compiler, kv=kv, started=[])
    yield made
    for runtime in made.started:
        await runtime.close()


@pytest.fixture(scope="session")
def redis_program(need: Callable[[str, str], str]) -> str:
    """The path of Debian's redis-server."""
    return need(PROGRAM, PACKAGE)


@pytest.fixture(scope="session")
def redis(redis_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that do not stop it; each has a namespace of its own."""
    with redis_server(redis_program, tmp_path_factory.mktemp("redis")) as started:
        yield started
