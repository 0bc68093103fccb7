"""From ``helm install`` and ``kubectl apply`` to what real proxies answer: real pods, nginx, sidecars, the operator."""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from installation import ROOT, Load, identity_module, image, record, until

SAMPLES = 6
KEY = {"x-api-key": "reports-example-key"}


@pytest.fixture(scope="module")
def api_keys(tmp_path_factory) -> bytes:
    """The example plugin of that name."""
    out = tmp_path_factory.mktemp("plugins")
    build = [sys.executable, ROOT / "examples" / "build.py", "--out", out, "--only", "api-keys"]
    subprocess.run(build, check=True, capture_output=True)
    return Path(out, "api-keys.wasm").read_bytes()


def test_the_chart_says_that_the_operator_is_ready(installation):
    """`helm install` came back with two ready replicas, of which one leads; `helm test` finds them by the Service."""
    assert "Phase:          Succeeded" in installation.helm("test", "--timeout=300s")
    replicas = {each["metadata"]["name"] for each in installation.replicas()}
    assert len(replicas) == 2
    assert installation.leader() in replicas


def test_the_example_answers_as_its_page_says(tenant, registry, api_keys):
    """`kubectl apply` of examples/kubernetes: its pods get sidecars; who may not gets 401 or 403, who may gets 200."""
    registry.push("plugins/api-keys:1.0.0", api_keys)
    proxy = (ROOT / "examples/kubernetes/proxy.yaml").read_text().replace("nginx:1.28", image("nginx"))
    plugin = (ROOT / "examples/kubernetes/wasmplugin.yaml").read_text()
    plugin = plugin.replace("registry.example.com", registry.host)
    resources = list(yaml.safe_load_all(plugin))
    resources[0]["spec"]["source"]["oci"]["insecure"] = True  # a registry of a test, without a certificate
    tenant.apply(*yaml.safe_load_all(proxy), *resources)
    tenant.kubectl("rollout", "status", "deployment/proxy", "--timeout=300s")
    tenant.ready("authenticate")
    pods = tenant.pods()
    assert len(pods) == 2
    for pod in pods:
        containers = [each["name"] for each in pod.found["spec"]["initContainers"]]
        assert (containers, pod.found["spec"]["initContainers"][0]["restartPolicy"]) == (["hookline-sidecar"], "Always")
        assert pod.asks("reports")[0] == 403
        assert pod.asks("reports", {"x-api-key": "another-key"})[0] == 401
        assert pod.asks("reports", KEY) == (200, "hello, reports")
        assert pod.asks("admin", KEY)[0] == 403
    status = tenant.status("authenticate")
    assert status["pods"] == {"matched": 2, "loaded": 2, "updating": 0, "failed": 0, "unguarded": 0}
    assert status["loaded"] == "2/2"
    assert "resource" not in tenant.kubectl("get", "wp", "authenticate").split()  # a table, and not an error
    events = tenant.kubectl("get", "events", "--field-selector=involvedObject.kind=WasmPlugin", "--output=json")
    assert {each["reason"] for each in json.loads(events)["items"]} >= {"Resolved", "Ready"}


def test_a_new_version_loses_no_request_and_is_there_in_a_moment(tenant, registry, record_property):
    """Three pods under load, version after version: no request fails, none is answered by an older one afterwards.

    ``kubectl wait --for=condition=Ready`` comes back no earlier than the last pod runs it.
    """
    versions = [f"v{number}" for number in range(SAMPLES + 1)]
    digests = {name: registry.push(f"guard:{name}", identity_module(name)) for name in versions}

    def apply(name: str) -> None:
        tenant.plugin("guard", f"{registry.host}/guard@{digests[name]}", selector={"matchLabels": {"app": "proxy"}})

    apply(versions[0])
    pods = tenant.proxies(3)
    tenant.ready("guard")
    seconds: dict[str, list[float]] = {"pulled": [], "cached": []}
    # Forth, each for the first time, and back, each from the operator's cache.
    steps = [(name, "pulled") for name in versions[1:]] + [(name, "cached") for name in versions[-2::-1]]
    with Load(pods, rate=100) as load:
        now = versions[0]
        for name, how in steps:
            began, before = time.monotonic(), len(load.answers)
            apply(name)
            seconds[how].append(load.all_say(name, since=began))
            tenant.ready("guard")
            waited = time.monotonic()
            until(lambda: time.monotonic() > waited + 0.5, "half a second of answers")  # noqa: B023
            answers = load.answers[before:]
            assert {each.text for each in answers} <= {f"hello, {now}", f"hello, {name}"}, load.bad(*versions)[:5]
            late = [each for each in answers if each.asked > waited and each.text != f"hello, {name}"]
            assert late == [], "Ready was said too early"
            now = name
        took = (load.answers[-1].at - load.answers[0].at) or 1
    assert load.bad(*versions) == []
    for how, found in seconds.items():
        figure = {
            "pods": 3,
            "samples_s": [round(each, 3) for each in found],
            "p50_s": round(statistics.median(found), 3),
            "max_s": round(max(found), 3),
            "requests_per_s": round(len(load.answers) / took),
        }
        record(f"apply to switched, {how}", figure)
        record_property(how, figure)


def test_other_settings_reach_every_pod_as_a_version_of_their_own(tenant, registry, api_keys):
    """The same module with a Secret that changed: the pods answer by the new settings, and no pod restarts."""
    registry.push("plugins/api-keys:1.0.0", api_keys)
    hashes = {key: hashlib.sha256(key.encode()).hexdigest() for key in ("first", "second")}
    setting = {"secretRef": {"name": "keys"}, "key": "someone", "path": "keys.someone.sha256"}
    tenant.secret("keys", someone=hashes["first"])
    grants = ["config.read", "crypto", "metrics"]
    config = {
        "keys": {"someone": {"roles": ["any"]}},
        "roles": {"any": [{"actions": ["*"], "resources": [""]}]},
    }
    reference = f"{registry.host}/plugins/api-keys:1.0.0"
    tenant.plugin("guard", reference, permissions=grants, config=config, configFrom=[setting])
    pods = tenant.proxies(2)
    tenant.ready("guard")

    def answers():
        return [[pod.asks(headers={"x-api-key": key})[0] for key in hashes] for pod in pods]

    assert answers() == [[200, 401], [200, 401]]
    tenant.secret("keys", someone=hashes["second"])
    until(lambda: answers() == [[401, 200], [401, 200]], "the new key")
    tenant.ready("guard")
    assert [pod.restarts() for pod in pods] == [0, 0]
    shown = tenant.kubectl("get", "wasmplugin,wasmpluginrevision,event", "--output=yaml")
    assert not [value for value in hashes.values() if value in shown], "a Secret's value is where it is not to be"


def test_a_deleted_plugin_is_gone_from_every_pod(tenant, registry):
    """What it let in is let in no longer, since nobody says yes any more; and the sidecars know nothing of it."""
    registry.push("guard:deleted", identity_module("somebody"))
    tenant.plugin("guard", f"{registry.host}/guard:deleted")
    pods = tenant.proxies(2)
    tenant.ready("guard")
    assert {pod.asks() for pod in pods} == {(200, "hello, somebody")}
    tenant.kubectl("delete", "wasmplugin", "guard")  # waits until it is gone from the API: nothing holds it
    until(lambda: {pod.asks()[0] for pod in pods} == {401}, "nobody is let in")
    assert [pod.knows() for pod in pods] == [set(), set()]


def test_a_plugin_that_selects_no_pod_says_so_and_runs_nowhere(tenant, registry):
    """Whether it guards anything is not known, with the reason; the proxies beside it do not hear of it."""
    registry.push("guard:nowhere", identity_module("nobody"))
    pods = tenant.proxies(1)
    tenant.plugin("guard", f"{registry.host}/guard:nowhere", selector={"matchLabels": {"app": "another"}})
    tenant.kubectl("wait", "--for=condition=Ready=Unknown", "wasmplugin/guard", "--timeout=300s")
    status = tenant.status("guard")
    ready = status["conditions"]["Ready"]
    assert (ready["reason"], ready["message"]) == ("NoMatchingPods", "no pod with a sidecar matches spec.selector")
    assert status["pods"] == {"matched": 0, "loaded": 0, "updating": 0, "failed": 0, "unguarded": 0}
    assert pods[0].knows() == set()
