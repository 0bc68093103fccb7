"""docs/host-functions.md: it has every host function as the contract does, and its examples compile and run."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wasmtime import Engine, Func, FuncType, Linker, Module, Store, ValType, WasiConfig

import write_host_functions
from hookline_api.abi import HOST_FUNCTIONS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "host-functions.md"
TEXT = PAGE.read_text()
NAMES = [name for _, name in HOST_FUNCTIONS]
LANGUAGES = {"c": "c", "rust": "rust", "go": "go", "ts": "assemblyscript", "zig": "zig"}
"""How blocks of code are marked, and how examples/build.py calls the language."""
PARTS = ["type", "permission", "cost", "answers", "errors"]
SDK = "../../../../sdk/hookline_sdk"
"""As seen from a plugin in build/host-functions/LANGUAGE, by its own folder."""


@functools.cache
def sections() -> dict[str, str]:
    """The text of each function, by its name."""
    found = re.split(r"^### (\w+)$", TEXT, flags=re.MULTILINE)
    texts = (re.split(r"^## ", text, flags=re.MULTILINE)[0] for text in found[2::2])
    return {name: text for name, text in zip(found[1::2], texts, strict=True) if name in NAMES}


def rows(name: str) -> dict[str, str]:
    """A function's own table."""
    table = sections()[name].split("| | |\n|---|---|\n")[1].split("\n\n")[0]
    return dict(re.findall(r"^\| (\w+) \| (.*) \|$", table, re.MULTILINE))


def blocks(name: str) -> dict[str, str]:
    """A function's examples, by language as it is marked."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", sections()[name], re.MULTILINE | re.DOTALL)
    return {language: code for language, code in found if language in LANGUAGES}


def called(language: str) -> dict[str, str]:
    """What each function is called in the SDK of one language, as the SDK's page says."""
    column = list(LANGUAGES).index(language)
    page = (ROOT / "sdk" / "README.md").read_text()
    found = re.findall(r"^\| `\w+\.(\w+)` \| (.*) \|$", page, re.MULTILINE)
    return {name: cells.split(" | ")[column].strip("`") for name, cells in found}


def test_every_function_has_a_section():
    """Also under its own heading, as the table links to it; and there is none of what does not exist."""
    assert sorted(re.findall(r"^### (\w+_\w+|log|random)$", TEXT, re.MULTILINE)) == sorted(NAMES)
    assert sections().keys() == set(NAMES)


def test_the_table_is_what_the_contract_says():
    """``make crds`` writes it."""
    assert write_host_functions.render(TEXT) == TEXT, "run: make crds"


@pytest.mark.parametrize(("module", "name"), HOST_FUNCTIONS)
def test_a_function_s_type_and_permission_are_the_contract_s(module, name):
    """Each parameter has a name; neighbours share their type."""
    found = rows(name)
    assert list(found)[: len(PARTS)] == PARTS
    match = re.fullmatch(r"`(\w+)\.(\w+)\((.*)\) -> (i32|i64)`", found["type"])
    assert match is not None
    assert (match[1], match[2]) == (module, name)
    params, waiting = "", 0
    for each in match[3].split(", ") if match[3] else []:
        waiting += 1
        _, colon, kind = each.partition(": ")
        if colon:
            params += {"i32": "i", "i64": "I", "f64": "F"}[kind] * waiting
            waiting = 0
    assert waiting == 0
    function = HOST_FUNCTIONS[module, name]
    assert (params, {"i32": "i", "i64": "I"}[match[4]]) == (function.params, function.results)
    assert found["permission"] == ("none" if function.permission is None else f"`{function.permission.value}`")


@pytest.mark.parametrize("name", NAMES)
def test_a_function_has_an_example_in_each_language(name):
    """One that calls it by its name in the SDK."""
    examples = blocks(name)
    assert list(examples) == list(LANGUAGES)
    for language, code in examples.items():
        assert re.search(rf"\b{called(language)[name]}\b", code), language


EACH = {
    "c": "static int64_t example{at}(void) {{\n{code}return 0;\n}}\n",
    "rust": "fn example{at}() -> Result<String, Box<dyn std::error::Error>> {{\n{code}Ok(String::new())\n}}\n",
    "go": "func example{at}() error {{\n{code}return nil\n}}\n",
    "ts": 'function example{at}(): string {{\n{code}return "";\n}}\n',
    "zig": "fn example{at}() !void {{\n{code}}}\n",
}
"""A function that is one example."""
CALL = {
    "c": "if (example{at}()) return 1;\n",
    "rust": "made += &example{at}().expect(input);\n",
    "go": "if err := example{at}(); err != nil {{\nreturn hookline.Answer(err.Error())\n}}\n",
    "ts": "if (example{at}().length) return 1;\n",
    "zig": "try example{at}();\n",
}
"""How the hook calls it: what nobody calls is not compiled, or is an error."""
WHOLE = {
    "c": """
#include "hookline.h"
EACH
HL_HOOK(custom_hook, input) {
(void)input;
CALLS
return 0;
}
""",
    "rust": """
#![deny(warnings)]
EACH
fn all(input: &str) -> String {
let mut made = String::new();
CALLS
made
}
hookline::hook!(custom_hook, all);
""",
    "go": """
package main
import (
"fmt"
"hookline"
)
EACH
//go:wasmexport custom_hook
func all(at, size uint32) uint64 {
CALLS
return 0
}
func main() {}
""",
    "ts": """
import * as hookline from "../SDK/assemblyscript/hookline";
import { elements, member, textOf, texts } from "../SDK/assemblyscript/json";
export { alloc, dealloc } from "../SDK/assemblyscript/hookline";
EACH
export function custom_hook(at: usize, len: i32): u64 {
CALLS
return 0;
}
""",
    "zig": """
const std = @import("std");
const hookline = @import("hookline");
pub const panic = hookline.panic;
EACH
comptime {
hookline.hook(.custom_hook, all);
}
fn all(_: hookline.Value) !?hookline.Value {
CALLS
return null;
}
""",
}
"""A plugin of all examples."""


def written(language: str) -> str:
    """Its source."""
    examples = [blocks(name)[language] for name in NAMES]
    functions = "".join(EACH[language].format(at=at, code=code) for at, code in enumerate(examples))
    calls = "".join(CALL[language].format(at=at) for at in range(len(examples)))
    return WHOLE[language].replace("SDK", SDK).replace("CALLS", calls).replace("EACH", functions)


def files(language: str, name: str) -> dict[str, str]:
    """A plugin that has all examples of a language."""
    idle = ROOT / "tests" / "examples" / "sdk" / "guests" / "idle-assemblyscript"
    source = written(language)
    if language == "c":
        return {f"{name}.c": source}
    if language == "rust":
        return {"src/lib.rs": source, "Cargo.toml": f'[package]\nname = "{name}"\nversion = "0.0.0"\n'}
    if language == "zig":
        return {"main.zig": source}
    if language == "go":
        module = f"module {name}\n\ngo 1.24\n\nrequire hookline v0.0.0\n\nreplace hookline => {SDK}/go\n"
        return {"main.go": source, "go.mod": module}
    package = (idle / "package.json").read_text().replace(idle.name, name)
    package = re.sub(r"abort=\S*/sdk/hookline_sdk", f"abort={SDK}", package)
    lock = (idle / "package-lock.json").read_text().replace(idle.name, name)
    return {"assembly/index.ts": source, "package.json": package, "package-lock.json": lock}


ROWS = b'{"columns":[{"name":"role","type":"text"}],"rows":[["reader"]],"rowCount":1}'
RESPONSE = b'{"status":200,"headers":{"content-type":"text/plain"},"body":"{}","fromCache":false}'
ANSWERS: dict[str, int | bytes] = {
    "kv_get": b"rules", "sha256_hex": b"9f" * 32, "hmac_sha256": bytes(32), "get_time": 60_000,
    "kv_incr": 1, "kv_compare_and_set": 1, "kv_set_ttl": 1, "kv_list": b'["budget/a"]', "get_config": b"100",
    "cache_get": b"reader", "cache_delete": 1, "query_execute": ROWS, "http_fetch": RESPONSE, "http_post": RESPONSE,
    "query_prepare": b'{"parameters":["text"],"columns":[{"name":"role","type":"text"}]}',
    "query_get_tables": b'["orders","public.items"]', "query_normalize": b'{"sql":"select $1"}',
}  # fmt: skip
"""What a host answers where all goes well; 0 of all others."""


class Host:
    """Runs one guest, and answers whatever it asks."""

    def __init__(self, module: Path) -> None:
        self.asked: set[str] = set()
        engine = Engine()
        linker, self._store = Linker(engine), Store(engine)
        linker.define_wasi()
        self._store.set_wasi(WasiConfig())
        kinds = {"i": ValType.i32(), "I": ValType.i64(), "F": ValType.f64()}
        for (space, name), function in HOST_FUNCTIONS.items():
            kind = FuncType([kinds[letter] for letter in function.params], [kinds[function.results]])
            linker.define(self._store, space, name, Func(self._store, kind, self._function(name, function.results)))
        self._exports = linker.instantiate(self._store, Module.from_file(engine, str(module))).exports(self._store)
        if "_initialize" in self._exports:
            self._exports["_initialize"](self._store)

    def _function(self, name: str, results: str) -> Any:
        def called(*numbers: Any) -> int:
            self.asked.add(name)
            answer = ANSWERS.get(name, 0)
            if isinstance(answer, int):
                return answer
            # Where the guest says, which is last but for the room that it has; or where its alloc does.
            place = numbers[-2 if name == "kv_get" else -1] if results == "i" else self._alloc(len(answer))
            self._exports["memory"].write(self._store, answer, place & 0xFFFFFFFF)
            return len(answer) if results == "i" else place << 32 | len(answer)

        return called

    def _alloc(self, size: int) -> int:
        return int(self._exports["alloc"](self._store, size))

    def call(self) -> int:
        """What the hook answers."""
        data = b"{}"
        at = self._alloc(len(data))
        self._exports["memory"].write(self._store, data, at & 0xFFFFFFFF)
        return int(self._exports["custom_hook"](self._store, at, len(data)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_examples_compile_and_run(language):
    """All of a language in one plugin, against the SDK. Each comes to its end where its host answers as it expects."""
    name = f"examples-{LANGUAGES[language]}"
    plugins = ROOT / "build" / "host-functions" / language
    folder = plugins / name
    for path, text in files(language, name).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / "plugin.json").write_text(json.dumps({"name": name, "version": "0.0.0"}))
    build = [sys.executable, ROOT / "examples" / "build.py", "--plugins", plugins, "--out", plugins / "out", "--json"]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    [result] = json.loads(done.stdout)
    if result["skipped"]:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(result["error"])
    assert result["error"] is None, result["error"]
    host = Host(Path(result["path"]))
    assert host.call() == 0
    assert host.asked == set(NAMES)
