"""Mistakes at the command line, in projects, and about clusters and sidecars."""

from __future__ import annotations

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
    files = {"g/hookline.toml": toml, "g/plugin.json": {"name": "guard"}} | {
        f"g/{key}": value for key, value in more.items()
    }
    return Mistake(name=name, done=arguments.split(), files=files, cause=cause, step=step, code=code)


CC = 'language = "c"\nbuild = ["{}", "-c", "{}"]\nmodule = "out.wasm"\n'
COMMANDS = [
    done("no such command", "chekc p.yaml", ["No such command 'chekc'"], ["Did you mean 'check'?"]),
    done("no such command of a group", "kv lst", ["No such command 'lst'"], ["Did you mean 'list'?"]),
    done("no such option", "check p.yaml --strikt", ["No such option '--strikt'"], ["Did you mean '--strict'?"]),
    done("an argument is missing", "check", ["Missing argument 'PATH...'"], ["Try 'hookline check --help'"]),
    done(
        "an argument too many",
        "inspect a.wasm b.wasm",
        ["the second argument, b.wasm, is for what runs in a pod, and a.wasm is an artifact"],
        ["inspect pod/NAME, or it alone"],
    ),
    done("a choice that is none", "check p.yaml --for clusters", ["'clusters' is not one of"], ["'cluster', 'folder'"]),
    done(
        "a number that is none",
        "call g.wasm pre_query x --repeat 0",
        ["'--repeat': 0 is not in the range"],
        ["1<=x<=100000"],
    ),
    done(
        "no such language",
        "new --lang cobol g",
        ["no template for the language 'cobol'"],
        ["there are assemblyscript, c, go"],
    ),
    done("no language", "new g", ["give a language and a folder"], ["hookline new --lang LANGUAGE DIR"]),
    done(
        "a folder that is there",
        "new --lang c g",
        ["g is not empty"],
        ["name a folder that is not there"],
        files={"g/a": "b"},
    ),
    done(
        "a name that is none",
        "new --lang c g --name My_Guard",
        ["'My_Guard' cannot be a plugin's name"],
        ["it has lower-case letters, digits and '-'"],
    ),
    done(
        "no project",
        "build g",
        ["it has no hookline.toml"],
        ["'hookline new --lang LANGUAGE DIR' makes a project"],
        files={"g/a": "b"},
    ),
    done(
        "no folder", "build g", ["the folder g is not there"], ["'hookline new --lang LANGUAGE DIR' makes one"], code=3
    ),
    done(
        "limits without a value",
        "call guard.wasm pre_query x --limit timeout",
        ["--limit 'timeout'"],
        ["write NAME=VALUE"],
        files={"guard.wasm": GOOD},
    ),
    done(
        "a plugin.json that is no JSON",
        "annotate guard.wasm --plugin plugin.json",
        ["plugin.json is not JSON"],
        ["line 1, column 2"],
        files={"guard.wasm": GOOD, "plugin.json": "{name: guard}"},
    ),
    done(
        "a plugin.json with a misspelt field",
        "annotate guard.wasm --plugin plugin.json",
        ["'permisions' is ignored"],
        ["did you mean 'permissions'?"],
        files={"guard.wasm": GOOD, "plugin.json": {"name": "guard", "permisions": []}},
        code=0,
    ),
    done(
        "cases with a misspelt field",
        "test guard.wasm --cases cases.json",
        ["there is no field 'inptu'"],
        ["did you mean 'input'?"],
        files={
            "guard.wasm": GOOD,
            "cases.json": [{"name": "a", "hook": "pre_query", "inptu": {}, "expect": {"action": "continue"}}],
        },
    ),
    done(
        "a case that expects nothing",
        "test guard.wasm --cases cases.json",
        ["'expect' is empty"],
        ["say what the decision has to have"],
        files={
            "guard.wasm": GOOD,
            "cases.json": [{"name": "a", "hook": "pre_query", "input": {"query": "q"}, "expect": {}}],
        },
    ),
    project(
        "a hookline.toml that is no TOML",
        "language: c\n",
        ["g/hookline.toml is not TOML"],
        ["Expected '=' after a key"],
    ),
    project(
        "a hookline.toml with a misspelt field",
        'langauge = "c"\n',
        ["there is no field 'langauge'"],
        ["did you mean 'language'?"],
    ),
    project(
        "a hookline.toml without build",
        'language = "c"\nmodule = "out.wasm"\n',
        ["build is missing"],
        ['build = ["program", "argument"]'],
    ),
    project(
        "a compiler that is not there",
        CC.format("no-such-compiler", ""),
        ["there is no program 'no-such-compiler'"],
        ["install it, or name another in hookline.toml"],
        code=3,
    ),
    project(
        "source that does not compile",
        'language = "c"\nbuild = ["${python}", "-m", "ziglang", "ast-check", "g.zig"]\nmodule = "out.wasm"\n',
        ["ended with the code 1"],
        ["said what stands above"],
        code=1,
        **{"g.zig": "fn x( {\n"},
    ),
    project(
        "a build that makes no module",
        'language = "c"\nbuild = ["${python}", "-c", "pass"]\nmodule = "out.wasm"\n',
        ["g/out.wasm is not there"],
        ["say in hookline.toml's 'module'"],
        code=1,
    ),
    project(
        "a project that is not built",
        CC.format("x", ""),
        ["g/guard.wasm is not there"],
        ["build it with 'hookline build g'"],
        code=3,
        arguments="call g pre_query x",
    ),
    done("no cluster", "why guard", ["the cluster does not answer"], ["see to --kubeconfig and --context"], code=3),
    done(
        "a kubeconfig that is none",
        "why guard --kubeconfig k.yaml",
        ["the kubeconfig cannot be read"],
        ["see to --kubeconfig, or KUBECONFIG"],
        files={"k.yaml": "a: b: c"},
        code=3,
    ),
    done(
        "no sidecar at this address",
        "why guard --admin http://{nobody}",
        ["no sidecar answers at http://"],
        ["is --admin its port?"],
        code=3,
    ),
    done(
        "no sidecar with this state",
        "why guard --state state",
        ["no sidecar answers at state/admin.sock"],
        ["is --state (or HOOKLINE_STATE) the folder"],
        code=3,
    ),
    done(
        "a sidecar and a cluster",
        "why guard --state state --namespace shop",
        ["name a cluster"],
        ["--admin and --state a sidecar"],
    ),
    done("a key without its plugin", "kv get", ["Missing argument 'PLUGIN'"], ["Try 'hookline kv get --help'"]),
    done(
        "no private key",
        "sign oci-layout:l:1 --key k.key",
        ["k.key cannot be read"],
        ["'hookline keygen' makes a pair of keys"],
    ),
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


def test_a_port_that_is_taken_is_told(make):
    """By the sidecar that ``dev`` starts: with the port, and what to do; what stands above is told in its words."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = str(held.getsockname()[1])
        taken = project(
            "a port that is taken",
            'language = "c"\nbuild = ["${python}", "-c", "pass"]\nmodule = "in.wasm"\n',
            ["the sidecar ended by itself"],
            ["it says above why"],
            code=3,
            arguments="dev g --listen 127.0.0.1:{port}",
            **{"in.wasm": GOOD, "wasmplugin.yaml": local(source={"file": {"path": "g.wasm"}})},
        )
        ended = make(taken, port=port)
    assert f"--listen 127.0.0.1:{port}: Address already in use" in ended.out
    assert "stop it, or choose another one" in ended.out
