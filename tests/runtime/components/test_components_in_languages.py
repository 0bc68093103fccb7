"""JavaScript and Python, built by componentize-qjs and componentize-py, as their authors do it."""

from __future__ import annotations

import hmac
import json

import pytest

from hookline_api.hooks import Hook
from hookline_artifacts.module.inspection import inspect_module

PROBES = ("js-probe", "py-probe")
ALL = ["config.read", "kv.read", "kv.write", "crypto", "metrics", "cache.read", "cache.write"]
LIMITS = {"memory": "128Mi", "timeout": "5s", "output": "1Mi"}
POOLED = {"mode": "Pooled", "size": 1}


@pytest.fixture(params=PROBES)
def guest(request, probe, workshop):
    """Runs one of them."""
    wasm = probe(request.param)

    async def run(**settings):
        limits = LIMITS | settings.pop("limits", {})
        return await workshop.guest(wasm, limits=limits, **({"permissions": ALL, "isolation": POOLED} | settings))

    return run


async def asked(runtime, act: str):
    """What came of an act; or the failure's cause and message."""
    decision = await runtime.call(Hook.CUSTOM, json.dumps({"act": act}).encode())
    if "failure" in decision:
        last = runtime.plugins["guest"].last_failure
        return last.cause, last.message
    return decision["value"]["value"]


@pytest.mark.parametrize("name", PROBES)
def test_it_is_read_without_an_engine(name, probe) -> None:
    """Hooks and permissions are those of its plugin.json."""
    info = inspect_module(probe(name))
    assert info.is_component
    assert [hook.value for hook in info.hooks] == ["pre_query", "custom_hook"]
    assert info.permissions == {
        "config.read", "kv.read", "kv.write", "crypto", "metrics", "cache.read", "cache.write", "http.fetch",
    }  # fmt: skip


async def test_it_answers_a_hook(guest) -> None:
    """From the dictionary of the wire to a decision."""
    runtime = await guest()
    decision = await runtime.call(Hook.PRE_QUERY, '{"query": "select \'ü\'"}'.encode())
    assert (decision["action"], decision["value"]) == ("rewrite", "select 'ü' -- seen")
    assert (await runtime.call(Hook.PRE_QUERY, b'{"query": "drop table t"}'))["action"] == "block"


async def test_it_reaches_every_kind_of_host_function(guest, workshop) -> None:
    """With its permissions; values come as the language has them, and errors are raised."""
    workshop.kv.put("guest", b"bytes", b"\xff\xfe")
    runtime = await guest(config={"a": {"b": [1, "zwei"]}})
    assert await asked(runtime, "config") == [[1, "zwei"], "else"]
    assert await asked(runtime, "digests") == [
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        hmac.digest(b"key", b"text", "sha256").hex(),
    ]
    wrong = {"error": "metric-inc: an argument is not what the function takes"}
    assert await asked(runtime, "metrics") == [None, wrong]
    assert runtime.plugins["guest"].host.metrics["asked"].value == 2
    assert await asked(runtime, "keys") == [None, None, "grüße", 3, ["bytes", "k", "n"], False, True, True, None]
    assert await asked(runtime, "bytes") == {"error": "kv-get: the value is not text in UTF-8"}
    assert all(await asked(runtime, "clock"))


async def test_a_permission_that_is_missing_is_an_error_with_its_name(guest) -> None:
    """And is counted."""
    runtime = await guest(permissions=["config.read"])
    answers = await asked(runtime, "keys")
    assert answers[0] == {"error": "kv-get: denied: the permission kv.read is not granted"}
    assert answers[1] == {"error": "kv-set: denied: the permission kv.write is not granted"}
    assert runtime.plugins["guest"].host.denied["kv_get"] == 2
    assert (await asked(runtime, "fetch"))["error"]["cause"] == "denied"


async def test_what_it_throws_is_the_failures_message(guest) -> None:
    """In one sentence, with its place, and the instance is not used again."""
    runtime = await guest()
    assert await asked(runtime, "count") == 1
    assert await asked(runtime, "count") == 2
    cause, message = await asked(runtime, "throw")
    assert cause == "trap"
    assert message.startswith("the plugin failed: TypeError: what a pity (")
    assert await asked(runtime, "count") == 1
    assert await asked(runtime, "fail") == ("trap", "the plugin failed: this is why")


async def test_a_value_of_a_secret_is_in_no_message(guest) -> None:
    """What a guest says is left out where its settings hold such values."""
    runtime = await guest(config={"password": "swordfish"}, secret_paths=["password"])
    _, message = await asked(runtime, "fail")
    assert "this is why" not in message


async def test_a_loop_memory_without_end_and_a_giant_answer_are_failures(guest) -> None:
    """Each ends the call, and the next one is answered."""
    runtime = await guest(limits={"timeout": "500ms"}, isolation={"mode": "Pooled", "size": 1})
    assert await asked(runtime, "loop") == ("timeout", "custom_hook took longer than limits.timeout (500 ms)")
    assert (await asked(runtime, "large"))[0] == "result"
    assert await asked(runtime, "echo") == {"act": "echo"}


async def test_memory_without_end_is_a_failure(guest) -> None:
    """limits.memory holds, and the language says so."""
    runtime = await guest(limits={"timeout": "10s"})
    cause, message = await asked(runtime, "memory")
    assert cause == "trap"
    assert "memory" in message.lower()
    assert await asked(runtime, "echo") == {"act": "echo"}


async def test_what_it_prints_is_in_the_log(guest, caplog) -> None:
    """Where a person looks for it."""
    caplog.set_level("INFO", "hookline.guest")
    runtime = await guest()
    await asked(runtime, "print")
    assert "guest: a line" in [each.getMessage() for each in caplog.records]


async def test_it_may_print_for_ever(probe, workshop) -> None:
    """A runtime may ask for its stream with each line, and gives it back; there is a bound for those that it keeps."""
    runtime = await workshop.guest(probe("py-probe"), limits=LIMITS, isolation={"mode": "Pooled", "size": 1})
    for _ in range(1_100):
        assert await asked(runtime, "print") is None


async def test_python_gets_no_files_and_does_not_sleep(probe, workshop) -> None:
    """WASI grants nothing: there is no folder, and who waits for a clock ends its call."""
    runtime = await workshop.guest(probe("py-probe"), limits=LIMITS, isolation=POOLED)
    answer = await asked(runtime, "folder")
    assert "error" in answer or answer[0] == "trap"
    assert (await asked(runtime, "sleep"))[0] == "trap"


async def test_an_asynchronous_function_is_refused_in_words(probe, workshop) -> None:
    """A promise would be an empty object."""
    runtime = await workshop.guest(probe("js-probe"), limits=LIMITS)
    assert await asked(runtime, "later") == (
        "trap",
        "the plugin failed: the function for custom_hook is asynchronous, and a hook is answered at once",
    )
