"""Mistakes that a running sidecar meets: ``hookline why`` says where each plugin stopped, and what to do."""

from __future__ import annotations

import json

import pytest

import sidecars
from deliberate import Mistake, rows
from hookline_artifacts.module.annotate import with_sections

guests, new_sidecar, eventually = sidecars.guests, sidecars.new_sidecar, sidecars.eventually

READS = '(import "env" "kv_get" (func (param i32 i32 i32 i32) (result i32)))'
PLAIN = {"custom_hook": "(i64.const 0)"}
CASES = [{"name": "says hello", "hook": "custom_hook", "input": {}, "expect": {"action": "answered", "value": "hello"}}]


@pytest.fixture(scope="module")
def sidecar(new_sidecar, guests):
    """With a good plugin, and one for each mistake; it has decided about all."""
    made = new_sidecar(workers=1)
    plain = guests.module(PLAIN)
    made.folder.plugin("good", plain)
    made.folder.plugin("gone")
    made.folder.plugin("denied", guests.module(PLAIN, imports=READS))
    made.folder.plugin("cut", plain[:-3])
    made.folder.plugin("misspelt", plain, prioritty=1)
    made.folder.plugin("starts", guests.module(PLAIN, parts="(func $t unreachable) (start $t)"))
    made.folder.plugin("untrue", with_sections(plain, {"hookline.cases": json.dumps(CASES).encode()}))
    made.folder.plugin("digest", plain, sha256="0" * 64)
    made.folder.plugin("secret", plain, configFrom=[{"secretRef": {"name": "s"}, "key": "k", "path": "a"}])
    made.folder.plugin("away", source={"oci": {"reference": "127.0.0.1:1/p/guard:1", "insecure": True}})
    made.start(wait=False)
    made.wait_plugin("good", state="Running")
    for name in ("gone", "denied", "cut", "starts", "untrue", "digest", "secret", "away"):
        made.wait_plugin(name, failure=lambda failure: failure is not None)
    return made


def why(name, plugin, cause, step):
    """A row about one plugin."""
    return Mistake(name=name, done=["why", plugin, "--state", "{state}"], cause=cause, step=step)


SIDECARS = [
    why(
        "a plugin that is not there", "god", ["knows no plugin 'god'"], ["write its manifest into the sidecar's folder"]
    ),
    why(
        "a module that is not in the folder",
        "gone",
        ["the file gone.wasm cannot be read"],
        ["put the module there, or mend spec.source.file.path"],
    ),
    why("an import that is not granted", "denied", ["needs the permission kv.read"], ["add it to spec.permissions"]),
    why("a module that is cut in the folder", "cut", ["truncated or damaged"], ["next: push another module"]),
    why(
        "a manifest with a misspelt field in the folder",
        "misspelt",
        ["spec.prioritty: there is no such field"],
        ["next: mend that field in the file"],
    ),
    why(
        "a start function that traps in the sidecar",
        "starts",
        ["first instance failed"],
        ["mend what its start function or _initialize does"],
    ),
    why(
        "a module whose own case does not hold",
        "untrue",
        ["its own case 'says hello' does not hold"],
        ["mend the module or its cases"],
    ),
    why(
        "a module of another digest in the folder", "digest", ["spec.sha256 asks for 0000"], ["or change the resource"]
    ),
    why(
        "a Secret that is not in the folder",
        "secret",
        ["there is no Secret 's' with the key 'k'"],
        ["next: change the resource, or the Secret"],
    ),
    why("a registry that is away", "away", ["Connection refused"], ["next: mend the reference"]),
]


@rows(SIDECARS)
def test_a_mistake_in_a_sidecar_is_told(make, mistake, sidecar):
    """With its cause and the next step."""
    make(mistake, state=str(sidecar.state))
