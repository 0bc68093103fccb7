"""The SDKs of sdk/hookline_sdk: each has every host function as the contract has it, and says what the host answered.

The guests of ``guests/`` are built by examples/build.py. ``probe-*`` calls the function that it is told to;
``idle-*`` calls none. The host here is a script: it says what real parts say only where they are broken.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wasmtime import Engine, Func, FuncType, Linker, Module, Store, Trap, ValType, WasiConfig

from hookline_api.abi import HOST_FUNCTIONS

ROOT = Path(__file__).parents[3]
SDK = ROOT / "sdk" / "hookline_sdk"
GUESTS = Path(__file__).parent / "guests"
LANGUAGES = ["assemblyscript", "c", "go", "rust", "zig"]
TYPES = {"i": "i32", "I": "i64", "F": "f64"}
SEPARATOR = "\x1f"
LEAST = -(2**63)

GIVEN = {
    "kv_get": ["bytes", "room"],
    "sha256_hex": ["bytes", "place"],
    "random": ["room"],
    "log": ["number", "bytes"],
    "hmac_sha256": ["bytes", "bytes", "place"],
    "kv_compare_and_set": ["bytes", "optional", "bytes"],
}
"""What a function's numbers are, where they are not texts and bytes with numbers behind them."""


def kinds(name: str, params: str) -> list[str]:
    """What a function takes, in order: ``bytes`` are two numbers."""
    return GIVEN.get(name) or ["bytes"] * (params.count("i") // 2) + ["number"] * (params[-1:] in {"I", "F"})


class Guest:
    """One of the guests, with a host that notes what it is asked and answers what it is told."""

    def __init__(self, module: Module, engine: Engine) -> None:
        self.asked: list[Any] = []
        self.answers: Any = 0
        linker = Linker(engine)
        linker.define_wasi()
        self.store = Store(engine)
        self.store.set_wasi(WasiConfig())
        for (space, name), function in HOST_FUNCTIONS.items():
            numbers = [ValType.i32() if each == "i" else ValType.i64() if each == "I" else ValType.f64()
                       for each in function.params]  # fmt: skip
            result = ValType.i32() if function.results == "i" else ValType.i64()
            body = self._function(name, function.params)
            linker.define(self.store, space, name, Func(self.store, FuncType(numbers, [result]), body))
        self.exports = linker.instantiate(self.store, module).exports(self.store)
        self.memory = self.exports["memory"]
        if "_initialize" in self.exports:
            self.exports["_initialize"](self.store)

    def _read(self, at: int, length: int) -> bytes:
        at, length = at & 0xFFFFFFFF, length & 0xFFFFFFFF
        return bytes(self.memory.read(self.store, at, at + length)) if length else b""

    def _give(self, data: bytes) -> int:
        at = self.exports["alloc"](self.store, len(data)) & 0xFFFFFFFF
        self.memory.write(self.store, data, at)
        return (at << 32 | len(data)) - (2**64 if at >> 31 else 0)

    def _function(self, name: str, params: str) -> Any:
        def called(*numbers: Any) -> int:
            given, rest = [], list(numbers)
            place, room = 0, 0
            for kind in kinds(name, params):
                first = rest.pop(0)
                if kind == "bytes":
                    given.append(self._read(first, rest.pop(0)).decode())
                elif kind == "optional":
                    length = rest.pop(0)
                    given.append(None if length == -1 else self._read(first, length).decode())
                elif kind == "number":
                    given.append(first)
                else:
                    place, room = first, rest.pop(0) if kind == "room" else 0
            self.asked.append((name, *given))
            answer = self.answers
            if not isinstance(answer, bytes):
                return int(answer)
            if kinds(name, params)[-1] not in {"place", "room"}:
                return self._give(answer)
            if room and room < len(answer):
                return -2
            self.memory.write(self.store, answer, place)
            return 0 if name == "random" else len(answer)

        return called

    def call(self, *fields: str, answers: Any) -> tuple[list[Any], str]:
        """What the host was asked while the guest did this, and what the guest said of the answer."""
        self.asked, self.answers = [], answers
        data = SEPARATOR.join(fields).encode()
        at = self.exports["alloc"](self.store, len(data))
        self.memory.write(self.store, data, at & 0xFFFFFFFF)
        packed = self.exports["custom_hook"](self.store, at, len(data)) & 0xFFFFFFFFFFFFFFFF
        said = json.loads(self._read(packed >> 32, packed & 0xFFFFFFFF))
        self.exports["dealloc"](self.store, packed >> 32, packed & 0xFFFFFFFF)
        self.exports["dealloc"](self.store, at, len(data))
        return self.asked, said


@pytest.fixture(scope="module")
def engine() -> Engine:
    """One for all guests."""
    return Engine()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All guests that can be built here; the builder says what it skipped."""
    out = tmp_path_factory.mktemp("guests")
    subprocess.run([sys.executable, ROOT / "examples" / "build.py", "--plugins", GUESTS, "--out", out], check=True)
    return out


def module_of(built: Path, name: str, engine: Engine) -> Module:
    """A guest's module; its test is skipped where its compiler is missing, but not under CI."""
    path = built / f"{name}.wasm"
    if not path.exists():
        message = f"the toolchain of {name} is missing, see what examples/build.py says"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return Module.from_file(engine, str(path))


@pytest.fixture(scope="module", params=LANGUAGES)
def probe(request: pytest.FixtureRequest, built: Path, engine: Engine) -> Guest:
    """The guest that calls whatever it is told, in one language."""
    return Guest(module_of(built, f"probe-{request.param}", engine), engine)


def imports(module: Module) -> dict[tuple[str, str], tuple[str, str]]:
    """What a module imports but for WASI, with types in the contract's shorthand."""
    letters = {name: letter for letter, name in TYPES.items()}
    found = {}
    for each in module.imports:
        if each.module != "wasi_snapshot_preview1":
            assert isinstance(each.type, FuncType)
            params, results = (
                "".join(letters[str(one)] for one in types) for types in (each.type.params, each.type.results)
            )
            found[each.module, str(each.name)] = (params, results)
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_sdk_declares_every_host_function_as_the_contract_does(language, built, engine) -> None:
    """Its names and types are those of HOST_FUNCTIONS, and it has no other."""
    contract = {key: (function.params, function.results) for key, function in HOST_FUNCTIONS.items()}
    assert imports(module_of(built, f"probe-{language}", engine)) == contract


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_function_that_is_not_called_is_not_imported(language, built, engine) -> None:
    """So a plugin needs the permissions of what it calls. What fails goes to the log, in C where the plugin asks."""
    found = set(imports(module_of(built, f"idle-{language}", engine)))
    assert found == ({("hookline", "log")} if language != "c" else set())


def error(cause: str, message: str, **more: str) -> bytes:
    """What query_* and http_* answer where something went wrong."""
    return json.dumps({"error": {"cause": cause, "message": message, **more}}).encode()


ROWS = {
    "columns": [{"name": "n", "type": "text"}, {"name": "at", "type": "timestamptz"}],
    "rows": [['a\n"é😀\x01', "2026-01-01T00:00:00Z"], ["b", "c"]],
    "rowCount": 2,
}  # fmt: skip
BODY = {"status": 200, "headers": {"content-type": "text/plain"}, "body": 'h"é\u0000', "fromCache": True}
CODED = {"status": 404, "headers": {}, "bodyBase64": "w7/Dv2E=", "fromCache": False}
PREPARED = {"parameters": ["int4", "text"], "columns": [{"name": "a", "type": "int8"}, {"name": "b", "type": "x"}]}
EVIL = "a\"'\\\n\u0000\u0007é😀</script>"

# The fields for the probe · what the host has to be asked · what it answers · what the probe has to say.
TOLD: list[tuple[list[str], list[Any], Any, str]] = [
    (["log", "3", "é"], [3, "é"], 0, "ok"),
    (["get_time"], [], 1_234_567_890_123, "1234567890123"),
    (["random", "5"], [], b"abcde", "some|abcde"),
    (["random", "5000"], [], -2, "error|-2"),
    (["get_config", "a.b"], ["a.b"], b"[1]", "some|[1]"),
    (["get_config", "a.b"], ["a.b"], 0, "none"),
    (["get_config", ""], [""], 3, "error|-3"),
    (["metric_inc", "n", "6"], ["n", 1.5], 0, "ok"),
    (["metric_gauge", "n", "-6"], ["n", -1.5], -3, "error|-3"),
    (["metric_observe", "n", "2"], ["n", 0.5], -5, "error|-5"),
    (["sha256_hex", "é"], ["é"], b"0" * 63 + b"f", "some|" + "0" * 63 + "f"),
    (["hmac_sha256", "k", "t"], ["k", "t"], b"m" * 32, "some|" + "m" * 32),
    (["hmac_sha256", "k", "t"], ["k", "t"], -3, "error|-3"),
    (["kv_get", "k"], ["k"], b"v", "some|v"),
    (["kv_get", "k"], ["k"], b"", "some|"),
    (["kv_get", "k"], ["k"], -1, "none"),
    (["kv_set", "k", "v"], ["k", "v"], 0, "ok"),
    (["kv_set", "k", ""], ["k", ""], -1, "error|-1"),
    (["kv_delete", "k"], ["k"], 0, "ok"),
    (["kv_delete", "k"], ["k"], -1, "error|-1"),
    (["kv_list", "p/"], ["p/"], b'["p/a","p/\\u00e9"]', "p/a,p/é"),
    (["kv_list", ""], [""], 2, "error|-2"),
    (["kv_incr", "k", "-7"], ["k", -7], 2**40, str(2**40)),
    (["kv_incr", "k", "1"], ["k", 1], -1, "-1"),
    (["kv_incr", "k", "1"], ["k", 1], LEAST, "error|-6"),
    (["kv_compare_and_set", "k", "-", "v"], ["k", None, "v"], 1, "true"),
    (["kv_compare_and_set", "k", "", "v"], ["k", "", "v"], 0, "false"),
    (["kv_compare_and_set", "k", "was", ""], ["k", "was", ""], -5, "error|-5"),
    (["kv_set_ttl", "k", "3000000000"], ["k", 3_000_000_000], 1, "true"),
    (["kv_set_ttl", "k", "0"], ["k", 0], 0, "false"),
    (["kv_set_ttl", "k", "1"], ["k", 1], -6, "error|-6"),
    (["cache_get", "c", "k"], ["c", "k"], b"v", "some|v"),
    (["cache_get", "", "k"], ["", "k"], b"", "some|"),
    (["cache_get", "c", "k"], ["c", "k"], 0, "none"),
    (["cache_get", "c", "k"], ["c", "k"], 4, "error|-4"),
    (["cache_exists", "c", "k"], ["c", "k"], 1, "true"),
    (["cache_exists", "c", "k"], ["c", "k"], 0, "false"),
    (["cache_exists", "c", "k"], ["c", "k"], -4, "error|-4"),
    (["cache_set", "c", "k", "v", "5"], ["c", "k", "v", 5], 0, "ok"),
    (["cache_set", "c", "k", "v", "-1"], ["c", "k", "v", -1], -4, "error|-4"),
    (["cache_set", "c", "k", "", "0"], ["c", "k", "", 0], -6, "error|-6"),
    (["cache_delete", "c", "k"], ["c", "k"], 1, "true"),
    (["cache_delete", "c", "k"], ["c", "k"], 0, "false"),
    (["cache_delete", "c", "k"], ["c", "k"], -6, "error|-6"),
    (["query_prepare", "s", "q"], ["s", "q"], json.dumps(PREPARED).encode(), "int4,text|a,b"),
    (["query_prepare", "s", "q"], ["s", "q"], error("failed", "no", sqlstate="42601"), "failure|failed|no|42601"),
    (["query_get_tables", "q"], ["q"], b'["public.a","b"]', "public.a,b"),
    (["query_get_tables", "q"], ["q"], b"[]", ""),
    (["query_get_tables", "q"], ["q"], error("failed", "no"), "failure|failed|no|"),
    (["query_normalize", "q"], ["q"], b'{"sql":"select $1"}', "select $1"),
    (["query_normalize", "q"], ["q"], error("denied", "no"), "failure|denied|no|"),
    (["http_post", "u", "t", "b"], ["u", "t", "b"], json.dumps(BODY).encode(), '200|text/plain|h"é\u0000|true'),
    (["http_post", "u", "t", ""], ["u", "t", ""], json.dumps(CODED).encode(), "404||ÿÿa|false"),
    (["http_post", "u", "t", "b"], ["u", "t", "b"], error("limit", "large"), "failure|limit|large|"),
]


@pytest.mark.parametrize(
    ("fields", "asked", "answer", "said"), TOLD, ids=lambda value: value[0] if isinstance(value, list) and value else ""
)
def test_a_call_gives_the_host_its_arguments_and_tells_what_it_answered(probe, fields, asked, answer, said) -> None:
    """In every language the same, also what the host says where it did not do it."""
    assert probe.call(*fields, answers=answer) == ([(fields[0], *asked)], said)


def test_every_function_is_among_the_calls() -> None:
    """A new one has to be tried here, in all languages."""
    apart = {"query_execute", "http_fetch"}
    assert {fields[0] for fields, *_ in TOLD} | apart == {name for _, name in HOST_FUNCTIONS}


def test_a_large_value_is_asked_for_twice(probe) -> None:
    """A buffer of 4 KiB is tried first, and then the largest that a value may need."""
    asked, said = probe.call("kv_get", "k", answers=b"x" * 65_536)
    assert asked == [("kv_get", "k"), ("kv_get", "k")]
    assert said == "some|" + "x" * 65_536


def test_parameters_are_values_whatever_they_hold(probe) -> None:
    """They reach the host as one JSON array of what was meant, and rows come back as they were."""
    params = ["n", "btrue", "i-9007199254740993", f"t{EVIL}", "xé\u0000", "t", "x"]
    (asked,), said = probe.call("query_execute", "grants", "select $1", *params, answers=json.dumps(ROWS).encode())
    assert asked[:3] == ("query_execute", "grants", "select $1")
    assert json.loads(asked[3]) == [None, True, -9_007_199_254_740_993, EVIL, "w6kA", "", ""]
    assert said == '2|n,at|text,timestamptz|a\n"é😀\x01,2026-01-01T00:00:00Z;b,c;'


def test_a_statement_without_parameters_gives_no_bytes_for_them(probe) -> None:
    """As the contract has it; what went wrong is told with its cause and SQLSTATE."""
    failure = error("timeout", "it took too long", sqlstate="57014")
    asked, said = probe.call("query_execute", "s", "q", answers=failure)
    assert asked == [("query_execute", "s", "q", "")]
    assert said == "failure|timeout|it took too long|57014"


@pytest.mark.parametrize("name", ["query_execute", "query_get_tables"])
def test_a_host_that_cannot_is_a_failure_too(probe, name) -> None:
    """Where it answers a code instead of JSON, and where it answers no bytes."""
    for answer in (6, b""):
        _, said = probe.call(name, "s", "q", answers=answer)
        assert said.startswith("failure|failed|")


def test_a_request_is_one_json_object_whatever_its_parts_hold(probe) -> None:
    """Method, address, headers, body and time-out, each escaped."""
    url = f"https://example.com/{EVIL}"
    fields = ["POST", url, "X-Name", EVIL, "body\u0000é", "250"]
    (asked,), said = probe.call("http_fetch", *fields, answers=json.dumps(BODY).encode())
    assert json.loads(asked[1]) == {
        "method": "POST", "url": url, "headers": {"X-Name": EVIL}, "bodyBase64": "Ym9keQDDqQ==", "timeoutMs": 250,
    }  # fmt: skip
    assert said == '200|text/plain|h"é\u0000|true'


def test_a_request_says_no_more_than_it_was_given(probe) -> None:
    """Without headers, body and time-out it holds none, or empty ones."""
    (asked,), said = probe.call("http_fetch", "GET", "https://a/", "", "", "", "0", answers=error("denied", "no"))
    request = json.loads(asked[1])
    assert request.pop("headers", {}) == {}
    assert request == {"method": "GET", "url": "https://a/"}
    assert said == "failure|denied|no|"


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_no_json_is_never_taken_for_an_answer(language, built, engine) -> None:
    """It is a failure, or ends the call."""
    probe = Guest(module_of(built, f"probe-{language}", engine), engine)
    with contextlib.suppress(Trap):
        _, said = probe.call("query_normalize", "q", answers=b"{")
        assert said.startswith("failure|failed|")


def test_the_page_names_every_function_in_every_language() -> None:
    """The table of sdk/README.md has all of the contract's, and each name stands in its SDK."""
    page = (SDK.parent / "README.md").read_text()
    rows = re.findall(
        r"^\| `(env|hookline)\.(\w+)` \| `(\w+)` \| `(\w+)` \| `(\w+)` \| `(\w+)` \| `(\w+)` \|$", page, re.MULTILINE
    )
    assert [row[:2] for row in rows] == list(HOST_FUNCTIONS)
    c, rust, go, assemblyscript, zig = (
        (SDK / path).read_text()
        for path in ("c/host.h", "rust/src/host.rs", "go/host.go", "assemblyscript/hookline.ts", "zig/host.zig")
    )
    for row in rows:
        assert f" {row[2]}(" in c
        assert f"pub fn {row[3]}(" in rust
        assert f"func {row[4]}(" in go
        assert f"export function {row[5]}(" in assemblyscript
        assert f"pub fn {row[6]}(" in zig
