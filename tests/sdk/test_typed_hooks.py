"""All twelve hooks with an SDK's types: a guest that answers what it was asked says the same in every language.

The guests of ``guests/`` are built by examples/build.py and called by the runtime, as a proxy's questions are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hookline_api.bundle import BundlePlugin
from hookline_api.hooks import Hook
from hookline_runtime.trial.trial import Called, compiled, on_trial

ROOT = Path(__file__).parents[2]
GUESTS = Path(__file__).parent / "guests"
LANGUAGES = sorted(folder.name.removeprefix("hooks-") for folder in GUESTS.glob("hooks-*"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All guests that can be built here; the builder says what it skipped."""
    out = tmp_path_factory.mktemp("guests")
    subprocess.run([sys.executable, ROOT / "examples" / "build.py", "--plugins", GUESTS, "--out", out], check=True)
    return out


@pytest.fixture(scope="module", params=LANGUAGES)
def guest(request: pytest.FixtureRequest, built: Path, tmp_path_factory: pytest.TempPathFactory):
    """A guest's entry, its bytes and its compiled form."""
    name = f"hooks-{request.param}"
    path = built / f"{name}.wasm"
    if not path.exists():
        message = f"the toolchain of {name} is missing, see what examples/build.py says"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    wasm = path.read_bytes()
    entry = BundlePlugin(name=name, hooks=list(Hook))
    return entry, wasm, compiled(wasm, tmp_path_factory.mktemp("compiled"))


async def asked(guest: Any, hook: str, data: Any) -> Called:
    """One call."""
    async with on_trial(*guest) as trial:
        return await trial.call(Hook(hook), json.dumps(data).encode())


def query(text: str, **more: Any) -> dict[str, Any]:
    """A statement, with what a proxy says of it."""
    context = {"request_id": "r-1", **more.pop("context", {})}
    return {"query": text, "hook_context": context, **more}


WHO = {"user_id": "7", "username": "al", "roles": ["a", "b"], "claims": {"n": [1]}}
EVIL = "a\"'\\\n\u0000\u0007é😀\u2028</script>"
ANSWERS: list[tuple[str, Any, dict[str, Any]]] = [
    ("authenticate", {"username": None}, {"action": "denied", "message": "no name"}),
    ("authenticate", {"username": "?"}, {"action": "defer"}),
    (
        "authenticate",
        {"headers": {"x-id": "7"}, "username": EVIL, "password": "p", "client_ip": "::1", "database": "d"},
        {
            "action": "success",
            "identity": {"user_id": "7", "username": EVIL, "roles": ["p"], "tenant_id": "d", "claims": {"ip": "::1"}},
        },
    ),
    (
        "authenticate",
        {"username": "u"},
        {
            "action": "success",
            "identity": {"user_id": "none", "username": "u", "roles": ["-"], "tenant_id": None, "claims": {"ip": ""}},
        },
    ),
    ("authorize", query("q", identity=None), {"action": "deny"}),
    ("authorize", query("q", identity=WHO, action="GET"), {"action": "allow", "reason": 'a+b {"n":[1]}'}),
    ("authorize", query("q", identity=WHO, action="PUT"), {"action": "deny", "reason": "nothing"}),
    ("authorize", query("q", identity=WHO, action="PUT", resource="/a"), {"action": "defer"}),
    ("pre_query", query("select 1"), {"action": "continue"}),
    ("pre_query", query("block", normalized=EVIL), {"action": "block", "value": EVIL}),
    ("pre_query", query("rewrite", tables=["a", "b.é"]), {"action": "rewrite", "value": "a,b.é"}),
    ("pre_query", query("cached"), {"action": "cached", "data_base64": "AP8="}),
    ("rewrite", query("q", context={"attributes": {"t": "new"}}), {"action": "rewrite", "value": "new"}),
    ("rewrite", query("q", context={"attributes": {"identity.roles": "x, r"}}), {"action": "block", "value": "r"}),
    ("rewrite", query("q", context={"attributes": {"identity.roles": "rr"}}), {"action": "continue"}),
    ("route", query("default"), {"action": "default"}),
    ("route", query("primary"), {"action": "primary"}),
    ("route", query("standby"), {"action": "standby"}),
    ("route", query("node", context={"client_id": "n1"}), {"action": "node", "target": "n1"}),
    ("route", query("branch", context={"branch": None}), {"action": "branch", "target": "none"}),
    ("route", query("block", context={"identity": "al"}), {"action": "block", "reason": "al"}),
    ("cache_get", query("q", key="k"), {"action": "hit", "data_base64": "aGk="}),
    ("cache_get", query("q", key="t"), {"action": "hit", "data_base64": "", "ttl_ms": 5}),
    ("cache_get", query("q", key="x"), {"action": "miss"}),
    ("cache_set", query("q", key="k", value="aGk=", ttl_ms=2**40), {"action": "store", "ttl_ms": 2**40 + 4}),
    ("cache_set", query("q", key="k", value="", is_read_only=True), {"action": "skip"}),
    ("cache_set", query("q", key="k", value="", ttl_ms=None), {"action": "store"}),
    ("custom_hook", {"a": [1, None, "é"]}, {"action": "answered", "value": {"a": [1, None, "é"]}}),
    ("custom_hook", None, {"action": "empty"}),
]


@pytest.mark.parametrize(
    ("hook", "data", "decision"), ANSWERS, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_a_hook_answers_with_its_types(guest, hook, data, decision) -> None:
    """What it was asked reaches it whole, and what it answers reaches the proxy."""
    called = await asked(guest, hook, data)
    assert called.cause is None, called.message
    found = {name: called.decision.get(name) for name in decision}
    assert found == decision


EVENT = {"hook_context": {"request_id": "r-1"}, "event": {"kind": "x"}}
LOGGED = [
    ("post_query", [query("q"), {"success": True}], "q true - 0 0 -"),
    (
        "post_query",
        [query("q"), {"success": False, "target_node": "n", "elapsed_us": 2**40, "response_bytes": 3, "error": "e"}],
        f"q false n {2**40} 3 e",
    ),
    ("metrics", EVENT, 'r-1 {"kind":"x"}'),
    ("on_connect", EVENT, 'r-1 {"kind":"x"}'),
    ("on_disconnect", {"hook_context": {"request_id": "r-2"}, "event": {}}, "r-2 {}"),
]


@pytest.mark.parametrize(("hook", "data", "line"), LOGGED, ids=lambda value: value if isinstance(value, str) else "")
async def test_an_observer_is_told_what_happened(guest, hook, data, line) -> None:
    """It answers nothing; what it logs says what it was told."""
    called = await asked(guest, hook, data)
    assert called.cause is None, called.message
    assert [each.text for each in called.log] == [line]


async def test_a_panic_says_where_and_why(guest) -> None:
    """A line in the log at level error, with file and line; the call has failed."""
    called = await asked(guest, "pre_query", query("panic", normalized="é"))
    assert called.cause == "trap"
    (line,) = called.log
    assert line.level == "error"
    assert "boom \\xe9" in line.text  # the host logs ASCII alone
    assert "lib.rs:" in line.text or "index.ts:" in line.text


async def test_an_error_that_is_not_handled_fails_the_call(guest) -> None:
    """It is never taken for an answer."""
    called = await asked(guest, "pre_query", query("error"))
    assert called.cause == "trap"
    assert "a cap is reached" in called.log[0].text
