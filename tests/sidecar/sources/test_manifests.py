"""What stands in the plugin folder, and what becomes of it: the last good version stays in every bad case."""

from __future__ import annotations

import os
import pathlib

import pytest
import yaml

UNREADABLE = {
    "truncated": ("apiVersion: hookline.dev/v1alpha1\nkind: WasmPlugin\nmetadata: {name: victim", "line"),
    "not YAML": ("a: b: c", "line 1"),
    "a tab": ("metadata:\n\tname: victim", "line 2"),
    "an alias bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a]\nc: [*b, *b, *b, *b]", "alias"
    ),
    "brackets without end": ("[" * 1_000_000, "nested"),
    "blocks without end": ("- " * 500_000, "nested"),
    "mappings without end": ('{"a":' * 200_000, "nested"),
    "values without end": ('{"a":' * 500_000, "values and names"),
    "not UTF-8": (b"metadata: {name: victim}\nx: \xff\xfe", "utf-8"),
    "a program": (b"\x7fELF" + bytes(range(256)) * 20, "cannot be read"),
    "huge": (b"# " + b"x" * (5 * 2**20), "4194304"),
    "empty": ("", "no document"),
    "only a comment": ("# nothing\n", "no document"),
    "only separators": ("---\n---\n", "no document"),
    "a list": ("- 1\n- 2\n", "must be a mapping"),
    "a scalar": ("victim", "must be a mapping"),
    "a key twice": (
        "apiVersion: hookline.dev/v1alpha1\nkind: WasmPlugin\nspec:\n  mode: Shadow\n  mode: Enforce\n", "twice",
    ),
    "a number that JSON has not": ("a: .inf", "cannot be read"),
}  # fmt: skip


def changed(**changes):
    """A manifest of the victim with paths set; a None removes."""

    def make(make_manifest):
        document = make_manifest("victim", config={})
        for path, value in changes.items():
            *parents, last = path.split("__")
            target = document
            for part in parents:
                target = target.setdefault(part, {})
            if value is None:
                target.pop(last, None)
            else:
                target[last] = value
        return document

    return make


INVALID = {
    "no source": (changed(spec__source=None), "spec.source"),
    "an empty source": (changed(spec__source={}), "spec.source"),
    "two sources": (
        changed(spec__source={"file": {"path": "x"}, "configMap": {"name": "x"}}), "spec.source",
    ),
    "an unknown field": (changed(spec__prioritty=3), "spec.prioritty"),
    "an unknown field deep down": (changed(spec__limits={"time": "1s"}), "spec.limits.time"),
    "a wrong duration": (changed(spec__limits={"timeout": "soon"}), "spec.limits.timeout"),
    "a limit out of range": (changed(spec__limits={"timeout": "2h"}), "spec.limits.timeout"),
    "an unknown hook": (changed(spec__hooks=["pre_querry"]), "spec.hooks[0]"),
    "an unknown permission": (changed(spec__permissions=["root"]), "spec.permissions[0]"),
    "verify that fails open": (changed(spec__failurePolicy={"verify": "Open"}), "spec.failurePolicy.verify"),
    "a number in quotes": (changed(spec__priority="5"), "spec.priority"),
    "a truth as a number": (changed(spec__priority=True), "spec.priority"),
    "a number in quotes deep down": (changed(spec__limits={"concurrency": "1"}), "spec.limits.concurrency"),
    "no spec": (changed(spec=None), "spec"),
    "a spec that is text": (changed(spec="x"), "spec"),
    "another version": (changed(apiVersion="hookline.dev/v9"), "apiVersion"),
    "another group": (changed(apiVersion="hookline.io/v1alpha1"), "apiVersion"),
    "an unknown kind of ours": (changed(kind="WasmPluginn"), "kind"),
    "no kind": (changed(kind=None), "kind"),
    "no apiVersion": (changed(apiVersion=None), "kind"),
    "a kind that is a list": (changed(apiVersion="v1", kind=["Secret"]), "kind"),
}  # fmt: skip


@pytest.fixture(scope="module")
def running(new_sidecar, guests):
    """Two plugins: the one that is mistreated, and one whose hooks nothing may affect."""
    sidecar = new_sidecar()
    sidecar.folder.plugin("victim", guests.configured(), config={"custom_hook": "one"})
    sidecar.folder.plugin("witness", guests.answering(pre_query={"action": "block", "value": "seen"}))
    return sidecar.start()


@pytest.fixture
async def sidecar(running, eventually):
    """The sidecar; afterwards the folder is whole again, the supervisor is the same, and the witness answers."""
    supervisor = running.supervisor
    yield running
    assert (await running.ask("pre_query", {"query": ""}))["value"] == "seen"
    for path in running.folder.path.iterdir():
        if path.name not in {"victim.wasm", "witness.wasm", "witness.yaml"}:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    running.folder.plugin("victim", config={"custom_hook": "one"})
    eventually(lambda: not running.problems() and set(running.plugins()) == {"victim", "witness"}, "a whole folder")
    running.wait_plugin("victim", state="Running")
    await running.wait_says("one")
    assert running.supervisor == supervisor


@pytest.mark.parametrize("case", UNREADABLE)
async def test_a_file_that_cannot_be_read_leaves_its_plugin_as_it_was(sidecar, case):
    """The file is named, the cause too, and the plugin is shown as the last good one."""
    content, words = UNREADABLE[case]
    sidecar.folder.write("victim.yaml", content)
    problem = sidecar.wait_problem(words)
    assert problem["file"] == "victim.yaml"
    found = sidecar.wait_plugin("victim", state="LastGood")
    assert words in found["failure"]["message"]
    assert await sidecar.says() == "one"
    assert sidecar.get("/readyz")[0] == 200


@pytest.mark.parametrize("case", INVALID)
async def test_an_invalid_manifest_leaves_its_plugin_as_it_was(sidecar, make_manifest, case):
    """File and field are named."""
    make, where = INVALID[case]
    sidecar.folder.write("victim.yaml", make(make_manifest))
    problem = sidecar.wait_problem(where)
    assert (problem["file"], problem["field"]) == ("victim.yaml", where)
    sidecar.wait_plugin("victim", state="LastGood", failure=bool)
    assert await sidecar.says() == "one"


@pytest.mark.parametrize("name", ["My_Plugin", "", "x" * 300, {"a": 1}, None, "../../etc"])
async def test_a_name_that_nobody_can_have_is_a_problem(sidecar, make_manifest, name):
    """It is reported with its file, beside what runs, and takes nothing down."""
    document = make_manifest("x")
    document["metadata"]["name"] = name
    sidecar.folder.write("odd.yaml", document)
    assert sidecar.wait_problem("metadata.name")["file"] == "odd.yaml"
    assert sidecar.wait_plugin("unreadable.odd.yaml", state="LeftOut")
    assert await sidecar.says() == "one"


async def test_what_a_manifest_leaves_out_has_its_default(sidecar, make_manifest):
    """One limit of several, and a rollout without a deadline."""
    lean = make_manifest("victim", config={"custom_hook": "lean"}, limits={"memory": "1Mi"}, rollout={})
    del lean["spec"]["limits"]["timeout"]
    sidecar.folder.write("victim.yaml", lean)
    await sidecar.wait_says("lean")
    limits = {each["name"]: each["limits"] for each in sidecar.get("/v1/bundle")[1]["plugins"]}
    assert (limits["victim"]["timeout"], limits["victim"]["memory"]) == ("100ms", "1Mi")


async def test_an_edit_is_in_effect_from_one_call_to_the_next(sidecar):
    """A new setting of the same module."""
    before = sidecar.plugin("victim")["revision"]
    sidecar.folder.plugin("victim", config={"custom_hook": "two"})
    sidecar.wait_plugin("victim", state="Running", revision=lambda revision: revision != before)
    assert await sidecar.says() == "two"


@pytest.mark.parametrize("value", ["22:30", "52:54:00:12:34:56", "2024-04-01T10:00:00Z", "1.10.0", "1e400"])
async def test_a_setting_without_quotes_reaches_the_guest_as_from_kubernetes(sidecar, make_manifest, value):
    """What YAML 1.1 takes for a number or a date is text there."""
    text = yaml.safe_dump(make_manifest("victim", config={"custom_hook": "PLACE"}))
    sidecar.folder.write("victim.yaml", text.replace("PLACE", value))
    await sidecar.wait_says(value)


async def test_a_plugin_is_added_and_removed(sidecar, eventually):
    """With its file, nothing else."""
    sidecar.folder.write(
        "more.json",
        '{"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": '
        '{"name": "more"}, "spec": {"source": {"file": {"path": "witness.wasm"}}, "priority": 9}}',
    )
    sidecar.wait_plugin("more", state="Running")
    assert (await sidecar.ask("pre_query", {"query": ""}))["plugin"] == "more"
    sidecar.folder.remove("more.json")
    eventually(lambda: sidecar.plugin("more") is None, "no plugin 'more'")
    eventually(lambda: len(sidecar.get("/v1/bundle")[1]["plugins"]) == 2, "a bundle of two")
    assert (await sidecar.ask("pre_query", {"query": ""}))["plugin"] == "witness"


async def test_a_file_that_is_written_in_two_halves_is_read_when_it_is_whole(sidecar, make_manifest):
    """As a slow editor or ``kubectl cp`` does it: the half is reported, and then forgotten."""
    text = yaml.safe_dump(make_manifest("victim", config={"custom_hook": "whole"}))
    path = sidecar.folder.path / "victim.yaml"
    with path.open("w") as file:
        file.write(text[: len(text) // 2 + 1])
        file.flush()
        sidecar.wait_problem("victim.yaml")
        assert await sidecar.says() == "one"
        file.write(text[len(text) // 2 + 1 :])
    sidecar.wait_plugin("victim", state="Running", failure=None)
    assert await sidecar.says() == "whole"


async def test_a_name_that_is_there_twice_is_run_once_and_as_it_was(sidecar, make_manifest):
    """Trap 7: a second file of the same name does not run the plugin twice; both files are named."""
    second = make_manifest("victim", config={"custom_hook": "second"})
    sidecar.folder.write("other.yaml", second)
    sidecar.wait_problem("more than once, in other.yaml and victim.yaml")
    assert {each["file"] for each in sidecar.problems()} == {"other.yaml", "victim.yaml"}
    calls = sidecar.plugin("victim")["stats"].get("custom_hook", {"calls": 0})["calls"]
    assert await sidecar.says() == "one"
    sidecar.wait_plugin("victim", state="LastGood", stats=lambda stats: stats["custom_hook"]["calls"] == calls + 1)


async def test_a_name_that_is_twice_in_one_file_is_refused_too(sidecar, make_manifest):
    """Whichever came last would be an accident."""
    document = make_manifest("victim", config={"custom_hook": "second"})
    sidecar.folder.write("victim.yaml", [document, document])
    sidecar.wait_problem("more than once, in victim.yaml")
    assert await sidecar.says() == "one"


async def test_foreign_kinds_are_ignored_and_said_to_be(sidecar):
    """A folder may hold the whole application."""
    sidecar.folder.write("app.yaml", {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "victim"}})
    assert "ignored" in sidecar.wait_problem("Deployment")["message"]
    assert sidecar.plugin("victim")["state"] == "Running"
    assert set(sidecar.plugins()) == {"victim", "witness"}


async def test_what_kubectl_get_writes_is_read(sidecar, make_manifest):
    """A List, with the metadata and the status of the cluster."""
    document = make_manifest("victim", config={"custom_hook": "listed"})
    document["metadata"] |= {"resourceVersion": "1", "managedFields": [{}], "creationTimestamp": None}
    document["status"] = {"observedGeneration": 1}
    sidecar.folder.write("victim.yaml", {"apiVersion": "v1", "kind": "List", "items": [document]})
    await sidecar.wait_says("listed")


@pytest.mark.parametrize(
    "document",
    [
        {"data": ["x"]}, {"data": "x"}, {"stringData": {"a": 1}}, {"data": {"a": "no base64!"}},
        {"data": {"a": {}}}, {"metadata": {}}, {"metadata": "x"},
    ],
    ids=str,
)  # fmt: skip
async def test_a_secret_that_is_none_is_a_problem(sidecar, document):
    """Reported with its file; what does not use it is unaffected."""
    whole = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}} | document
    sidecar.folder.write("s.yaml", whole)
    assert sidecar.wait_problem("s.yaml")
    sidecar.wait_plugin("victim", state="Running")
    assert await sidecar.says() == "one"


async def test_what_is_no_regular_file_is_a_problem(sidecar):
    """A folder, a pipe that nobody writes to, and a link to itself: none is waited for."""
    folder = sidecar.folder.path
    (folder / "a.yaml").mkdir()
    os.mkfifo(folder / "b.yaml")
    (folder / "c.yaml").symlink_to("c.yaml")
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        sidecar.wait_problem(name)
    assert await sidecar.says() == "one"


async def test_a_file_name_that_is_not_utf_8_is_shown(sidecar):
    """It can still be found."""
    path = os.fsencode(sidecar.folder.path) + b"/\xff.yaml"
    with pathlib.Path(os.fsdecode(path)).open("wb") as file:  # noqa: ASYNC230 - two milliseconds
        file.write(b"nonsense")
    assert sidecar.wait_problem("must be a mapping")["file"] == "?.yaml"


async def test_a_problem_is_logged_once(sidecar):
    """However often the folder is read meanwhile, and with file and field."""
    sidecar.folder.plugin("victim", config={}, mode="Shadowy")
    sidecar.wait_problem("spec.mode")
    for number in range(5):
        sidecar.folder.write("more.yaml", f"# {number}")
        sidecar.wait_problem("more.yaml")
        sidecar.folder.remove("more.yaml")
        sidecar.folder.plugin("witness", priority=number)
        sidecar.wait_plugin("witness", priority=number)
    assert sidecar.log.count("victim.yaml: spec.mode") == 1
    sidecar.folder.plugin("witness")
    sidecar.wait_plugin("witness", priority=0)


async def test_a_new_bad_plugin_beside_running_ones_is_left_out(sidecar):
    """It is reported; the hooks of the others answer as before."""
    sidecar.folder.plugin("newcomer", b"\0asm nonsense", priority=100)
    found = sidecar.wait_plugin("newcomer", state="LeftOut", failure=bool)
    assert found["failure"]["cause"] == "verify"
    assert sidecar.get("/readyz")[0] == 200
    assert await sidecar.says() == "one"


async def test_a_module_without_hooks_is_refused_and_not_shown_as_running(sidecar, guests):
    """Trap 8: a plugin that nothing would ever call is an error that says so."""
    sidecar.folder.plugin("idle", guests.module({}))
    found = sidecar.wait_plugin("idle", state="LeftOut", failure=bool)
    assert "hook" in found["failure"]["message"]


async def test_a_module_without_a_manifest_of_its_own_answers_all_hooks_that_it_exports(sidecar):
    """Trap 8: what the resource does not restrict is called."""
    assert len(sidecar.plugin("victim")["hooks"]) == 12


async def test_a_folder_that_is_replaced_is_still_watched(sidecar):
    """``rm -r`` and ``git clone`` again: the events of the old folder have ended with it."""
    path = sidecar.folder.path
    old = path.rename(path.with_name("old"))
    sidecar.wait_problem("cannot be read")
    assert await sidecar.says() == "one"
    path.mkdir()
    for each in old.iterdir():
        each.rename(path / each.name)
    old.rmdir()
    for value in ("after", "and again"):
        sidecar.folder.plugin("victim", config={"custom_hook": value})
        await sidecar.wait_says(value)


async def test_a_module_outside_of_the_folder_is_noticed_too(sidecar, guests):
    """``source.file.path`` may lead to a build folder, from which no events come."""
    outside = sidecar.root / "build.wasm"
    outside.write_bytes(guests.saying("built"))
    sidecar.folder.plugin("victim", source={"file": {"path": "../build.wasm"}})
    await sidecar.wait_says("built")
    aside = outside.with_suffix(".new")
    aside.write_bytes(guests.saying("built again"))
    aside.replace(outside)
    await sidecar.wait_says("built again")
