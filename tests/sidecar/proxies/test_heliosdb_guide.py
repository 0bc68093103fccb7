"""docs/author/heliosdb.md, step by step: its manifests and commands, as they stand there."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from heliosdb_packages import pack, public_key, signature
from hookline_api.bundle import Bundle
from waiting import until

_PAGE = (Path(__file__).parents[3] / "docs" / "author" / "heliosdb.md").read_text()
_STEP = re.compile(r"^## (\d+)\. (.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_STEPS = {int(number): text for number, text in _STEP.findall(_PAGE)}
_DROP = {"query": "DROP TABLE users"}


def _code(step, language="yaml"):
    """The one block of that language in a step."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", _STEPS[step], re.DOTALL | re.MULTILINE)
    return block


def _manifest(step):
    """A step's manifest; where it is a piece of a spec, in the manifest of the first step."""
    found = yaml.safe_load(_code(step))
    if "kind" in found:
        return found
    whole = _manifest(1)
    whole["spec"] |= found
    return whole


def _put(sidecar, step, module, **spec):
    manifest = _manifest(step)
    manifest["spec"] |= spec
    sidecar.folder.write(manifest["spec"]["source"]["file"]["path"], module)
    sidecar.folder.write(f"{manifest['metadata']['name']}.yaml", manifest)
    return manifest["metadata"]["name"]


@pytest.fixture
def sidecar(new_sidecar):
    """One for each step, not started yet."""
    return new_sidecar()


async def test_1_a_manifest_runs_a_plugin_and_heliosdbs_own_files_do_not(sidecar, heliosdb_guard):
    """They are told in one sentence what is to be written."""
    sidecar.folder.write("guard.wasm", heliosdb_guard)
    sidecar.folder.write("plugin.toml", 'name = "guard"\nhooks = ["pre_query"]\npermissions = ["kv_read"]\n')
    sidecar.start(wait=False)
    until(lambda: sidecar.looks("/v1/plugins"), "an admin port")
    told = sidecar.wait_problem("docs/author/heliosdb.md")
    assert "guard.wasm" in told["message"]
    _put(sidecar, 1, heliosdb_guard)
    sidecar.wait_plugin("guard", state="Running")
    assert (await sidecar.ask("pre_query", _DROP))["action"] == "block"


async def test_2_a_permission_that_is_imported_and_not_granted_is_named(sidecar, heliosdb_guard):
    """With the words of the table; Lenient loads the plugin all the same."""
    words = dict(re.findall(r"^\| `(\w+)`.*? \| `([\w.]+)` \|", _STEPS[2], re.MULTILINE))
    assert words == {"kv_read": "kv.read", "kv_write": "kv.write", "crypto": "crypto", "metrics": "metrics",
                     "config_read": "config.read", "query_execute": "query.execute", "cache_read": "cache.read",
                     "cache_write": "cache.write", "http_fetch": "http.fetch"}  # fmt: skip
    _put(sidecar, 1, heliosdb_guard, permissions=["kv.read"])
    sidecar.start(wait=False)
    refused = sidecar.wait_plugin("guard", state="Closed")
    assert refused["failure"]["cause"] == "config"
    assert "env.kv_set" in refused["failure"]["message"]
    assert words["kv_write"] in refused["failure"]["message"]
    assert (await sidecar.ask("pre_query", {"query": "select 1"}))["action"] == "block"
    _put(sidecar, 1, heliosdb_guard, permissions=["kv.read"], permissionsPolicy="Lenient")
    sidecar.wait_plugin("guard", state="Running")


async def test_3_a_higher_priority_runs_earlier(sidecar, heliosdb_guard, guests):
    """The guard is behind, and sees the new text."""
    _put(sidecar, 1, heliosdb_guard)
    _put(sidecar, 3, guests.answering(pre_query={"kind": "rewrite", "sql": "drop table t"}))
    sidecar.start()
    decision = await sidecar.ask("pre_query", {"query": "select 1", "normalized": "select ?"})
    assert (decision["action"], decision["plugin"]) == ("block", "guard")


_GET = '(import "env" "kv_get" (func $get (param i32 i32 i32 i32) (result i32)))'
_SET = '(import "env" "kv_set" (func $set (param i32 i32 i32 i32) (result i32)))'


def _run(command, sidecar):
    words = shlex.split(command)
    program = [sys.executable, "-m", "hookline_sidecar"] if words[0] == "hookline-sidecar" else [words[0]]
    subprocess.run([*program, *words[1:]], cwd=sidecar.root, check=True)


async def test_4_settings_are_in_the_store_and_an_administrator_changes_them(sidecar, guests):
    """From the manifest, by the command, and by the socket's HTTP, in this order."""
    reads = """
    (local.set $i (i64.extend_i32_s (call $get (i32.const 1024) (i32.const 5) (i32.const 2048) (i32.const 64))))
    (i64.or (i64.shl (i64.const 2048) (i64.const 32)) (local.get $i))"""
    name = _put(sidecar, 4, guests.module({"custom_hook": reads}, imports=_GET + _SET, data={1024: b"limit"}))
    sidecar.start()
    seen = [await sidecar.says()]
    for command in _code(4, "sh").splitlines():
        _run(command, sidecar)
        seen.append(await sidecar.says())
    assert (name, seen) == ("budgets", [3, 5, 5, 7])


async def test_5_a_plugin_that_reads_and_then_writes_loses_no_update_when_it_runs_alone(new_sidecar, guests):
    """Two workers, eight clients: each call counts."""
    counts = """
    (drop (call $get (i32.const 1024) (i32.const 1) (i32.const 2048) (i32.const 8)))
    (i64.store (i32.const 2048) (i64.add (i64.load (i32.const 2048)) (i64.const 1)))
    (drop (call $set (i32.const 1024) (i32.const 1) (i32.const 2048) (i32.const 8)))
    (i64.const 0)"""
    shows = """
    (drop (call $get (i32.const 1024) (i32.const 1) (i32.const 2048) (i32.const 8)))
    (local.set $i (i64.load (i32.const 2048)))
    (i32.store8 (i32.const 4096) (i32.add (i32.const 48) (i32.wrap_i64 (i64.div_u (local.get $i) (i64.const 100)))))
    (i32.store8 (i32.const 4097)
      (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (i64.div_u (local.get $i) (i64.const 10)) (i64.const 10)))))
    (i32.store8 (i32.const 4098) (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $i) (i64.const 10)))))
    (i64.const 17592186044419)"""
    module = guests.module(
        {"pre_query": counts, "custom_hook": shows}, imports=_GET + _SET, data={1024: b"n", 2048: bytes(8)}
    )
    sidecar = new_sidecar(workers=2)
    assert _put(sidecar, 5, module, limits={**_manifest(5)["spec"]["limits"], "timeout": "30s"}) == "guard"
    sidecar.start()

    async def ask_often():
        async with sidecar.client() as session:
            for _ in range(50):
                async with session.post("/v1/hooks/pre_query", json={"query": "select 1"}) as response:
                    assert "failure" not in await response.json()

    await asyncio.gather(*(ask_often() for _ in range(8)))
    assert await sidecar.says() == 400


async def test_6_limits_close_and_an_allocator_that_never_frees_is_not_pooled(sidecar, heliosdb_guard):
    """An input over 256 KiB is an overload; Pooled is refused, with a sentence, and what ran goes on."""
    assert "`256Ki`" in _STEPS[6]
    _put(sidecar, 1, heliosdb_guard)
    sidecar.start()
    small, large = ({"query": "x" * length} for length in (100_000, 300_000))
    assert (await sidecar.ask("pre_query", small))["action"] == "continue"
    closed = await sidecar.ask("pre_query", large)
    assert (closed["action"], closed["failure"]) == ("block", "overload")
    _put(sidecar, 1, heliosdb_guard, isolation={"mode": "Pooled"})
    refused = sidecar.wait_plugin("guard", state="LastGood")
    assert refused["failure"]["cause"] == "config"
    assert "PerCall" in refused["failure"]["message"]
    assert (await sidecar.ask("pre_query", _DROP))["action"] == "block"


async def test_7_an_audit_plugin_sees_every_statement(sidecar, guests):
    """As many as there were, with a queue that holds fewer."""
    counts = "(drop (call $incr (i32.const 1024) (i32.const 1) (i64.const 1))) (i64.const 0)"
    imports = '(import "hookline" "kv_incr" (func $incr (param i32 i32 i64) (result i64)))'
    _put(sidecar, 7, guests.module({"post_query": counts}, imports=imports, data={1024: b"n"}))
    sidecar.start()
    assert sidecar.get("/v1/bundle")[1]["plugins"][0]["observers"] == {"overflow": "Wait"}
    calls = [{"hook": "post_query", "input": [_DROP, {"success": True}]}] * 1000

    async def send():
        async with sidecar.client() as session, session.post("/v1/hooks:batch", json={"calls": calls}) as response:
            assert response.status == 200

    await asyncio.gather(*(send() for _ in range(3)))
    command = [sys.executable, "-m", "hookline_sidecar", "kv", "get", "guard", "n", "--state", str(sidecar.state)]

    def counted():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout.strip() == "3000"

    until(counted, "3000 statements in the log")


async def test_8_a_package_runs_if_a_key_of_the_folder_has_signed_it(sidecar, heliosdb_guard, guests):
    """Signed as HeliosDB's tool does. One by another key never replaces it, nor does one that is not pinned."""
    key, other = (Ed25519PrivateKey.generate() for _ in range(2))
    trust = sidecar.folder.path / "trust"
    trust.mkdir()
    (trust / "acme.pub").write_text(public_key(key))

    def package(module, by):
        return pack(module, signature(by, module))

    granted = {"hooks": ["pre_query"], "permissions": _manifest(1)["spec"]["permissions"]}
    _put(sidecar, 8, package(heliosdb_guard, key), **granted)
    sidecar.start()
    assert (await sidecar.ask("pre_query", _DROP))["action"] == "block"
    sidecar.folder.write("guard.tar.gz", package(guests.saying("another"), other))
    sidecar.wait_plugin("guard", state="LastGood")
    sidecar.wait_plugin("guard", failure=lambda failure: failure is not None and "not signed" in failure["message"])
    assert (await sidecar.ask("pre_query", _DROP))["action"] == "block"
    assert "`spec.sha256`" in _STEPS[8]
    pinned = hashlib.sha256(heliosdb_guard).hexdigest()
    _put(sidecar, 8, package(guests.saying("another"), key), sha256=pinned, **granted)
    sidecar.wait_plugin("guard", failure=lambda failure: failure is not None and "sha256" in failure["message"])
    assert (await sidecar.ask("pre_query", _DROP))["action"] == "block"


async def test_9_a_new_file_takes_over_and_a_bad_one_never_does(sidecar, guests):
    """Renamed over the old one, while calls go on."""
    _put(sidecar, 1, guests.saying("first"))
    sidecar.start()
    assert await sidecar.says() == "first"
    sidecar.folder.write("guard.wasm", guests.saying("second"))
    await sidecar.wait_says("second")
    sidecar.folder.write("guard.wasm", b"\0asm nonsense")
    sidecar.wait_plugin("guard", state="LastGood")
    assert await sidecar.says() == "second"


def test_the_page_tells_no_other_default_than_there_is():
    """Of the limits that it compares."""
    entry = Bundle.model_validate({"plugins": [{"name": "p"}]}).plugins[0]
    assert (entry.limits.input, entry.limits.memory, entry.limits.timeout) == (256 * 1024, 64 * 2**20, 100)
    assert (entry.isolation.mode, entry.observers.overflow, entry.kv.overwrite) == ("PerCall", "Drop", "Never")
