"""examples/kubernetes does what its README says: the very nginx.conf and settings, with real nginx and a real sidecar.

Only addresses and folders are replaced, and the module comes from a file in place of a registry.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from local_ports import reserve_ports
from waiting import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "kubernetes"


@contextlib.contextmanager
def running(command, log):
    """A process, ended by its id."""
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.terminate()


def ask(port, path, headers):
    """Status and body."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as connection:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode().strip()


@pytest.fixture(scope="module")
def folder():
    """Short, since a unix socket's path may have 107 bytes; and nginx started by root runs its workers as another."""
    found = Path(tempfile.mkdtemp(prefix="hl-"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.fixture(scope="module")
def proxy(folder, need):
    """The port of nginx, beside a sidecar that is ready."""
    nginx = need("nginx", "nginx-light")
    build = [sys.executable, ROOT / "examples" / "build.py", "--out", folder / "built", "--only", "api-keys"]
    subprocess.run(build, check=True, capture_output=True)
    plugins = folder / "plugins"
    plugins.mkdir()
    (module,) = (folder / "built").glob("**/*.wasm")
    shutil.copy(module, plugins / "api-keys.wasm")
    plugin, secret = yaml.safe_load_all((EXAMPLE / "wasmplugin.yaml").read_text())
    plugin["spec"]["source"] = {"file": {"path": "api-keys.wasm"}}
    (plugins / "wasmplugin.yaml").write_text(yaml.safe_dump_all([plugin, secret]))

    config, deployment, service = yaml.safe_load_all((EXAMPLE / "proxy.yaml").read_text())
    port, app, admin = reserve_ports(3)
    text = config["data"]["nginx.conf"]
    for old, new in {
        "/tmp/": f"{folder}/",
        **{
            f"{limit} {seconds}": f"{limit} {PATIENCE_S:.0f}s"  # a busy machine must not lead to a refusal here
            for limit, seconds in (
                ("proxy_connect_timeout", "250ms"),
                ("proxy_send_timeout", "1s"),
                ("proxy_read_timeout", "2s"),
            )
        },
        "/run/hookline/hooks.sock": f"{folder}/hooks.sock",
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "127.0.0.1:8000": f"127.0.0.1:{app}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    assert container["ports"] == [{"name": service["spec"]["ports"][0]["targetPort"], "containerPort": 8080}]

    sidecar = [Path(sys.executable).with_name("hookline-sidecar"), "--plugins", plugins, "--state", folder / "state"]
    sidecar += ["--listen", "off", "--socket", folder / "hooks.sock", "--socket-mode", "0666"]
    sidecar += ["--admin", f"127.0.0.1:{admin}"]
    server = [nginx, "-e", "stderr", "-c", folder / "nginx.conf", "-g", "daemon off;"]
    with running(sidecar, folder / "sidecar.log") as first, running(server, folder / "nginx.log") as second:
        for process, log, at, path in ((first, "sidecar", admin, "/readyz"), (second, "nginx", port, "/healthz")):

            def answers(process=process, log=log, at=at, path=path):
                assert process.poll() is None, (folder / f"{log}.log").read_text()
                return ask(at, path, {})[0] == 200

            until(answers, f"an answer of {log}", ignoring=(OSError,))
        yield port


def table():
    """The README's commands with what it says of each: path, headers, status, body."""
    readme = (EXAMPLE / "README.md").read_text()
    rows = re.findall(
        r"^\| `curl -i localhost:8080(\S+?)(?: -H '(\S+): (\S+)')?` \| (\d+)(?:, `(.*)`)?", readme, re.MULTILINE
    )
    assert len(rows) == readme.count("curl")
    return [(path, {name: value} if name else {}, int(status), body) for path, name, value, status, body in rows]


@pytest.mark.parametrize(("path", "headers", "status", "body"), table())
def test_the_readmes_commands_answer_what_it_says(proxy, path, headers, status, body):
    """A forbidden request is refused, an allowed one passes, and the application learns who it is."""
    got, text = ask(proxy, path, headers)
    assert got == status
    if body:
        assert text == body


def test_a_client_cannot_say_who_it_is(proxy):
    """Its own X-Hookline-User is replaced."""
    headers = {"x-api-key": "reports-example-key", "X-Hookline-User": "admin"}
    assert ask(proxy, "/reports/1", headers) == (200, "hello, reports")


def test_the_proxy_goes_on_until_nobody_sends_it_requests():
    """Its container sleeps before it is ended, and less long than the pod may take to end; the README says why."""
    _, deployment, _ = yaml.safe_load_all((EXAMPLE / "proxy.yaml").read_text())
    pod = deployment["spec"]["template"]["spec"]
    for container in pod["containers"]:
        seconds = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert 5 <= seconds <= pod.get("terminationGracePeriodSeconds", 30) / 2
    assert "`preStop`" in (EXAMPLE / "README.md").read_text()
