"""``hookline status`` and ``why`` of one sidecar: what runs, and where each of the others stopped."""

from __future__ import annotations

import asyncio

import pytest

QUERY = {"query": "select 1"}


@pytest.fixture
def asked(sidecar):
    """The options for it: by its socket, and by its port."""
    return {"socket": ["--state", sidecar.state], "port": ["--admin", f"http://127.0.0.1:{sidecar.admin_port}"]}


@pytest.mark.parametrize("way", ["socket", "port"])
def test_what_runs_is_a_table(hookline, asked, way):
    """With the failure of each plugin that does not."""
    done = hookline("status", *asked[way])
    assert done.code == 0, done
    rows = {line.split()[0]: line for line in done.out.splitlines()}
    assert rows["NAME"].split()[:3] == ["NAME", "STATE", "VERSION"]
    assert rows["good"].split()[1] == "Running"
    assert "gone.wasm cannot be read" in rows["gone"]
    assert any(line.startswith("problem: unread.yaml: spec.prioritty: ") for line in done.out.splitlines())
    (one,) = hookline("status", "good", *asked[way], "--json").json["plugins"]
    assert one["state"] == "Running"
    done = hookline("status", "none", *asked[way])
    assert (done.code, "there are: " in done.sentence) == (3, True)


@pytest.mark.parametrize(
    ("name", "stage", "words"),
    [
        ("gone", "pull", "gone.wasm cannot be read"),
        ("denied", "settings", "kv.read"),
        ("broken", "verify", ""),
        ("unread", "apply", "prioritty"),
        ("none", "apply", "knows no plugin 'none'"),
    ],
)
def test_each_failure_has_its_stage(hookline, asked, name, stage, words):
    """What comes before went well, what comes after was not reached."""
    done = hookline("why", name, *asked["socket"], "--json")
    assert (done.code, done.json["stoppedAt"]) == (1, stage), done
    assert words in done.json["message"]
    assert done.json["next"]
    states = [each["state"] for each in done.json["stages"]]
    at = [each["stage"] for each in done.json["stages"]].index(stage)
    assert set(states[:at]) <= {"ok"}
    assert set(states[at + 1 :]) <= {"not reached"}


def test_what_runs_passed_every_stage_in_its_time(hookline, asked):
    """The times are the sidecar's own."""
    done = hookline("why", "good", *asked["port"], "--json")
    assert (done.code, done.json["stoppedAt"]) == (0, None), done
    stages = {each["stage"]: each for each in done.json["stages"]}
    assert {each["state"] for each in stages.values()} == {"ok"}
    for name in ("pull", "compile", "prepare", "switch"):
        assert stages[name]["seconds"] > 0
        assert stages[name]["at"].endswith("Z")
    assert "it runs, and its calls go well" in hookline("why", "good", *asked["port"]).out


async def test_a_plugin_that_traps_fails_at_its_answers(sidecar, asked, in_a_pod, eventually):
    """With the newest failure."""
    for _ in range(10):
        await sidecar.ask("route", QUERY)
    await asyncio.to_thread(eventually, lambda: sidecar.plugin("traps")["last_failure"], "the last failure")
    said = await asyncio.to_thread(in_a_pod, "why", "traps", *asked["socket"], "--json")
    assert (said.code, said.json["stoppedAt"]) == (1, "answers"), said
    assert "trap" in said.json["message"]


def test_a_sidecar_that_is_not_there_is_one_sentence(hookline, tmp_path):
    """Whichever way it is asked."""
    for options in (["--state", tmp_path], ["--admin", "http://127.0.0.1:1"], ["--admin", f"unix:{tmp_path}/x"]):
        done = hookline("status", *options)
        assert done.code == 3
        assert done.sentence.startswith("hookline: no sidecar answers at ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status", "--admin", "ftp://x"], "is neither http://HOST:PORT nor unix:PATH"),
        (["status", "--admin", "http://x", "--state", "."], "not both"),
        (["status", "--admin", "http://x", "-n", "shop"], "name a cluster"),
        (["status", "--admin-token", "x"], "--admin-token is for --admin"),
        (["status", "-A", "--state", "."], "--all-namespaces is for a cluster"),
        (["status", "guard", "-A"], "neither NAME nor --namespace"),
        (["why", "guard", "web", "--state", "."], "POD is for a cluster"),
        (["kv", "list", "--pod", "web", "--state", "."], "each names a sidecar"),
        (["kv", "list", "-n", "shop"], "name the pod"),
        (["kv", "get", "", "k"], "must not be empty"),
    ],
)
def test_options_that_do_not_go_together_are_told(hookline, sidecar, arguments, words):
    """With exit code 2."""
    done = hookline(*arguments)
    assert done.code == 2, done
    assert words in done.sentence


def test_without_kubectl_there_is_one_sentence(hookline, monkeypatch, tmp_path):
    """That says what else may be asked."""
    monkeypatch.setenv("PATH", str(tmp_path))
    done = hookline("status")
    assert done.code == 2
    assert done.sentence.startswith("hookline: a cluster is asked with kubectl, which is not on the PATH: install it")
