"""A first start: what cannot be had fails closed, and the sidecar says that it is not ready, and why."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from hookline_artifacts.module.annotate import with_sections
from waiting import PATIENCE_S, until_true

QUERY = {"query": "select 1"}
NOWHERE = {"file": {"path": "nowhere.wasm"}}


def not_ready(sidecar, eventually):
    """The reasons that ``/readyz`` gives, once a bundle runs."""
    eventually(lambda: (sidecar.looks("/v1/bundle") or [0])[0] == 200, "a bundle")
    status, body = sidecar.get("/readyz")
    assert status == 503
    assert body["ready"] is False
    return " ".join(body["reasons"])


async def test_an_empty_folder_is_ready_and_decides_nothing(sidecar):
    """No plugin, no opinion."""
    sidecar.start()
    assert (await sidecar.ask("pre_query", QUERY))["action"] == "continue"


@pytest.mark.parametrize("content", ["kind: [", ""], ids=["half", "empty"])
async def test_an_unreadable_manifest_fails_closed(sidecar, eventually, content):
    """Nobody knows which guard it was: every deciding hook refuses, and the file is named."""
    sidecar.folder.write("guard.yaml", content)
    sidecar.start(wait=False)
    assert "guard.yaml" in not_ready(sidecar, eventually)
    decision = await sidecar.ask("pre_query", QUERY)
    assert (decision["action"], decision["failure"]) == ("block", "config")
    assert (await sidecar.ask("authorize", QUERY))["action"] == "deny"
    assert (await sidecar.ask("on_connect", {}))["action"] == "accepted"


async def test_a_manifest_that_is_mended_makes_it_ready(sidecar, guests, eventually):
    """Without a restart."""
    sidecar.folder.write("guard.yaml", "kind: [")
    sidecar.start(wait=False)
    not_ready(sidecar, eventually)
    sidecar.folder.plugin("guard", guests.saying("mended"))
    sidecar.wait_ready()
    assert await sidecar.says() == "mended"
    assert set(sidecar.plugins()) == {"guard"}


async def test_an_invalid_manifest_fails_closed_under_its_own_name(sidecar, guests, eventually):
    """The plugin is known, so it is named."""
    sidecar.folder.plugin("guard", guests.saying(1), mode="Sometimes")
    sidecar.start(wait=False)
    assert "spec.mode" in not_ready(sidecar, eventually)
    assert sidecar.plugin("guard")["state"] == "Closed"
    assert (await sidecar.ask("pre_query", QUERY))["plugin"] == "guard"


async def test_two_plugins_of_one_name_fail_closed(sidecar, guests, make_manifest, eventually):
    """Trap 7, at the start: neither is run by accident."""
    sidecar.folder.plugin("guard", guests.saying(1))
    sidecar.folder.write("copy.yaml", make_manifest("guard"))
    sidecar.start(wait=False)
    assert "copy.yaml and guard.yaml" in not_ready(sidecar, eventually)
    assert (await sidecar.ask())["failure"] == "config"


@pytest.mark.parametrize(
    ("policy", "action"), [({}, "block"), ({"fetch": "Closed"}, "block"),
                           ({"fetch": "Open"}, "continue")], ids=str,
)  # fmt: skip
async def test_a_module_that_cannot_be_had_decides_by_its_failure_policy(sidecar, eventually, policy, action):
    """LastGood without anything good is Closed; Open is as if it were not there, and that is ready."""
    sidecar.folder.plugin("guard", source=NOWHERE, failurePolicy=policy)
    sidecar.start(wait=False)
    eventually(lambda: (sidecar.looks("/v1/bundle") or [0])[0] == 200, "a bundle")
    found = sidecar.wait_plugin("guard", failure=bool)
    assert found["failure"]["cause"] == "fetch"
    assert found["more"] == "docs/reference/errors.md#fetch"
    decision = await sidecar.ask("pre_query", QUERY)
    assert decision["action"] == action
    if action == "block":
        assert decision["failure"] == "fetch"
        assert found["state"] == "Closed"
        said = not_ready(sidecar, eventually)
        assert "nowhere.wasm" in said
        assert said.endswith("spec.failurePolicy.fetch: Open lets pods start without it")
        eventually(lambda: f"not ready: {said}" in sidecar.log, "the same sentence in the log")
    else:
        assert found["state"] == "LeftOut"
        assert sidecar.get("/readyz")[0] == 200


async def test_a_slow_source_does_not_hold_up_the_start(sidecar, guests, eventually):
    """After five seconds the plugin that is still being asked for fails closed; the other one answers."""
    sidecar.folder.plugin("guard", source={"oci": {"reference": "127.0.0.1:1/none:v1", "insecure": True}})
    sidecar.folder.plugin("other", guests.saying("fine"), hooks=["custom_hook"], priority=1)
    sidecar.start(wait=False)
    assert "guard" in not_ready(sidecar, eventually)
    sidecar.wait_plugin("other", state="Running")
    assert await sidecar.says() == "fine"
    found = sidecar.wait_plugin("guard", state="Closed", failure=bool)
    assert "127.0.0.1:1" in found["failure"]["message"]


async def test_calls_meanwhile_hear_that_it_is_being_fetched_and_then_why_it_cannot_be(sidecar, guests, eventually):
    """Of a plugin that is loaded for the first time nothing has failed yet; what runs says so, and so does the log."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(_):
        asked.set()
        await answer.wait()
        return web.Response(status=404)

    app = web.Application()
    app.router.add_get("/guard.wasm", slow)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/guard.wasm"
        sidecar.folder.plugin("guard", source={"http": {"url": url, "sha256": "0" * 64}})
        sidecar.folder.plugin("other", guests.saying("fine"), hooks=["custom_hook"], priority=1)
        await asyncio.to_thread(sidecar.start, wait=False)
        said = await asyncio.to_thread(not_ready, sidecar, eventually)
        assert "plugin 'guard' fails closed: the plugin is being fetched" in said
        assert "failurePolicy" not in said  # nothing has failed
        await asyncio.to_thread(sidecar.wait_plugin, "other", state="Running")
        await asyncio.wait_for(asked.wait(), PATIENCE_S)
        found = await asyncio.to_thread(sidecar.plugin, "guard")
        assert (found["state"], found["loading"], found["failure"]) == ("Closed", "fetching", None)
        decision = await sidecar.ask("pre_query", QUERY)
        assert (decision["value"], decision["failure"]) == ("plugin 'guard' is being fetched; ask again", "fetch")
        logged = "runs: other; refusing in place of guard (fetching)"
        await asyncio.to_thread(eventually, lambda: logged in sidecar.log, "who runs and who does not")
        answer.set()
        await asyncio.to_thread(sidecar.wait_plugin, "guard", failure=bool)

        async def is_told():
            return "is not loaded (fetch)" in (await sidecar.ask("pre_query", QUERY))["value"]

        await until_true(is_told, "the workers were told why")
    finally:
        answer.set()
        await runner.cleanup()


async def test_the_log_says_what_is_compiled_and_runs_only_of_what_runs(sidecar, guests, eventually):
    """Compiling is the slow part of a start; a placeholder does not run."""
    sidecar.folder.plugin("guard", source=NOWHERE)
    sidecar.folder.plugin("other", guests.saying("fine"), hooks=["custom_hook"], priority=1)
    sidecar.start(wait=False)
    sidecar.wait_plugin("other", state="Running")
    eventually(lambda: "runs: other; refusing in place of guard (fetch)" in sidecar.log, "who runs and who does not")
    log = sidecar.log
    assert log.index("plugin 'other': compiling its module of ") < log.index("plugin 'other': compiled in ")
    assert "plugin 'guard': compil" not in log


async def test_a_description_that_cannot_be_read_is_a_warning_in_the_log_and_a_note(sidecar, guests):
    """And the plugin runs."""
    sidecar.folder.plugin("guard", with_sections(guests.saying("fine"), {"hookline.plugin": b"{nothing"}))
    sidecar.start()
    (note,) = sidecar.plugin("guard")["description"]["notes"]
    assert note.startswith("the section hookline.plugin is ignored: it cannot be read (")
    (line,) = [each for each in sidecar.log.splitlines() if "hookline.plugin is ignored" in each]
    assert "plugin 'guard'" in line
    assert "WARNING" in line.upper()


async def test_a_placeholder_refuses_only_what_its_plugin_would_be_asked(sidecar, guests, eventually):
    """Hooks and match of the manifest count, also where the module is not there."""
    sidecar.folder.plugin("guard", source=NOWHERE, hooks=["pre_query"], match={"databases": ["prod"]})
    sidecar.folder.plugin("other", guests.saying("fine"))
    sidecar.start(wait=False)
    not_ready(sidecar, eventually)
    sidecar.wait_plugin("other", state="Running")  # a busy machine may need more than the five seconds for it
    assert (await sidecar.ask("pre_query", QUERY | {"hook_context": {"database": "prod"}}))["action"] == "block"
    assert (await sidecar.ask("pre_query", QUERY | {"hook_context": {"database": "dev"}}))["action"] == "continue"
    assert (await sidecar.ask("authorize", QUERY))["action"] == "defer"
    assert await sidecar.says() == "fine"


async def test_an_observer_that_cannot_be_had_does_not_make_it_unready(sidecar):
    """It would decide nothing."""
    sidecar.folder.plugin("audit", source=NOWHERE, hooks=["post_query"])
    sidecar.start()
    assert sidecar.plugin("audit")["failure"]["cause"] == "fetch"


@pytest.mark.parametrize(
    ("policy", "state", "answer"),
    [("LastGood", "LastGood", "good"), ("Closed", "Closed", None), ("Open", "LeftOut", None)],
)
async def test_a_later_failure_is_answered_by_the_new_policy(sidecar, guests, policy, state, answer):
    """The manifest changes to a source that is not there."""
    sidecar.folder.plugin("guard", guests.saying("good"))
    sidecar.start()
    sidecar.folder.plugin("guard", source=NOWHERE, failurePolicy={"fetch": policy})
    sidecar.wait_plugin("guard", state=state, failure=bool)
    decision = await sidecar.ask()
    assert decision.get("failure") == ("fetch" if state == "Closed" else None)
    if answer:
        assert decision["value"] == answer
    sidecar.folder.plugin("guard", guests.saying("back"))
    await sidecar.wait_says("back")


async def test_a_start_function_that_loops_never_runs(sidecar, guests, eventually):
    """At a first start the plugin fails closed; it is tried, and not tried for ever."""
    loop = "(func $start (loop $ever (br $ever))) (start $start)"
    sidecar.folder.plugin("guard", guests.module({"custom_hook": guests.echo}, parts=loop))
    sidecar.start(wait=False)
    sidecar.wait_plugin("guard", state="Closed", failure=lambda failure: failure and failure["cause"] == "verify")
    assert "guard" in not_ready(sidecar, eventually)
    assert (await sidecar.ask())["failure"] == "verify"


async def test_settings_that_come_in_any_order_are_resolved(sidecar, guests):
    """A Secret may be written after the plugin that needs it."""
    reference = {"secretRef": {"name": "s"}, "key": "k", "path": "custom_hook"}
    sidecar.folder.plugin("guard", guests.configured(), config={}, configFrom=[reference])
    sidecar.start(wait=False)
    sidecar.wait_plugin("guard", failure=lambda failure: failure and "Secret 's'" in failure["message"])
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "late"}}
    sidecar.folder.write("secret.yaml", secret)
    sidecar.wait_ready()
    assert await sidecar.says() == "late"
