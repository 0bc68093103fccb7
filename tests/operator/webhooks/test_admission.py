"""The webhooks answer every review in one sentence or a patch, whatever is sent, and their own faults block nobody."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline_api.resources import Permission
from hookline_operator.webhooks import admission, reviews
from hookline_operator.webhooks.admission import INJECT_PATH, VALIDATE_PATH, Lack, routes
from hookline_operator.webhooks.annotations import InjectionSettings
from hookline_operator.webhooks.judge import judge
from hookline_operator.webhooks.reviews import MAX_BODY

SETTINGS = InjectionSettings(
    image="sidecar:1", operator="https://hookline-operator.hookline-system.svc", operator_ca="CA"
)
POD = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "nginx"}]}}
SPEC = {"source": {"oci": {"reference": "registry.example/plugin:1"}}}


def review(found, *, kind="Pod", operation="CREATE", **more):
    """An AdmissionReview as an API server sends it."""
    group = "hookline.dev" if kind == "WasmPlugin" else ""
    request = {
        "uid": "705ab4f5", "kind": {"group": group, "version": "v1", "kind": kind}, "operation": operation,
        "namespace": "shop", "object": found, **more,
    }  # fmt: skip
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def plugin(**spec):
    """A WasmPlugin as an API server sends it, with what it keeps in metadata."""
    metadata = {"name": "demo", "namespace": "shop", "uid": "u", "managedFields": [], "creationTimestamp": "2026-01-01"}
    return {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": metadata, "spec": {**SPEC, **spec}}


class Checker:
    """Stands in for the operator's knowledge of modules."""

    def __init__(self):
        self.answer = None
        self.asked = []

    async def __call__(self, found):
        """As `check_config`."""
        self.asked.append(found)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer == "slow":
            await asyncio.sleep(3600)
        return self.answer


@pytest.fixture
def checker():
    """Says nothing, until a test gives it words."""
    return Checker()


@pytest.fixture
def current():
    """The settings of the moment, last."""
    return [SETTINGS]


@pytest.fixture
async def client(checker, current):
    """A client of a server with both webhooks."""
    app = web.Application()
    app.add_routes(routes(settings=lambda: current[-1], check_config=checker))
    async with TestClient(TestServer(app)) as found:
        yield found


async def ask(client, path, body):
    """The response in the review that came back."""
    answer = await client.post(path, json=body)
    assert answer.status == 200, await answer.text()
    document = await answer.json()
    assert (document["apiVersion"], document["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response = document["response"]
    assert response["uid"] == body["request"]["uid"]
    assert all(len(warning) <= 256 for warning in response.get("warnings", []))
    return response


async def test_a_pod_gets_a_patch(client):
    """RFC 6902 in base64."""
    response = await ask(client, INJECT_PATH, review(POD))
    assert response["allowed"] is True
    assert response["patchType"] == "JSONPatch"
    operations = json.loads(base64.b64decode(response["patch"]))
    assert [(each["op"], each["path"]) for each in operations] == [
        ("add", "/metadata/labels"), ("add", "/metadata/annotations"), ("replace", "/spec/containers"),
        ("add", "/spec/volumes"), ("add", "/spec/initContainers"),
    ]  # fmt: skip


async def test_strangers_fill_no_log(client, caplog):
    """Each refusal is answered, and some of them are lines at the usual level."""
    caplog.set_level("INFO")
    refused = {"metadata": {"name": "web"}, "spec": {**POD["spec"], "hostNetwork": True}}
    for _ in range(80):
        assert (await ask(client, INJECT_PATH, review(refused)))["allowed"] is False
    assert 0 < len([record for record in caplog.records if record.message.startswith("refused: ")]) < 75


async def test_the_authority_is_the_one_of_this_moment(client, current):
    """It changes while the operator runs."""
    current.append(InjectionSettings(image="i", operator="https://o.n.svc", operator_ca="A NEWER CA"))
    response = await ask(client, INJECT_PATH, review(POD))
    assert b"A NEWER CA" in base64.b64decode(response["patch"])


@pytest.mark.parametrize(
    "body",
    [
        review(POD, operation="UPDATE"), review(POD, operation="CONNECT"),
        review(POD, subResource="ephemeralcontainers"),
        review({**POD, "metadata": {"labels": {"hookline.dev/inject": "false"}}}), review(POD, kind="Deployment"),
        review(None, operation="DELETE"),
    ],
)  # fmt: skip
async def test_what_is_no_new_pod_that_asks_is_allowed_as_it_is(client, body):
    """Without a patch, without a word."""
    assert await ask(client, INJECT_PATH, body) == {"allowed": True, "uid": "705ab4f5"}


async def test_a_pod_that_cannot_have_a_sidecar_is_refused_with_the_sentence(client):
    """As `kubectl` and the ReplicaSet's events show it."""
    pod = {**POD, "metadata": {"name": "web", "annotations": {"hookline.dev/hook-port": "x"}}}
    response = await ask(client, INJECT_PATH, review(pod))
    assert response["allowed"] is False
    assert response["status"]["code"] == 422
    assert response["status"]["message"].startswith("pod shop/web: the annotation hookline.dev/hook-port is 'x'")
    assert "patch" not in response


async def test_a_pod_that_is_left_alone_comes_with_a_warning(client):
    """Never a surprise."""
    response = await ask(client, INJECT_PATH, review({**POD, "spec": {**POD["spec"], "os": {"name": "windows"}}}))
    assert response["allowed"] is True
    assert "patch" not in response
    assert response["warnings"] == ["pod shop/web: no sidecar was injected: the sidecar does not run on Windows"]


@pytest.mark.parametrize("path", [INJECT_PATH, VALIDATE_PATH])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no JSON"), (b"{", "no JSON"), (b"[" * 100_000, "no JSON"), (b"NaN", "no JSON"), (b"\xff", "no JSON"),
        (b'"\\ud800"', "no JSON"), (b"[]", "no AdmissionReview"), (b"null", "no AdmissionReview"),
        (b'{"kind": "Pod"}', "no AdmissionReview"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1"}', "only admission.k8s.io/v1"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}', "no request"),
        (json.dumps({**review(POD), "request": []}).encode(), "no request"),
        (json.dumps({**review(POD), "request": {}}).encode(), "uid is no text"),
        (json.dumps(review(POD, uid=5)).encode(), "uid is no text"),
        (json.dumps(review(POD, operation=None)).encode(), "operation is no text"),
        (json.dumps(review(POD, namespace=[1])).encode(), "namespace is no text"),
        (json.dumps(review("a pod")).encode(), "object is no object"),
        (json.dumps(review(POD, oldObject=[1])).encode(), "oldObject is no object"),
    ],
)  # fmt: skip
async def test_what_is_malformed_is_a_400_with_a_sentence(client, path, body, says):
    """One line, no traceback."""
    answer = await client.post(path, data=body, headers={"Content-Type": "application/json"})
    text = await answer.text()
    assert answer.status == 400, text
    assert says in text
    assert text.count("\n") == 1


async def test_what_is_no_pod_is_a_400(client):
    """An object of the right kind in the wrong shape."""
    answer = await client.post(INJECT_PATH, json=review({"spec": {"containers": "web"}}))
    assert (answer.status, await answer.text()) == (400, "the pod's containers are no list of objects\n")


async def test_other_media_types_and_methods_are_refused(client):
    """Only what an API server sends."""
    for kind in "text/plain", ";" * 4000, "a/b;" + "(" * 4000:
        assert (await client.post(INJECT_PATH, data="a=b", headers={"Content-Type": kind})).status == 415
    assert (await client.get(INJECT_PATH)).status == 405


async def test_a_body_over_the_cap_is_not_read(client):
    """With a length, and in chunks without end."""
    headers = {"Content-Type": "application/json"}
    answer = await client.post(INJECT_PATH, data=io.BytesIO(b"x" * (MAX_BODY + 1)), headers=headers)
    assert answer.status == 413

    async def chunks():
        while True:
            yield b"x" * 65_536

    try:
        answer = await client.post(INJECT_PATH, data=chunks(), headers=headers)
    except OSError:
        pass  # the server may close before all is written
    else:
        assert answer.status == 413
    assert (await ask(client, INJECT_PATH, review(POD)))["allowed"] is True


async def test_a_body_that_does_not_arrive_is_given_up(client, monkeypatch):
    """Its sender keeps nothing here."""
    monkeypatch.setattr(reviews, "_BODY_TIMEOUT_S", 0.05)

    async def never():
        yield b"{"
        await asyncio.sleep(3600)

    answer = await client.post(INJECT_PATH, data=never(), headers={"Content-Type": "application/json"})
    assert answer.status == 408


async def test_our_own_failure_at_a_pod_is_left_to_the_failure_policy(client, monkeypatch, caplog):
    """A 500 without a trace of the inside; the namespace's webhook says whether the pod is created."""

    def broken(*_, **__):
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(admission, "inject", broken)
    answer = await client.post(INJECT_PATH, json=review(POD))
    assert answer.status == 500
    assert await answer.text() == "Hookline failed at this request; the operator's log says why\n"
    assert "the secret inside" in caplog.text


async def test_a_good_plugin_is_allowed_without_a_word(client, checker):
    """With everything that an API server adds."""
    document = plugin(
        selector={"matchLabels": {"app.kubernetes.io/name": "x"},
                  "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
        limits={"timeout": "50ms", "memory": "16Mi"}, hooks=["preQuery".lower()], permissions=["kv.read", "custom.x"],
        config={"free": {"form": [1]}},
    )  # fmt: skip
    document["status"] = {"nonsense": 1}
    assert await ask(client, VALIDATE_PATH, review(document, kind="WasmPlugin")) == {"allowed": True, "uid": "705ab4f5"}
    (asked,) = checker.asked
    assert asked.spec.config == {"free": {"form": [1]}}
    assert asked.metadata.namespace == "shop"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"source": {}}, "spec.source: give exactly one of oci, http, configMap"),
        ({"source": {**SPEC["source"], "configMap": {"name": "x"}}}, "spec.source: give exactly one of oci, http, "),
        ({"source": {"file": {"path": "x"}}},
         "spec.source: give exactly one of oci, http, configMap; spec.source.file: is for manifest folders only"),
        ({"source": {"oci": {"reference": "oci-layout:/x"}}}, "spec.source.oci.reference: oci-layout: is for manifest"),
        ({"source": {"oci": {"reference": "Bad Ref"}}}, "spec.source.oci.reference: 'Bad Ref' is no artifact"),
        ({"source": {"oci": {"reference": "r/p:1", "trackInterval": "1s"}}},
         "spec.source.oci.trackInterval: 1s is not between 10s and 720h"),
        ({"source": {"http": {"url": "https://", "sha256": "0" * 64}}}, "spec.source.http.url: names no host"),
        ({"source": {"http": {"url": "https://h:99999/x", "sha256": "0" * 64}}}, "spec.source.http.url: names no host"),
        ({"source": {"http": {"url": "https://h/x", "sha256": "A" * 64}}}, "spec.source.http.sha256: is no SHA-256"),
        ({"verify": {"ed25519": ["x"]}}, "spec.verify: this version of Hookline cannot check signatures"),
        ({"permissions": ["kv.everything"]}, "spec.permissions[0]: is no permission: kv.read, "),
        ({"hooks": ["pre_quarry"]}, "spec.hooks[0]: 'pre_quarry' is no hook"),
        ({"egress": ["https://x:443"]}, "spec: egress needs the permission http.fetch"),
        ({"egress": ["ftp://x"], "permissions": ["http.fetch"]}, "spec.egress[0]: is no scheme://host:port"),
        ({"limits": {"timeout": "2h"}}, "spec.limits.timeout: 2h is not between 1ms and 1m"),
        ({"limits": {"timeout": 5}}, "spec.limits.timeout: 5 has no unit; write for example 50ms"),
        ({"limits": {"memory": "1Ki"}}, "spec.limits.memory: 1Ki is not between 64Ki and 1Gi"),
        ({"failurePolicy": {"verify": "Open"}}, "spec.failurePolicy.verify: Input should be 'LastGood' or 'Closed'"),
        ({"configFrom": [{"key": "k", "path": "a"}]}, "spec.configFrom[0]: give exactly one of secretRef, config"),
        ({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
         "spec.selector.matchExpressions[0].values: In needs at least one value"),
        ({"selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}},
         "spec.selector.matchExpressions[0].values: Exists takes no values"),
        ({"selector": {"matchLabels": {"a b": "x"}}}, "spec.selector.matchLabels: 'a b' is no label"),
        ({"selector": {"matchExpressions": [{"key": "-", "operator": "Exists"}]}},
         "spec.selector.matchExpressions[0].key: '-' is no label"),
    ],
)  # fmt: skip
async def test_a_wrong_plugin_is_refused_with_the_fields_path_and_a_sentence(client, spec, says, checker):
    """On create and on update; the config is not looked at."""
    for more in ({}, {"operation": "UPDATE", "oldObject": plugin()}):
        response = await ask(client, VALIDATE_PATH, review(plugin(**spec), kind="WasmPlugin", **more))
        assert response["allowed"] is False
        assert response["status"]["code"] == 422
        assert response["status"]["message"].startswith(says)
        assert len(response["status"]["message"]) < 500
    assert checker.asked == []


async def test_all_that_is_wrong_is_said_at_once_up_to_five(client):
    """Whatever kind of mistake."""
    spec = {
        "source": {"oci": {"reference": "a b"}}, "hooks": ["x"], "permissions": ["y"], "limits": {"timeout": "1d"},
        "verify": {"keys": ["k"]}, "priority": "high", "mode": "Off",
    }  # fmt: skip
    response = await ask(client, VALIDATE_PATH, review(plugin(**spec), kind="WasmPlugin"))
    *five, more = response["status"]["message"].split("; spec.")
    assert len(five) == 4
    assert more.endswith("; and 2 more")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"source": {"oci": {"reference": "r.x/p:1", "insecure": True}}}, "spec.source.oci.insecure: "),
        ({"source": {"oci": {"reference": "r.x/p"}}}, "spec.source.oci.reference: 'latest' is looked up"),
        ({"source": {"oci": {"reference": "r.x/p:latest"}}}, "spec.source.oci.reference: 'latest' is looked up"),
        ({"failurePolicy": {"trap": "Open"}}, "spec.failurePolicy.trap: with Open"),
        ({"failurePolicy": {"fetch": "Open"}, "hooks": ["route", "metrics"]}, "spec.failurePolicy.fetch: with Open"),
        ({"permissions": ["http.fetch"]}, "spec.permissions: http.fetch grants nothing in this version"),
        ({"permissionsPolicy": "Lenient"}, "spec.permissionsPolicy: with Lenient, a plugin runs without what"),
        ({"newer": 1}, "spec.newer: this version of Hookline knows no such field"),
        ({"limits": {"newer": 1}}, "spec.limits.newer: this version of Hookline knows no such field"),
    ],
)  # fmt: skip
async def test_what_is_legal_and_risky_is_allowed_with_a_warning(client, spec, says):
    """One sentence each."""
    response = await ask(client, VALIDATE_PATH, review(plugin(**spec), kind="WasmPlugin"))
    assert response["allowed"] is True
    (warning,) = response["warnings"]
    assert warning.startswith(says)


@pytest.mark.parametrize("refused", [False, True])
async def test_what_the_module_imports_and_is_not_granted_is_refused_or_warned_of(checker, refused):
    """Whoever applies it reads at once what the status would say."""
    app = web.Application()

    def lacks(found):
        sentence = f"the module of {found.metadata.name} imports env.kv_get, which needs the permission kv.read"
        return Lack(sentence, refused=refused)

    app.add_routes(routes(settings=lambda: SETTINGS, check_config=checker, check_permissions=lacks))
    async with TestClient(TestServer(app)) as client:
        response = await ask(client, VALIDATE_PATH, review(plugin(), kind="WasmPlugin"))
    says = "spec.permissions: the module of demo imports env.kv_get, which needs the permission kv.read"
    assert response["allowed"] is not refused
    assert response["status"]["message"] == says if refused else response["warnings"] == [says]


@pytest.mark.parametrize(
    "spec",
    [
        {"source": {"oci": {"reference": "r.x/p", "trackInterval": "1m"}}},
        {"source": {"oci": {"reference": "r.x/p@sha256:" + "a" * 64}}},
        {"failurePolicy": {"trap": "Open"}, "hooks": ["metrics", "on_connect"]},
        {"permissions": [each.value for each in Permission if each.value.startswith("kv.")]},
    ],
)
async def test_what_is_not_risky_is_not_warned_of(client, spec):
    """A warning that always comes is read by nobody."""
    assert "warnings" not in await ask(client, VALIDATE_PATH, review(plugin(**spec), kind="WasmPlugin"))


async def test_a_config_that_fails_its_schema_is_refused(client, checker):
    """With the checker's sentence."""
    checker.answer = "threshold: 'x' is not of type 'integer'"
    response = await ask(client, VALIDATE_PATH, review(plugin(config={"threshold": "x"}), kind="WasmPlugin"))
    assert response["allowed"] is False
    assert response["status"]["message"] == "spec.config: threshold: 'x' is not of type 'integer'"


async def test_a_check_that_fails_or_takes_too_long_allows_with_a_warning(client, checker, monkeypatch, caplog):
    """The operator judges again."""
    checker.answer = RuntimeError("the secret inside")
    response = await ask(client, VALIDATE_PATH, review(plugin(), kind="WasmPlugin"))
    assert response["allowed"] is True
    assert response["warnings"] == ["Hookline could not check this resource now; its status will say what is wrong"]
    assert "the secret inside" in caplog.text
    monkeypatch.setattr(admission, "_CHECK_TIMEOUT_S", 0.05)
    checker.answer = "slow"
    response = await ask(client, VALIDATE_PATH, review(plugin(), kind="WasmPlugin"))
    assert response["allowed"] is True
    assert response["warnings"][0].startswith("spec.config was not checked: that takes too long")


async def test_an_update_that_leaves_the_spec_alone_is_always_allowed(client, checker):
    """A finalizer, a label, a status: whatever was stored before."""
    bad = plugin(mode="Off")
    labelled = copy.deepcopy(bad)
    labelled["metadata"]["labels"] = {"a": "b"}
    leaving = copy.deepcopy(plugin(mode="Also"))
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    for body in (
        review(labelled, kind="WasmPlugin", operation="UPDATE", oldObject=bad),
        review(leaving, kind="WasmPlugin", operation="UPDATE", oldObject=bad),
        review(bad, kind="WasmPlugin", operation="UPDATE", oldObject=plugin(), subResource="status"),
        review(None, kind="WasmPlugin", operation="DELETE", oldObject=bad),
        review(bad, kind="Other"),
    ):
        assert await ask(client, VALIDATE_PATH, body) == {"allowed": True, "uid": "705ab4f5"}
    assert checker.asked == []


def test_a_vast_resource_is_refused_as_a_whole():
    """Not with a sentence for each of a million mistakes; a large config is no mistake."""
    for spec in ({f"x{index}": 1 for index in range(30_000)}, {"hooks": ["x"] * 30_000}):
        assert judge(plugin(**spec))[0] == ["spec: holds more than 20000 values beside config"]
    assert judge(plugin(config={f"x{index}": 1 for index in range(30_000)}))[0] == []


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(0, 9)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["spec", "metadata", "source", "oci", "reference", "http", "url", "selector", "matchLabels",
                         "matchExpressions", "key", "operator", "values", "verify", "keys", "hooks", "permissions",
                         "file", "limits", "failurePolicy", "trap", "insecure", "name"]) | st.text(max_size=4),
        inner, max_size=5),
    max_leaves=25,
)  # fmt: skip


def test_operators_of_no_text_are_judged_too():
    """What is no text is in no set."""
    requirement = {"key": [], "operator": [{}], "values": {}}
    problems, _, found = judge(plugin(selector={"matchLabels": [], "matchExpressions": [requirement, 5]}))
    assert found is None
    assert any(text.startswith("spec.selector.matchExpressions[0].operator: ") for text in problems)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from(["spec", "metadata", "kind", "apiVersion"]), _json), _json)
def test_whatever_comes_is_judged_in_sentences(document, spec):
    """No shape of a document raises anything."""
    for each in (document, {**plugin(), "spec": spec}):
        problems, warnings, found = judge(each)
        assert problems or found is not None
        assert all(isinstance(text, str) and text for text in [*problems, *warnings])
