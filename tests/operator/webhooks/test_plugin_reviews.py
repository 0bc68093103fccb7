"""A plugin that is wrong is refused in sentences with the field's path; what is risky is allowed with a warning."""

from __future__ import annotations

import copy

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from admission_reviews import SETTINGS, ask, review
from hookline_api.permissions import Permission
from hookline_artifacts.judging.plugins import judge
from hookline_operator.webhooks import admission
from hookline_operator.webhooks.admission import VALIDATE_PATH, Lack, routes

SPEC = {"source": {"oci": {"reference": "registry.example/plugin:1"}}}
DISABLED = {"host": "db.shop", "database": "d", "user": "u", "tls": {"mode": "Disable"}}
PLAIN = {"scheme": "http", "host": "api.shop", "credential": {"valueFrom": {"name": "s", "key": "k"}}}


def plugin(**spec):
    """A WasmPlugin as an API server sends it, with what it keeps in metadata."""
    metadata = {"name": "demo", "namespace": "shop", "uid": "u", "managedFields": [], "creationTimestamp": "2026-01-01"}
    return {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": metadata, "spec": {**SPEC, **spec}}


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
        ({"source": {"oci": {"reference": "Bad Ref"}}}, "spec.source.oci.reference: 'Bad Ref' is not an artifact"),
        ({"source": {"oci": {"reference": "r/p:1", "trackInterval": "1s"}}},
         "spec.source.oci.trackInterval: 1s is not between 10s and 720h"),
        ({"source": {"http": {"url": "https://", "sha256": "0" * 64}}}, "spec.source.http.url: names no host"),
        ({"source": {"http": {"url": "https://h:99999/x", "sha256": "0" * 64}}}, "spec.source.http.url: names no host"),
        ({"source": {"http": {"url": "https://h/x", "sha256": "A" * 64}}},
         "spec.source.http.sha256: must be a SHA-256 of 64 hex digits in lower case"),
        ({"verify": {"ed25519": ["x"]}}, "spec.verify.ed25519[0]: String should match pattern"),
        ({"permissions": ["kv.everything"]}, 'spec.permissions[0]: "kv.everything" is not a permission'),
        ({"hooks": ["pre_quarry"]}, "spec.hooks[0]: 'pre_quarry' is not a hook"),
        ({"egress": ["https://x:443"]}, "spec: egress needs the permission http.fetch"),
        ({"egress": ["ftp://x"], "permissions": ["http.fetch"]}, "spec.egress[0]: must be a mapping with"),
        ({"limits": {"timeout": "2h"}}, "spec.limits.timeout: 2h is not between 1ms and 1m"),
        ({"limits": {"timeout": 5}}, "spec.limits.timeout: 5 has no unit; write for example 50ms"),
        ({"limits": {"memory": "1Ki"}}, "spec.limits.memory: 1Ki is not between 64Ki and 1Gi"),
        ({"failurePolicy": {"verify": "Open"}}, "spec.failurePolicy.verify: Input should be 'LastGood' or 'Closed'"),
        ({"configFrom": [{"key": "k", "path": "a"}]}, "spec.configFrom[0]: give exactly one of secretRef, config"),
        ({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
         "spec.selector.matchExpressions[0].values: In needs at least one value"),
        ({"selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}},
         "spec.selector.matchExpressions[0].values: Exists takes no values"),
        ({"selector": {"matchLabels": {"a b": "x"}}}, "spec.selector.matchLabels: 'a b' is not a label"),
        ({"selector": {"matchExpressions": [{"key": "-", "operator": "Exists"}]}},
         "spec.selector.matchExpressions[0].key: '-' is not a label"),
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
        ({"failurePolicy": {"store": "Open"}}, "spec.failurePolicy.store: with Open"),
        ({"permissions": ["query.execute:a"]}, "spec.permissions: query.execute:a is for no data source"),
        ({"permissions": ["query.execute"], "dataSources": [{"name": "a", "postgres": DISABLED}]},
         "spec.dataSources.a.postgres.tls.mode: with Disable, whoever is on the way reads queries and rows"),
        ({"kv": {"scope": "Cluster", "valkey": {"url": "redis://h", "passwordFrom": {"name": "s", "key": "k"}}}},
         "spec.kv.valkey.url: without TLS, whoever is on the way reads the password"),
        ({"permissions": ["http.fetch"], "egress": [PLAIN]}, "spec.egress[0].credential: with http, whoever is on the"),
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
    """Not with a sentence for each of a million mistakes; a large config is not a mistake."""
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
    """Only text is in a set."""
    requirement = {"key": [], "operator": [{}], "values": {}}
    problems, _, found = judge(plugin(selector={"matchLabels": [], "matchExpressions": [requirement, 5]}))
    assert found is None
    assert any(text.startswith("spec.selector.matchExpressions[0].operator: ") for text in problems)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from(["spec", "metadata", "kind", "apiVersion"]), _json), _json)
def test_whatever_comes_is_judged_in_sentences(document, spec):
    """No shape of a document raises anything."""
    for each in (document, {**plugin(), "spec": spec}):
        problems, warnings, found = judge(each)
        assert problems or found is not None
        assert all(isinstance(text, str) and text for text in [*problems, *warnings])
