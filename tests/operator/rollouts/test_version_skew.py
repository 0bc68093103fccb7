"""An operator and sidecars of two neighbouring versions understand each other, whichever is older.

What was before is the code of the release before, as scripts/write_before.py packed it: it runs here as it did there.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tarfile
import textwrap
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin
from hookline_api.distribution import (
    BundleMessage,
    Commit,
    HookHealth,
    PluginReport,
    Report,
    RolledBack,
    UnavailableSource,
    parse_to_sidecar,
)
from hookline_api.hooks import Hook
from hookline_api.resources import Probation
from hookline_operator.serve import reports
from local_ports import reserve_ports
from waiting import PATIENCE_S, until

BEFORE = Path(__file__).parents[1] / "before.tar.xz"
# In place of a cluster's DNS, for a process whose operator is on this machine.
DNS = """
import aiohttp, socket
async def resolve(self, host, port=0, family=socket.AF_INET):
    return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]
aiohttp.ThreadedResolver.resolve = resolve
"""


@pytest.fixture(scope="session")
def before(tmp_path_factory):
    """The folders of the release before, as they go into ``sys.path``."""
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(BEFORE) as packed:
        packed.extractall(folder, filter="data")
    return [str(folder / name) for name in ("crds", "operator", "sidecar")]


@pytest.fixture
def new_sidecar(control_plane, tmp_path, before):
    """Starts a sidecar, of this version or of the one before, in the name of a pod; the port of its health."""
    made = []

    def make(operator, tenant, pod, *, old):
        ca, token = tmp_path / f"{pod}.crt", tmp_path / f"{pod}.token"
        ca.write_text(control_plane.get("configmap", "hookline-ca", f"--namespace={operator.home}")["data"]["ca.crt"])
        token.write_text(tenant.token(pod))
        hooks, admin = reserve_ports(2)
        url = f"https://hookline-operator.{operator.home}.svc:{operator.port}"
        command = [
            sys.executable, "-c", f"{DNS}\nfrom hookline_sidecar.cli import main; main()",
            "--operator", url, "--operator-ca", ca, "--operator-token", token, "--state", tmp_path / f"{pod}.state",
            "--listen", f"127.0.0.1:{hooks}", "--admin", f"127.0.0.1:{admin}",
        ]  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HOOKLINE_")}
        if old:
            environment["PYTHONPATH"] = os.pathsep.join(before)
        with (tmp_path / f"{pod}.log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        made.append((process, tmp_path / f"{pod}.log"))

        def ready():
            assert process.poll() is None, made[-1][1].read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{admin}/readyz", timeout=PATIENCE_S):
                    return hooks
            except urllib.error.HTTPError as error:
                error.close()
            except OSError:
                pass
            return None

        def failed():
            said = "\n".join(log.read_text()[-4000:] for log in (made[-1][1], operator.log))
            return f"readiness of {pod}; sidecar and operator said:\n{said}"

        return until(ready, failed)

    yield make
    for process, log in made:
        process.terminate()
        process.wait(PATIENCE_S)
        assert "Traceback" not in log.read_text()


def ask(port):
    """What the plugin says to a call of ``authenticate``."""
    body = json.dumps({"method": "GET", "path": "/", "headers": {}}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/hooks/authenticate", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)["message"]


# All that came after the release before, and that it does not know.
NEWER = {
    "rollout": {"deadline": "20s", "probation": {"calls": 10, "for": "30s", "maxFailures": 3}},
    "selector": {"matchLabels": {"app": "web"}, "required": False},
}


@pytest.fixture
def changes(tenant, module, new_sidecar, eventually):
    """A plugin is applied, answers, is changed, and the status says so, whoever is older."""

    async def run(operator, *, old):
        tenant.pod("web", labels={"app": "web"})
        tenant.plugin("guard", tenant.module("one", module("v1")), **NEWER)
        port = await asyncio.to_thread(new_sidecar, operator, tenant, "web", old=old)
        await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
        assert await asyncio.to_thread(ask, port) == "v1"
        assert tenant.status("guard")["pods"]["loaded"] == 1
        tenant.plugin("guard", tenant.module("two", module("v2")), **NEWER)
        await eventually(lambda: ask(port) == "v2", "the second version")
        await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready again")
        tenant.plugin("guard", tenant.module("three", b"no module"), **NEWER)
        await eventually(lambda: tenant.ready("guard") == ("False", "VerifyFailed"), "word of a bad version")
        assert await asyncio.to_thread(ask, port) == "v2"

    return run


async def test_a_sidecar_of_the_version_before_works_with_this_operator(operator, changes):
    """Pods keep their sidecar over an upgrade of the operator, until they are made anew."""
    await changes(operator, old=True)


async def test_an_operator_of_the_version_before_works_with_this_sidecar(new_operator, before, changes):
    """As after a rollback of the operator, or with a sidecar's image that is newer."""
    operator = new_operator(first=f"import sys; sys.path[:0] = {before!r}").start()
    await changes(operator, old=False)


def in_the_version_before(before, program):
    """What a Python program prints that imports the code of the release before."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(before)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_is_called_before_is_of_before(before):
    """The measure measures: it is neither imported from here nor the same as what is here."""
    program = """
        import json, hookline_api, hookline_operator, hookline_sidecar
        from hookline_api.distribution import PluginReport
        files = [each.__file__ for each in (hookline_api, hookline_operator, hookline_sidecar)]
        print(json.dumps([files, list(PluginReport.model_fields)]))
    """
    files, fields = in_the_version_before(before, program)
    for file, folder in zip(files, before, strict=True):
        assert file.startswith(folder)
    assert "health" not in fields


REPORT = Report(
    running="a" * 12, ready=True, sidecar="9.0.0",
    plugins=[
        PluginReport(
            name="guard", revision="b" * 12, state="Running", probation=True,
            health=[HookHealth(hook=Hook.PRE_QUERY, trouble="FailingCalls", calls=10, bad=9, seconds=30, cause="trap")],
            rolled_back=RolledBack(revision="c" * 12, calls=20, failures=5, cause="timeout", message="too slow"),
            unavailable=[UnavailableSource(source="data source 'grants'", message="it is away")],
        ),
    ],
)  # fmt: skip
ARTIFACT = BundleArtifact(
    sha256="d" * 64, digest="sha256:" + "e" * 64, size=8, layout="artifact", reference="registry.example.com/guard:1"
)
PLUGIN = BundlePlugin(
    name="guard", namespace="shop", artifact=ARTIFACT, hooks=[Hook.PRE_QUERY], probation=Probation(calls=7)
)
BUNDLE = BundleMessage(version=Bundle(plugins=[PLUGIN]).version, bundle=Bundle(plugins=[PLUGIN]), hold=True)
UNKNOWN = {"type": "a_type_of_later", "version": "a" * 12, "anything": [1]}


def newer(message):
    """A message as a later version may send it: with fields that nobody knows, on each level."""
    data = json.loads(message.model_dump_json(by_alias=True)) | {"ofLater": {"a": 1}}
    for plugin in data.get("plugins", []) + data.get("bundle", {}).get("plugins", []):
        plugin["ofLater"] = [1, 2]
    return data


def test_the_version_before_reads_what_this_one_reports(before):
    """Health, rollbacks, probation and sources that are away are passed over; all else is there."""
    program = f"""
        import json
        from hookline_operator import reports  # where the version before has it
        read = reports.read(json.dumps({newer(REPORT)!r}))
        print(json.dumps(read.model_dump(mode="json")))
    """
    read = in_the_version_before(before, program)
    assert (read["running"], read["ready"], read["sidecar"]) == ("a" * 12, True, "9.0.0")
    assert read["plugins"] == [{"name": "guard", "revision": "b" * 12, "state": "Running", "failure": None}]


def test_the_version_before_reads_what_this_one_sends(before):
    """Probation is passed over, the revision is the same to both, and a message of another type is none."""
    program = f"""
        import json
        from hookline_api.distribution import parse_to_sidecar
        read, nothing, commit = map(parse_to_sidecar, ({newer(BUNDLE)!r}, {UNKNOWN!r}, {newer(Commit(version="f"))!r}))
        (plugin,) = read.bundle.plugins
        print(json.dumps([read.hold, plugin.revision, read.bundle.version, nothing, commit.version]))
    """
    assert in_the_version_before(before, program) == [True, PLUGIN.revision, BUNDLE.version, None, "f"]


ASKING = BundlePlugin.model_validate({
    "name": "asking", "artifact": ARTIFACT, "hooks": ["pre_query"], "permissions": ["query.execute", "http.fetch"],
    "egress": [{"host": "api.example.com", "methods": ["POST"]}], "limits": {"wait": "2s"},
    "dataSources": [{"name": "db", "postgres": {"host": "db.test", "database": "d", "user": "u"}}],
    "caches": [{"name": "hot", "valkey": {"url": "redis://h"}}], "credentials": {"s/k": "value"},
    "kv": {"scope": "Cluster", "valkey": {"url": "redis://h"}}, "failurePolicy": {"store": "PodLocal"},
})  # fmt: skip


def test_the_version_before_goes_on_where_one_plugin_asks_outside_its_pod(before):
    """It cannot run that one, and says so by another revision; of the others it reads all."""
    bundle = Bundle(plugins=[PLUGIN, ASKING])
    message = newer(BundleMessage(version=bundle.version, bundle=bundle))
    program = f"""
        import json
        from hookline_api.distribution import parse_to_sidecar
        print(json.dumps([each.revision for each in parse_to_sidecar({message!r}).bundle.plugins]))
    """
    guard, asking = in_the_version_before(before, program)
    assert guard == PLUGIN.revision
    assert asking != ASKING.revision


def test_what_the_version_before_allows_to_be_fetched_is_read(before):
    """As texts; the revision is the same to both."""
    told = BundlePlugin(name="p", artifact=ARTIFACT, permissions=["http.fetch"]).model_dump(mode="json", by_alias=True)
    program = f"""
        import json
        from hookline_api.bundle import BundlePlugin
        plugin = BundlePlugin.model_validate({told | {"egress": ["https://api.example.com:8443", "http://*:80"]}!r})
        print(json.dumps([plugin.model_dump(mode="json", by_alias=True), plugin.revision]))
    """
    sent, revision = in_the_version_before(before, program)
    read = BundlePlugin.model_validate(sent)
    assert [each.host for each in read.egress] == ["api.example.com", "*"]
    assert read.revision == revision


def test_this_version_reads_what_the_one_before_reports_and_sends(before):
    """What it does not say is as if nothing were wrong: no health, no rollback, the usual probation."""
    program = f"""
        import json
        from hookline_api.distribution import BundleMessage, Report
        report, bundle = Report.model_validate({newer(REPORT)!r}), BundleMessage.model_validate({newer(BUNDLE)!r})
        print(json.dumps([each.model_dump(mode="json", by_alias=True) for each in (report, bundle)]))
    """
    report, bundle = in_the_version_before(before, program)
    read = reports.read(json.dumps(report))
    assert read.plugins[0].health == []
    assert read.plugins[0].rolled_back is None
    assert not read.plugins[0].probation
    sent = parse_to_sidecar(bundle)
    assert sent.bundle.plugins[0].probation == Probation()
    assert sent.bundle.plugins[0].revision == PLUGIN.revision


def test_a_message_of_a_later_version_is_read_as_far_as_it_is_known():
    """By both sides of this version, so that the next one may say more."""
    assert reports.read(json.dumps(newer(REPORT))) == REPORT
    assert parse_to_sidecar(newer(BUNDLE)) == BUNDLE
    assert reports.read(json.dumps(UNKNOWN)) is None
    assert parse_to_sidecar(UNKNOWN) is None
