"""The demo: real plugins, a real sidecar, real calls. `make demo KEEP=1` leaves the sidecar running.

Shows the main job: plugins answer a proxy's questions; one is replaced while a load runs, and no call fails; broken
ones are kept out, among them a version that fails its own cases. The exit code is 0 only if all of that was seen.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import hashlib
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

import build as builder
import oci_layout

HERE = Path(__file__).parent
BUILT = HERE.parent / "build" / "plugins"
USED = ("api-keys", "sql-guard", "tenant-budget", "mask-columns", "region-router", "query-cache", "audit-log")
KEY, KEY_NAME = "hk_reports_0123456789", "reports"
LOAD_CONNECTIONS = 8
REPEAT = 25
PATIENCE_S = 300.0
"""After which something that has not happened never will, on a machine that is busy too."""

Json = dict[str, Any]
Change = tuple[tuple[str, str, str], ...]
"""In which files what is replaced by what."""
WORDING: Change = (
    ("sql-guard.c", '" is not allowed"', '" is not allowed; ask the database team"'),
    ("cases.json", ' is not allowed"', ' is not allowed; ask the database team"'),
)
FORGOTTEN: Change = (("sql-guard.c", '"drop truncate alter do"', '"truncate alter do"'),)
"""A usual mistake: it builds, it loads, and it lets DROP pass."""


class DemoError(Exception):
    """The demo did not show what it promises."""


class Sidecar:
    """A running sidecar and its folders."""

    def __init__(self, folder: Path, hooks: int, admin: int) -> None:
        self.plugins = folder / "plugins"
        self.layout = self.plugins / "modules"
        self.state = folder / "state"
        self.log = folder / "sidecar.log"
        self.hooks = f"http://127.0.0.1:{hooks}"
        self.admin = f"http://127.0.0.1:{admin}"
        self.ports = (hooks, admin)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the real thing, as anybody would."""
        program = Path(sys.executable).with_name("hookline-sidecar")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, "--plugins", self.plugins, "--state", self.state,
                 "--listen", f"127.0.0.1:{self.ports[0]}", "--admin", f"127.0.0.1:{self.ports[1]}"],
                stdout=log, stderr=log,
            )  # fmt: skip

    def runs(self) -> bool:
        """Whether its process has not ended."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """Stop it the way Kubernetes would."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=PATIENCE_S)

    def manifest(self, name: str, change: Callable[[Json], None] = lambda _: None) -> None:
        """Write a plugin's manifest, the example's own with a change, in one step as an editor does."""
        document = yaml.safe_load((HERE / "plugins" / name / "wasmplugin.yaml").read_text().split("\n---")[0])
        document["spec"]["source"] = {"oci": {"reference": f"oci-layout:modules:{name}-1.0.0"}}
        change(document["spec"])
        partial = self.plugins / f".{name}.partial"
        partial.write_text(yaml.safe_dump(document, sort_keys=False))
        partial.replace(self.plugins / f"{name}.yaml")


async def main() -> None:
    """The five steps."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keep", action="store_true", help="leave the sidecar running at the end")
    keep = arguments.parse_args().keep
    folder = Path(tempfile.mkdtemp(prefix="hookline-demo-"))
    hooks, admin = (_free_port(9901), _free_port(9902)) if keep else (_free_port(), _free_port())
    sidecar = Sidecar(folder, hooks, admin)
    try:
        step("building the plugins from C")
        build()
        newer = build_version(folder, "2.0.0", WORDING)
        careless = build_version(folder, "2.1.0", WORDING, FORGOTTEN)
        step("filling an OCI layout folder, writing manifests, starting a sidecar")
        fill(sidecar)
        sidecar.start()
        async with aiohttp.ClientSession() as http:
            await ready(sidecar, http)
            step("asking, as a proxy would")
            await ask_everything(sidecar, http)
            step("replacing sql-guard by a new version while a load runs")
            await replace_under_load(sidecar, http, newer)
            step("breaking it: half a module, a version that fails its own cases, a manifest with a typing error")
            await break_it(sidecar, http, careless)
        if keep:
            keep_running(sidecar)
            return
        print("\nAll of it held. `make demo KEEP=1` leaves the sidecar running for you to call.")
    except BaseException:
        if sidecar.log.exists():
            print("\nThe sidecar's log:\n" + sidecar.log.read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        if not keep or sys.exc_info()[0] is not None:
            sidecar.stop()
            shutil.rmtree(folder, ignore_errors=True)


def build() -> None:
    """Build what the demo uses; a second run finds everything built."""
    subprocess.run([sys.executable, HERE / "build.py", "--out", BUILT, "--only", ",".join(USED)], check=True)


def build_version(folder: Path, version: str, *changes: Change) -> bytes:
    """A next version of sql-guard, as its author would make one: change sources and cases, build, done."""
    source = folder / "source" / version / "sql-guard"
    shutil.copytree(HERE / "plugins" / "sql-guard", source)
    for name, old, new in (*itertools.chain.from_iterable(changes), _version(version)):
        file = source / name
        changed = file.read_text().replace(old, new)
        if changed == file.read_text():
            raise DemoError(f"the line of {name} that the demo changes is gone")
        file.write_text(changed)
    plugin = builder.Plugin(name="sql-guard", language="c", folder=source)
    result = builder.build(plugin, out=folder, cache=builder.DEFAULT_CACHE / "examples")
    if result.error is not None:
        raise DemoError(f"the changed sql-guard does not build: {result.error}")
    print(f"  {result.line()}")
    return (folder / "sql-guard.wasm").read_bytes()


def fill(sidecar: Sidecar) -> None:
    """The modules under tags, and a manifest for each plugin."""
    sidecar.plugins.mkdir(parents=True)
    for name in USED:
        module = (BUILT / f"{name}.wasm").read_bytes()
        digest = oci_layout.add(sidecar.layout, module, f"{name}-1.0.0")
        print(f"  {name:14} {len(module):7,} bytes  {digest[:19]}…")
        sidecar.manifest(name)
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "api-keys"},
        "stringData": {KEY_NAME: _sha256(KEY)},
    }  # fmt: skip
    (sidecar.plugins / "secret.yaml").write_text(yaml.safe_dump(secret))


async def ready(sidecar: Sidecar, http: aiohttp.ClientSession) -> None:
    """Wait until the sidecar says that every plugin is loaded."""
    begin = time.perf_counter()
    answer: Json = {}
    while time.perf_counter() - begin < PATIENCE_S and sidecar.runs():
        try:
            async with http.get(f"{sidecar.admin}/readyz") as response:
                answer = await response.json()
                if response.status == 200:
                    print(f"  ready after {time.perf_counter() - begin:.1f} s")
                    return
        except aiohttp.ClientConnectionError:
            pass
        await asyncio.sleep(0.05)
    raise DemoError(f"the sidecar did not get ready: {answer}")


def _query(query: str, **attributes: str) -> Json:
    first = query.split(maxsplit=1)[0].lower()
    return {
        "query": query,
        "is_read_only": first == "select",
        "hook_context": {
            "identity": "shop",
            "database": "shop",
            "attributes": {"tenant_id": "acme", **attributes},
        },
    }


async def ask_everything(sidecar: Sidecar, http: aiohttp.ClientSession) -> None:
    """One question of each kind, with what to expect of it."""
    read = _query("SELECT id, total FROM orders WHERE id = 7", **{"helios.region": "eu"})
    cached = read | {"key": "orders:7"}
    asked: list[tuple[str, str, Any, str]] = [
        ("authenticate", "x-api-key: " + KEY, {"headers": {"x-api-key": KEY}}, "success"),
        ("authenticate", "x-api-key: guessed", {"headers": {"x-api-key": "guessed"}}, "denied"),
        ("authorize", "reader may select sales",
         _query("SELECT 1") | {"identity": {"user_id": "1", "username": "r", "roles": ["reader"]},
                               "action": "select", "resource": "sales"}, "allow"),
        ("pre_query", "SELECT id, total FROM orders …", read, "continue"),
        ("pre_query", "DROP TABLE orders", _query("DROP TABLE orders"), "block"),
        ("pre_query", "DELETE FROM orders /* where */", _query("DELETE FROM orders /* where */"), "block"),
        ("pre_query", "SELECT email FROM users", _query("SELECT email FROM users"), "rewrite"),
        ("route", "a query of tenant acme", read, "branch"),
        ("cache_get", "orders:7", cached, "miss"),
        ("cache_set", "orders:7 = 3 bytes", cached | {"value": "eHl6", "ttl_ms": 60000}, "store"),
        ("cache_get", "orders:7", cached, "hit"),
        ("post_query", "it took 130 µs",
         [read, {"success": True, "elapsed_us": 130, "response_bytes": 64}], "accepted"),
        ("custom_hook", "is the audit log intact?", {"verify": True}, "answered"),
    ]  # fmt: skip
    for hook, shown, body, expected in asked:
        times = []
        for _ in range(REPEAT):
            decision, micros = await ask(sidecar, http, hook, body)
            times.append(micros)
            if decision["action"] != expected:
                raise DemoError(f"{hook} should have been answered {expected}: {decision}")
        tell(hook, shown, decision, statistics.median(times))
    print(f"  (asked {REPEAT} times each; the median as this client sees it, HTTP included)")


async def ask(sidecar: Sidecar, http: aiohttp.ClientSession, hook: str, body: Any) -> tuple[Json, float]:
    """One hook call: the decision, and how long it took."""
    begin = time.perf_counter()
    async with http.post(f"{sidecar.hooks}/v1/hooks/{hook}", json=body) as response:
        decision: Json = await response.json()
        if response.status != 200:
            raise DemoError(f"{hook} was answered {response.status}: {decision}")
    return decision, (time.perf_counter() - begin) * 1e6


def tell(hook: str, shown: str, decision: Json, micros: float) -> None:
    """A call and its decision in one line."""
    detail = next(
        (decision[name] for name in ("value", "message", "target", "reason", "data_base64") if name in decision),
        "",
    )
    if "identity" in decision:
        detail = f"{decision['identity']['username']}, roles {','.join(decision['identity']['roles'])}"
    said = decision["action"] + (f": {detail if isinstance(detail, str) else json.dumps(detail)}" if detail else "")
    by = f"by {decision['plugin']}" if decision["plugin"] else ""
    print(f"  {hook:12} {shown:34.34} → {said:58.58} {by:17} {micros:6.0f} µs")


async def replace_under_load(sidecar: Sidecar, http: aiohttp.ClientSession, newer: bytes) -> None:
    """Eight connections ask without a pause; meanwhile the manifest changes to a new tag."""
    seen: collections.Counter[str] = collections.Counter()
    async with load(sidecar, http, seen) as failed:
        await until(lambda: seen["drop is not allowed"] > 1000, "the load runs")
        oci_layout.add(sidecar.layout, newer, "sql-guard-2.0.0")
        begin = time.perf_counter()
        sidecar.manifest("sql-guard", lambda spec: spec["source"]["oci"].update(reference=_tag("2.0.0")))
        await until(lambda: len(seen) > 1, "the new version answers")
        took = time.perf_counter() - begin
        enough = seen.total() + 2000
        await until(lambda: seen.total() > enough, "the load goes on")
    for reason, count in seen.items():
        print(f"  {count:7,} calls were answered “{reason}”")
    print(f"  {len(failed):7,} calls failed; the new version answered {took:.1f} s after its manifest was saved")
    if failed or len(seen) != 2:
        raise DemoError(f"calls failed, or were answered by nobody we know: {failed[:3]} {dict(seen)}")


@asynccontextmanager
async def load(
    sidecar: Sidecar, http: aiohttp.ClientSession, seen: collections.Counter[str]
) -> AsyncIterator[list[str]]:
    """Asks the same question over and over, counts the answers, and lists what failed."""
    failed: list[str] = []
    running = True
    body = _query("DROP TABLE orders")

    async def client() -> None:
        while running:
            try:
                decision, _ = await ask(sidecar, http, "pre_query", body)
                seen[decision["value"].lower()] += 1
            except (DemoError, aiohttp.ClientError, KeyError) as error:
                failed.append(repr(error))

    clients = [asyncio.create_task(client()) for _ in range(LOAD_CONNECTIONS)]
    try:
        yield failed
    finally:
        running = False
        await asyncio.gather(*clients)


async def break_it(sidecar: Sidecar, http: aiohttp.ClientSession, careless: bytes) -> None:
    """What cannot be loaded, or fails its own cases, never replaces what runs, and the sidecar says why."""
    module = (BUILT / "sql-guard.wasm").read_bytes()
    oci_layout.add(sidecar.layout, module[: len(module) // 2], "sql-guard-3.0.0")
    sidecar.manifest("sql-guard", lambda spec: spec["source"]["oci"].update(reference=_tag("3.0.0")))
    await refused(sidecar, http, "truncated")
    oci_layout.add(sidecar.layout, careless, "sql-guard-2.1.0")
    sidecar.manifest("sql-guard", lambda spec: spec["source"]["oci"].update(reference=_tag("2.1.0")))
    await refused(sidecar, http, "its own case ")
    sidecar.manifest("sql-guard", lambda spec: spec["limits"].update(timeoutt=spec["limits"].pop("timeout")))
    await refused(sidecar, http, "timeoutt")
    decision, micros = await ask(sidecar, http, "pre_query", _query("DROP TABLE orders"))
    tell("pre_query", "DROP TABLE orders", decision, micros)
    if "database team" not in decision.get("value", ""):
        raise DemoError(f"version 2.0.0 should still answer: {decision}")


async def refused(sidecar: Sidecar, http: aiohttp.ClientSession, why: str) -> None:
    """Wait until /v1/plugins says that the last good version runs, and why."""
    state: Json = {}

    async def look() -> bool:
        async with http.get(f"{sidecar.admin}/v1/plugins") as response:
            found = await response.json()
        state.update(next(each for each in found["plugins"] if each["name"] == "sql-guard"))
        return state["state"] == "LastGood" and why in state["failure"]["message"]

    begin = time.perf_counter()
    while time.perf_counter() - begin < PATIENCE_S and sidecar.runs():
        if await look():
            print(f"  sql-guard is {state['state']}: {state['failure']['message']}")
            return
        await asyncio.sleep(0.05)
    raise DemoError(f"the sidecar should have refused it ({why}): {state}")


def keep_running(sidecar: Sidecar) -> None:
    """Say how to go on."""
    print(f"""
The sidecar runs as process {sidecar.process.pid if sidecar.process else "?"}. Try:

  curl -s {sidecar.hooks}/v1/hooks/pre_query -H 'content-type: application/json' -d '{{"query": "drop table t"}}'
  curl -s {sidecar.admin}/v1/plugins | {sys.executable} -m json.tool
  $EDITOR {sidecar.plugins}/sql-guard.yaml     # it has a typing error: mend it, and ask again
  tail -f {sidecar.log}

Stop it with: kill {sidecar.process.pid if sidecar.process else "?"}; its folder is {sidecar.plugins.parent}""")


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that the load shows."""
    end = time.perf_counter() + PATIENCE_S
    while not condition():
        if time.perf_counter() > end:
            raise DemoError(f"this did not happen within {PATIENCE_S} s: {what}")
        await asyncio.sleep(0.01)


def step(what: str) -> None:
    """Begin a step."""
    step.number = getattr(step, "number", 0) + 1  # type: ignore[attr-defined]
    print(f"\n{step.number}. {what}", flush=True)  # type: ignore[attr-defined]


def _version(version: str) -> tuple[str, str, str]:
    return "plugin.json", '"1.0.0"', f'"{version}"'


def _tag(version: str) -> str:
    return f"oci-layout:modules:sql-guard-{version}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _free_port(wanted: int = 0) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except DemoError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(os.EX_SOFTWARE)
