"""What docs/reference/client.md shows is what happens, and the example proxy works."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hookline_api.hooks import MAX_CALLS, Hook
from hookline_client import HookClient
from hookline_client.errors import HookError
from waiting import PATIENCE_S

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "reference" / "client.md").read_text()
EXAMPLES = re.findall(r"<!-- test: (\w+) -->\n```\w*\n(.*?)```\n", TEXT, re.DOTALL)
PLUGINS = ("sql-guard", "region-router")


def examples(kind):
    """The examples of this kind."""
    found = [text for each, text in EXAMPLES if each == kind]
    assert found
    return found


@pytest.fixture(scope="module")
def sidecar(new_sidecar, tmp_path_factory):
    """A sidecar with two of the example plugins."""
    built = tmp_path_factory.mktemp("plugins")
    command = [sys.executable, ROOT / "examples" / "build.py", "--out", built, "--only", ",".join(PLUGINS)]
    subprocess.run(command, check=True, capture_output=True)
    sidecar = new_sidecar()
    for name in PLUGINS:
        sidecar.folder.write(f"{name}.wasm", (built / f"{name}.wasm").read_bytes())
        manifest = yaml.safe_load((ROOT / "examples" / "plugins" / name / "wasmplugin.yaml").read_text())
        manifest["spec"]["source"] = {"file": {"path": f"{name}.wasm"}}
        sidecar.folder.write(f"{name}.yaml", manifest)
    return sidecar.start()


def test_every_marked_example_is_found():
    """An example whose mark is broken would not be tested."""
    assert len(EXAMPLES) == TEXT.count("<!-- test: ") == 6


def test_the_python_example_asks(sidecar):
    """As it stands there, but for the socket's path."""
    (code,) = examples("python")
    code = code.replace("/run/hookline/hooks.sock", str(sidecar.socket))
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "select * from orders → primary\n"


async def test_the_batch_example_asks(sidecar):
    """One decision for each call."""
    (code,) = examples("batch")
    call = code.removeprefix("decisions = await hooks.batch(").rstrip().removesuffix(")")
    async with HookClient(str(sidecar.socket), timeout=PATIENCE_S) as hooks:
        decisions = await hooks.batch(eval(call, {"Hook": Hook}))
        assert [decision.action for decision in decisions] == ["continue", "primary"]


async def test_the_bytes_of_a_call_and_its_answer_are_these(sidecar):
    """Every byte, but for the date and the bundle."""

    def raw(text):
        return text.rstrip("\n").replace("\n", "\r\n").encode()

    def timeless(answer):
        return re.sub(rb"Date: [^\r]*|\"bundle\":\"[0-9a-f]{12}\"", b"*", answer)

    (request,), (expected,) = map(raw, examples("request")), map(raw, examples("answer"))
    reader, writer = await asyncio.open_unix_connection(str(sidecar.socket))
    with contextlib.closing(writer):
        writer.write(request)
        answer = await asyncio.wait_for(reader.readexactly(len(expected)), PATIENCE_S)
    assert timeless(answer) == timeless(expected)


@pytest.mark.parametrize("number", range(2))
def test_the_commands_are_answered(sidecar, number, need):
    """With curl over socket and TCP, a batch, and by hand with two calls in flight."""
    need("curl", "curl")
    command = examples("shell")[number].replace("/run/hookline/hooks.sock", str(sidecar.socket))
    command = command.replace("127.0.0.1:9901", f"127.0.0.1:{sidecar.port}")
    command = command.replace("127.0.0.1/9901", f"127.0.0.1/{sidecar.port}")
    done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    said = [json.loads(body) for body in re.findall(r'\{"(?:action|decisions)".*?\}(?:\]\})?(?=\{|H|\Z)', done.stdout)]
    actions = [[each["action"] for each in answer.get("decisions", [answer])] for answer in said]
    assert actions == [[["block"], ["block"], ["continue", "primary"]], [["block"], ["primary"]]][number]


def test_causes_and_bounds_are_those_of_the_client():
    """The table has each of them, and no other; a batch has as many calls as it says."""
    table = TEXT.partition("| cause |")[2].partition("\n\n")[0]
    assert f"up to {MAX_CALLS:,} calls" in TEXT
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == {kind.cause for kind in HookError.__subclasses__()}


@contextlib.asynccontextmanager
async def node(name):
    """A database that answers each line with its own name and the line; its port."""

    async def serve(reader, writer):
        with contextlib.closing(writer):
            while line := await reader.readline():
                writer.write(f"{name}: ".encode() + line)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.asynccontextmanager
async def proxy(*arguments):
    """The example proxy as a process; a connection to it."""
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        ROOT / "examples" / "proxies" / "asyncio_proxy.py",
        *("--listen", "127.0.0.1:0", *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        said = await asyncio.wait_for(program.stdout.readline(), PATIENCE_S)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(said.rpartition(b":")[2]))

        async def ask(statement):
            writer.write(statement.encode() + b"\n")
            return (await asyncio.wait_for(reader.readline(), PATIENCE_S)).decode().rstrip("\n")

        yield ask
        writer.close()
    finally:
        program.terminate()
        assert await program.wait() == -signal.SIGTERM  # it went on until now


async def test_the_example_proxy_refuses_and_routes_as_the_plugins_say(sidecar):
    """And refuses everything when the sidecar is gone."""
    async with (
        node("primary") as primary,
        proxy("--hooks", str(sidecar.socket), f"primary=127.0.0.1:{primary}") as ask,
    ):
        assert await ask("select 1") == "primary: select 1"
        assert await ask("drop table orders") == "ERROR drop is not allowed"
        assert await ask("select 'é'") == "primary: select 'é'"
    async with (
        node("primary") as primary,
        proxy("--hooks", str(sidecar.socket) + ".none", f"primary=127.0.0.1:{primary}") as ask,
    ):
        assert await ask("select 1") == "ERROR the hook could not be asked (unreachable)"
