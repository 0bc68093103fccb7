"""Mistakes at the command line, in projects, and about clusters and sidecars."""

from __future__ import annotations

import json
import socket

import pytest

from deliberate import Mistake, local, rows
from guests import Guests

GOOD = Guests().module({"pre_query": "(i64.const 0)"})
TOML = 'language = "c"\nbuild = ["{python}", "-c", "{script}"]\nmodule = "out.wasm"\n'


def done(name, arguments, cause, step, *, code=2, **files):
    """A row about one command line."""
    return Mistake(name=name, done=arguments.split(), cause=cause, step=step, code=code, **files)


def project(name, toml, cause, step, *, code=2, arguments="build g", **more):
    """A row about one project."""
    files = {"g/hookline.toml": toml, "g/plugin.json": {"name": "guard"}} | {f"g/{key}": value for key, value in more.items()}
    return Mistake(name=name, done=arguments.split(), files=files, cause=cause, step=step, code=code)


CC = 'language = "c"\nbuild = ["{}", "-c", "{}"]\nmodule = "out.wasm"\n'
COMMANDS = [
    done("no such command", "chekc p.yaml", (), ()),
    done("no such command of a group", "kv lst", (), ()),
    done("no such option", "check p.yaml --strikt", (), ()),
    done("an argument is missing", "check", (), ()),
    done("an argument too many", "inspect a.wasm b.wasm", (), ()),
    done("a choice that is none", "check p.yaml --for clusters", (), ()),
    done("a number that is none", "call g.wasm pre_query x --repeat many", (), ()),
    done("no such language", "new --lang cobol g", (), ()),
    done("no language", "new g", (), ()),
    done("a folder that is there", "new --lang c g", (), (), files={"g/a": "b"}, code=3),
    done("a name that is none", "new --lang c g --name My_Guard", (), ()),
    done("no project", "build g", (), (), files={"g/a": "b"}),
    done("no folder", "build g", (), (), code=3),
    done("limits without a value", "call guard.wasm pre_query x --limit timeout", (), (), files={"guard.wasm": GOOD}),
    done("a plugin.json that is no JSON", "annotate guard.wasm --plugin plugin.json", (), (), files={"guard.wasm": GOOD, "plugin.json": "{name: guard}"}),
    done("a plugin.json with a misspelt field", "annotate guard.wasm --plugin plugin.json", (), (), files={"guard.wasm": GOOD, "plugin.json": {"name": "guard", "permisions": []}}),
    done("cases with a misspelt field", "test guard.wasm --cases cases.json", (), (), files={"guard.wasm": GOOD, "cases.json": [{"name": "a", "hook": "pre_query", "inptu": {}, "expect": {"action": "continue"}}]}),
    done("a case that expects nothing", "test guard.wasm --cases cases.json", (), (), files={"guard.wasm": GOOD, "cases.json": [{"name": "a", "hook": "pre_query", "input": {"query": "q"}, "expect": {}}]}),
    project("a hookline.toml that is no TOML", "language: c\n", (), ()),
    project("a hookline.toml with a misspelt field", 'langauge = "c"\n', (), ()),
    project("a hookline.toml without build", 'language = "c"\nmodule = "out.wasm"\n', (), ()),
    project("a compiler that is not there", CC.format("no-such-compiler", ""), (), (), code=3),
    project("source that does not compile", 'language = "c"\nbuild = ["${python}", "-m", "ziglang", "cc", "--target=wasm32-wasi", "g.c"]\nmodule = "out.wasm"\n', (), (), code=1, **{"g.c": "int f( {\n"}),
    project("a build that makes no module", 'language = "c"\nbuild = ["${python}", "-c", "pass"]\nmodule = "out.wasm"\n', (), (), code=1),
    project("a project that is not built", CC.format("x", ""), (), (), code=3, arguments="call g pre_query x"),
    done("no cluster", "why guard", (), (), code=3),
    done("a kubeconfig that is none", "why guard --kubeconfig k.yaml", (), (), files={"k.yaml": "a: b: c"}, code=3),
    done("no sidecar at this address", "why guard --admin http://{nobody}", (), (), code=3),
    done("no sidecar with this state", "why guard --state state", (), (), code=3),
    done("a sidecar and a cluster", "why guard --state state --namespace shop", (), ()),
    done("a key without its plugin", "kv get", (), ()),
    done("no private key", "sign oci-layout:l:1 --key k.key", (), ()),
]


@pytest.fixture
def nobody():
    """An address at which nobody listens, and nobody else will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@rows(COMMANDS)
def test_a_mistake_at_the_command_line_is_told(make, mistake, nobody):
    """With its cause and the next step."""
    make(mistake, nobody=nobody)
