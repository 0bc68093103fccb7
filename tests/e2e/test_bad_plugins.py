"""What is wrong never replaces what is good: the status says why in one sentence, and mending it is all it takes."""

from __future__ import annotations

import contextlib
import re

import pytest

from cluster import ClusterError
from installation import Tenant, identity_module, until

SCHEMA = {
    "type": "object",
    "properties": {"limit": {"type": "string", "pattern": "^[0-9]+$"}},
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def shop(installation, registry):
    """A namespace whose two proxies run a good plugin, which each test breaks and mends."""
    registry.push("guard:good", identity_module("good"))
    with installation.cluster.namespace("bad-plugins") as name:
        tenant = Tenant(installation.cluster, name).prepare()
        tenant.plugin("guard", f"{registry.host}/guard:good")
        tenant.proxies(2)
        tenant.ready("guard")
        yield tenant


@pytest.fixture
def guard(shop, registry):
    """The namespace, with the plugin as it should be before a test and after."""
    yield shop
    registry.push("guard:good", identity_module("good"))
    shop.plugin("guard", f"{registry.host}/guard:good")
    shop.ready("guard")


def goes_on(tenant, says="good"):
    """Every pod answers as before, and the failure is among the five worst."""
    assert {pod.asks() for pod in tenant.pods()} == {(200, f"hello, {says}")}
    assert tenant.status("guard")["failures"][0]["message"]


def one_sentence(text):
    """No stack trace, no list, and not a word of a secret."""
    assert "\n" not in text
    assert "Traceback" not in text
    assert len(text) < 600
    return text


def test_a_digest_that_is_not_there_leaves_the_old_version_and_says_so(guard, registry):
    """By reference; then what is there, but not with the bytes that the resource wants."""
    nothing = "sha256:" + "0" * 64
    guard.plugin("guard", f"{registry.host}/guard@{nothing}")
    why = one_sentence(guard.failed("guard", "FetchFailed"))
    assert nothing in why
    assert "404" in why
    assert "the last good version goes on in 2 pods" in why
    goes_on(guard)
    digest = registry.push("guard:other", identity_module("other"))
    guard.plugin("guard", f"{registry.host}/guard@{digest}", sha256="0" * 64)
    why = one_sentence(guard.failed("guard", "VerifyFailed"))
    assert "sha256" in why
    goes_on(guard)
    guard.plugin("guard", f"{registry.host}/guard@{digest}")
    guard.ready("guard")
    assert {pod.asks() for pod in guard.pods()} == {(200, "hello, other")}


def test_a_registry_that_cannot_be_reached_is_named_and_asked_again(guard, registry):
    """Nobody has to touch the resource when the registry is back."""
    registry.push("guard:away", identity_module("back"))
    registry.stop()
    try:
        guard.plugin("guard", f"{registry.host}/guard:away")
        why = one_sentence(guard.failed("guard", "FetchFailed"))
        assert registry.host in why
        assert "guard:away" in why
        goes_on(guard)
    finally:
        registry.start()
    guard.ready("guard")
    assert {pod.asks() for pod in guard.pods()} == {(200, "hello, back")}


def test_a_wrong_pull_secret_is_told_and_the_right_one_taken_at_once(guard, password_registry):
    """No secret, a wrong one, and the right one under the same name: the resource is applied once."""
    password_registry.push("guard:private", identity_module("private"))
    guard.apply(password_registry.pull_secret("pull", password="wrong"))
    guard.plugin("guard", f"{password_registry.host}/guard:private", secret="pull")
    why = one_sentence(guard.failed("guard", "FetchFailed"))
    assert "401" in why
    assert "credentials" in why
    assert "wrong" not in why
    goes_on(guard)
    guard.apply(password_registry.pull_secret("pull"))
    guard.ready("guard")
    assert {pod.asks() for pod in guard.pods()} == {(200, "hello, private")}


def test_an_import_that_no_host_has_is_named_and_no_pod_hears_of_it(guard, registry):
    """The operator looks into a module before any sidecar does."""
    unknown = '(import "env" "launch_missiles" (func (param i32)))'
    registry.push("guard:curious", identity_module("curious", more=unknown))
    guard.plugin("guard", f"{registry.host}/guard:curious")
    why = one_sentence(guard.failed("guard", "VerifyFailed"))
    assert "launch_missiles" in why
    goes_on(guard)
    assert all(set(pod.runs()) == {"guard"} for pod in guard.pods())


def test_settings_that_the_plugins_schema_refuses_do_not_reach_a_pod(guard, registry):
    """``kubectl apply`` is refused where that can be known; what comes from a Secret is told by the status."""
    registry.push("guard:strict", identity_module("strict", schema=SCHEMA))
    reference = f"{registry.host}/guard:strict"
    guard.plugin("guard", reference, config={"limit": "5"})
    guard.ready("guard")

    def refused():
        try:
            guard.plugin("guard", reference, config={"limit": "many"})
        except ClusterError as error:
            return re.search(r"admission webhook.*config\.limit", str(error))
        return None  # on a busy machine the check gives up in time, and the operator's own is what counts

    until(refused, "a refusal")
    setting = {"secretRef": {"name": "settings"}, "key": "limit", "path": "limit"}
    guard.secret("settings", limit="a secret word")
    guard.plugin("guard", reference, configFrom=[setting])
    why = one_sentence(guard.failed("guard", "ConfigInvalid"))
    assert "limit" in why
    assert "secret word" not in why
    goes_on(guard, "strict")
    guard.secret("settings", limit="7")
    guard.ready("guard")


def test_a_module_that_only_the_pods_find_bad_is_told_with_the_pods_name(guard, registry):
    """It traps when it is instantiated, which the operator never does."""
    trap = "(func $trap unreachable) (start $trap)"
    registry.push("guard:traps", identity_module("traps", more=trap))
    guard.plugin("guard", f"{registry.host}/guard:traps")
    why = one_sentence(guard.failed("guard", "PodsFailed"))
    names = {pod.name for pod in guard.pods()}
    assert any(name in why for name in names)

    def failures():
        found = guard.status("guard")
        return {each["pod"] for each in found["failures"]} == names and found["pods"]["failed"] == 2

    until(failures, "both pods among the failures")
    goes_on(guard)


def test_events_tell_of_each_change_and_of_nothing_twice(guard, registry):
    """A person who runs ``kubectl describe`` finds the failure and the recovery once each."""
    with contextlib.suppress(ClusterError):
        guard.kubectl("delete", "events", "--all")
    guard.plugin("guard", f"{registry.host}/guard:missing")
    guard.failed("guard", "FetchFailed")
    guard.plugin("guard", f"{registry.host}/guard:good")
    guard.ready("guard")

    def told():
        found = guard.cluster.get("events", f"--namespace={guard.name}")["items"]
        return [each["reason"] for each in found if each["involvedObject"]["kind"] == "WasmPlugin"]

    until(lambda: "Ready" in told(), "an event of the recovery")
    assert told().count("FetchFailed") == 1
    assert told().count("Ready") == 1
