"""Which policies there are and whom they select, at an API server that answers what a test wants it to."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from kubernetes.aio import client

from hookline_api.policies import PluginTrustPolicySpec
from hookline_operator.cluster import policies as module
from hookline_operator.cluster import reflector
from hookline_operator.cluster.kube import Kube
from hookline_operator.cluster.policies import Policies, read_spec
from hookline_operator.cluster.sight import Sights
from waiting import until_true

GROUP = "/apis/hookline.dev/v1alpha1"
WHERE = f"{GROUP}/plugintrustpolicies"
PEM = "-----BEGIN PUBLIC KEY-----\nnone\n-----END PUBLIC KEY-----\n"


class Server:
    """Has policies and one namespace; ``answers`` says with which status a path is refused."""

    def __init__(self):
        self.policies, self.version, self.answers = {}, 1, {}
        self.resources = ["wasmplugins", "plugintrustpolicies"]
        self.looked = 0

    async def __call__(self, request):
        """Answer."""
        if status := self.answers.get(request.path):
            return web.json_response({"message": "not now"}, status=status)
        if request.path == GROUP:
            self.looked += 1
            return web.json_response({"resources": [{"name": each} for each in self.resources]})
        if request.path == WHERE and "plugintrustpolicies" not in self.resources:
            return web.json_response({"message": "no such thing"}, status=404)
        if "watch" in request.query:
            response = web.StreamResponse()
            await response.prepare(request)
            await asyncio.sleep(0.05)
            return response
        version = str(self.version)
        items = [{"metadata": {"name": "shop", "resourceVersion": "1", "labels": {"team": "red"}}}]
        if request.path == WHERE:
            items = [
                {"metadata": {"name": name, "uid": name, "generation": self.version, "resourceVersion": version},
                 "spec": spec}
                for name, spec in self.policies.items()
            ]  # fmt: skip
        return web.json_response({"items": items, "metadata": {"resourceVersion": version}})


@pytest.fixture
async def api(monkeypatch):
    """The API server, and a connection to it; turns and pauses are short."""
    for name, value in {"TURN_S": 0, "_JITTER_S": 0, "_SHORT_S": 0.01, "_PAUSE_FIRST_S": 0.001}.items():
        monkeypatch.setattr(reflector, name, value)
    monkeypatch.setattr(module, "_RELIST_S", 0.01)
    server = Server()
    runner = web.ServerRunner(web.Server(server))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.kube = Kube(client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"))
    yield server
    await server.kube.close()
    await runner.cleanup()


@pytest.fixture
async def start(api):
    """Starts following what the API server has."""
    tasks = []

    def make():
        made = Policies(api.kube, Sights(), own_namespace="hookline-system")
        tasks.extend(asyncio.create_task(each.run()) for each in made.reflectors)
        return made

    yield make
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def synced(policies):
    """It knows all that there is."""
    await until_true(lambda: all(each.synced.is_set() for each in policies.reflectors), "all that there is")
    await policies.first_sync()


async def test_without_the_definition_there_are_no_policies(api, start):
    """Once the API server says that it has the group, and no such resource; where it comes later, so do policies."""
    api.resources = ["wasmplugins"]
    api.policies = {"closed": {"sources": []}}
    policies = start()
    await synced(policies)
    assert policies.applying_to("shop", "guard", {}) == ()
    api.resources.append("plugintrustpolicies")
    await until_true(lambda: policies.applying_to("shop", "guard", {}), "the policy")
    api.resources.remove("plugintrustpolicies")
    await until_true(lambda: not policies.applying_to("shop", "guard", {}), "its end")


@pytest.mark.parametrize(("group", "collection"), [(503, 404), (404, 404), (0, 403)])
async def test_an_api_server_that_does_not_say_keeps_everybody_waiting(api, start, group, collection):
    """A collection that is not found may be one that is not served yet; one that may not be read may have policies."""
    api.answers = {GROUP: group, WHERE: collection}
    policies = start()
    (of_policies, _) = policies.reflectors
    await until_true(lambda: sum(of_policies.sight.failures.values()) > 3, "some tries")
    assert not of_policies.synced.is_set()
    assert "plugintrustpolicies" in of_policies.trouble
    assert "not now" in of_policies.trouble


async def test_what_cannot_be_told_is_selected(api, start):
    """A namespace that is not known, and labels that are too many to keep; a selector that cannot be read."""
    api.policies = {
        "blue": {"namespaceSelector": {"matchLabels": {"team": "blue"}}},
        "green": {"pluginSelector": {"matchLabels": {"app": "green"}}},
        "named": {"pluginSelector": {"names": ["guard-*"]}},
        "newer": {"mode": "Audit", "pluginSelector": {"names": ["other"], "phase": "full"}},
    }
    policies = start()
    await synced(policies)

    def names(namespace, name, labels):
        return [each.name for each in policies.applying_to(namespace, name, labels)]

    assert names("shop", "guard", {}) == ["newer"]
    assert names("shop", "guard-a", {"app": "green"}) == ["green", "named", "newer"]
    assert names("unheard-of", "guard", {}) == ["blue", "newer"]
    assert [each.name for each in policies._apply("shop", "guard", None)] == ["green", "newer"]
    newer = policies.applying_to("shop", "guard", {})[0]
    assert (newer.enforced, "phase: there is no such field" in newer.broken) == (False, True)
    assert {each.name: bool(each.problem) for each in policies.all()} == {
        "blue": False, "green": False, "named": False, "newer": True
    }  # fmt: skip


async def test_a_policy_whose_keys_are_wrong_is_closed_and_says_so(api, start):
    """Nothing can be proven to it. The same goes for a policy that nobody has applied yet."""
    spec = {"signatures": {"anyOf": [{"key": {"pem": PEM}}]}}
    api.policies = {"signed": spec}
    policies = start()
    await synced(policies)
    (made,) = policies.applying_to("shop", "guard", {})
    assert "is not a public key in PEM" in made.broken
    assert made.broken == policies.all()[0].problem
    tried = await policies.made("tried", PluginTrustPolicySpec.model_validate(spec))
    assert tried.broken == made.broken


async def test_a_policy_is_the_same_object_until_something_changes(api, start):
    """So that whoever compares what applies to 5,000 plugins does it at once; each change is told."""
    api.policies = {"a": {"references": "Digest"}, "b": {"references": "Tag"}}
    policies = start()
    await synced(policies)
    told = []
    policies.changed.append(lambda: told.append(1))
    first = policies.applying_to("shop", "guard", {})
    assert policies.applying_to("shop", "guard", {}) is first
    api.policies["b"], api.version = {"references": "Any"}, 2
    await until_true(lambda: policies.applying_to("shop", "guard", {})[1].spec.references == "Any", "the change")
    assert told


def test_a_policy_that_is_too_large_or_too_deep_is_not_understood():
    """Whoever may write policies is trusted, and makes mistakes."""
    deep = {}
    for _ in range(2000):
        deep = {"a": deep}
    assert read_spec({"sources": deep})[0] is None
    assert "bytes" in read_spec({"tags": ["x" * 600_000]})[1]
