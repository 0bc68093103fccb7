"""A policy is judged strictly: what is not understood, or can never fit, is refused with the field's path."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from admission_reviews import SETTINGS, ask, review
from hookline_api.policies import PluginTrustPolicySpec
from hookline_artifacts.judging.policies import judge_policy
from hookline_operator.webhooks.admission import routes
from hookline_operator.webhooks.dry_run import PATH, secret_path
from public_keys import p256, pem, private_pem

KEY = p256()
SECRET = secret_path(b"the operator's own key")
GOOD = {"signatures": {"anyOf": [{"key": {"pem": pem(KEY)}}]}}


def policy(spec, **metadata):
    """A PluginTrustPolicy."""
    return {
        "apiVersion": "hookline.dev/v1alpha1", "kind": "PluginTrustPolicy",
        "metadata": {"name": "strict", **metadata}, "spec": spec,
    }  # fmt: skip


def asked(found, *, operation="CREATE", **more):
    """A review of one."""
    body = review(found, kind="PluginTrustPolicy", operation=operation, **more)
    body["request"]["kind"]["group"] = "hookline.dev"
    return body


class Rehearsal:
    """Stands in for what is known of the cluster."""

    def __init__(self):
        self.answer = []
        self.asked = []

    async def __call__(self, found):
        """As ``DryRun``."""
        self.asked.append(found)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def rehearsal():
    """Says nothing, until a test gives it words."""
    return Rehearsal()


@pytest.fixture
async def client(rehearsal, checker):
    """A client of a server that knows the path."""
    app = web.Application()
    app.add_routes(
        routes(settings=lambda: SETTINGS, check_config=checker, rehearse=rehearsal, policies_path=lambda: SECRET)
    )
    async with TestClient(TestServer(app)) as found:
        yield found


@pytest.mark.parametrize(
    "spec",
    [
        GOOD,
        {"references": "Digest"},
        {"repositories": ["registry.example/**", "docker.io/acme/*", "localhost:5000/p", "*/team/p"], **GOOD},
        {"limits": {"timeout": "50ms"}, "permissions": [], "egress": [], "mode": "Audit"},
        {"namespaceSelector": {"matchLabels": {"a.example/b": "c"}}, "references": "Tag", "tags": ["v*"]},
    ],
)
async def test_a_good_policy_is_allowed_without_a_word(client, spec, rehearsal):
    """What it would do is asked for with all that there is to know."""
    answer = await ask(client, f"{SECRET}?timeout=7s", asked(policy(spec), dryRun=True))
    assert answer == {"allowed": True, "uid": "705ab4f5"}
    (found,) = rehearsal.asked
    assert (found.name, found.before, found.dry_run, found.seconds) == ("strict", None, True, 7.0)
    assert isinstance(found.spec, PluginTrustPolicySpec)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"mode": "Off"}, "spec.mode: Input should be 'Enforce' or 'Audit'"),
        ({"newer": 1}, "spec.newer: there is no such field"),
        ({"limits": {"newer": 1}}, "spec.limits.newer: there is no such field"),
        ({"limits": {"timeout": "2h"}}, "spec.limits.timeout: 2h is not between 1ms and 1m"),
        ({"repositories": ["registry.example"]}, 'spec.repositories[0]: "registry.example" fits nothing: it names no'),
        ({"repositories": ["registry.example/**", "r.example/p:1"]}, 'spec.repositories[1]: "r.example/p:1" fits noth'),
        ({"pluginSelector": {"names": ["Upper"]}}, "spec.pluginSelector.names[0]: "),
        ({"pluginSelector": {"matchLabels": {"a b": "x"}}}, "spec.pluginSelector.matchLabels: 'a b' is not a label"),
        ({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
         "spec.namespaceSelector.matchExpressions[0].values: In needs at least one value"),
        ({"signatures": {"anyOf": [{"key": {"pem": "k"}}]}}, "spec.signatures.anyOf[0].key.pem: is not a public key"),
        ({"signatures": {"anyOf": [{"key": {"pem": private_pem(KEY)}}]}}, "spec.signatures.anyOf[0].key.pem: is a "),
        ({"signatures": {"anyOf": [{"key": {"from": {"file": "k"}}}]}}, "spec.signatures.anyOf[0].key.from.file: is"),
        ({"signatures": {**GOOD["signatures"], "minimum": 2}}, "spec.signatures: minimum is 2, and anyOf has only 1"),
        ({"signatures": {"anyOf": [{"key": {"pem": pem(KEY)}}] * 2, "minimum": 2}}, "spec.signatures.minimum: is 2"),
    ],
)  # fmt: skip
async def test_a_policy_that_is_wrong_is_refused(client, spec, says, rehearsal):
    """On create and on update, and what it would do is not asked."""
    for more in ({}, {"operation": "UPDATE", "oldObject": policy({})}):
        answer = await ask(client, SECRET, asked(policy(spec), **more))
        assert answer["allowed"] is False
        assert answer["status"]["message"].startswith(says)
    assert rehearsal.asked == []


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "spec: asks for nothing, so it forbids nothing"),
        ({"repositories": []}, "spec.repositories: is empty, so it forbids every plugin that it selects"),
        ({"sources": []}, "spec.sources: is empty, so it forbids every plugin"),
        ({"sources": ["http"], "repositories": ["r.example/p"]}, "spec.sources: has no oci, and repositories allows"),
        ({"references": "Digest", "tags": ["v*"]}, "spec.tags: does nothing, since every reference must have a digest"),
        ({"signatures": {}}, "spec.signatures: asks for no signature"),
    ],
)
async def test_a_policy_that_may_not_do_what_was_meant_is_warned_of(client, spec, says):
    """And stored."""
    answer = await ask(client, SECRET, asked(policy(spec)))
    assert answer["allowed"] is True
    assert answer["warnings"][-1].startswith(says)


async def test_what_it_would_do_is_told_at_the_secret_path_alone(client, rehearsal):
    """Elsewhere nobody is asked, and it is said where it is told."""
    rehearsal.answer = ["would refuse 1 of 1 plugin that it selects", "would refuse shop/guard: " + "x" * 400]
    told = await ask(client, SECRET, asked(policy(GOOD)))
    assert told["warnings"][0] == rehearsal.answer[0]
    for path in (PATH, f"{PATH}/", f"{PATH}/0", f"{SECRET}0", SECRET[:-1]):
        rehearsal.asked.clear()
        (warning,) = (await ask(client, path, asked(policy(GOOD))))["warnings"]
        assert warning.startswith("what it would do to the plugins of this cluster is told at another path")
        assert rehearsal.asked == []


async def test_an_update_is_asked_about_only_where_the_rules_change(client, rehearsal):
    """Labels, finalizers and statuses are not; a deletion is, and passes whatever is found."""
    old = policy(GOOD)
    leaving = policy({"mode": "Off"}, deletionTimestamp="2026-01-01T00:00:00Z")
    for body in (
        asked(policy(GOOD, labels={"a": "b"}), operation="UPDATE", oldObject=old),
        asked(leaving, operation="UPDATE", oldObject=old),
        asked(policy({"mode": "Off"}), operation="UPDATE", oldObject=old, subResource="status"),
        asked(policy({"mode": "Off"}), operation="CONNECT"),
        review({"spec": {}}, kind="Other"),
    ):
        assert await ask(client, SECRET, body) == {"allowed": True, "uid": "705ab4f5"}
    assert rehearsal.asked == []
    await ask(client, SECRET, asked(old, operation="UPDATE", oldObject=old, dryRun=True))
    assert rehearsal.asked.pop().dry_run
    rehearsal.answer = ["nothing asks for signatures of 1 plugin any more: shop/guard"]
    answer = await ask(client, SECRET, asked(None, operation="DELETE", oldObject=old))
    assert answer == {"allowed": True, "uid": "705ab4f5", "warnings": rehearsal.answer}
    (found,) = rehearsal.asked
    assert (found.name, found.spec, found.before) == ("strict", None, PluginTrustPolicySpec.model_validate(GOOD))


async def test_a_defect_lets_it_in_with_a_warning(client, rehearsal, caplog):
    """The operator enforces it in any case."""
    rehearsal.answer = RuntimeError("the secret inside")
    answer = await ask(client, SECRET, asked(policy(GOOD)))
    assert answer["allowed"] is True
    assert answer["warnings"] == ["Hookline could not check this policy now; its status will say what is wrong"]
    assert "the secret inside" in caplog.text


def test_the_path_is_told_by_nothing_else():
    """It is another for each operator, and a path that the API server takes."""
    assert secret_path(b"the operator's own key") == SECRET
    assert secret_path(b"another's") != SECRET
    assert SECRET.startswith(f"{PATH}/")
    assert len(SECRET) == len(PATH) + 41


def test_a_policy_of_the_largest_size_is_judged():
    """Of more than the operator reads nothing is parsed further; of less, every star is looked at in linear time."""
    stars = "*/" + "*a" * 200 + "*b"
    signer = {"key": {"pem": pem(KEY)}, "repositories": [stars] * 32, "plugins": ["*a" * 126] * 32, "name": "a" * 63}
    spec = {
        "repositories": [stars] * 64, "tags": ["*" * 128] * 64,
        "signatures": {"anyOf": [signer] * 8, "allOf": [signer] * 2},
        "pluginSelector": {"names": ["*a" * 126] * 64},
    }  # fmt: skip
    problems, _, read = judge_policy(policy(spec))
    assert problems == []
    assert read is not None
    spec["signatures"]["anyOf"] = [signer] * 16
    spec["signatures"]["attestations"] = [{"predicateType": "https://x.example/y", "signers": [signer] * 16}] * 8
    assert judge_policy(policy(spec))[0] == ["spec: it has more than 524288 bytes"]


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["mode", "namespaceSelector", "pluginSelector", "names", "matchLabels", "matchExpressions",
                         "signatures", "anyOf", "allOf", "key", "pem", "from", "file", "repositories", "limits",
                         "attestations", "predicateType", "signers", "minimumVersions", "egress", "hosts"])
        | st.text(max_size=4),
        inner, max_size=5),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(_json, _json)
def test_whatever_comes_is_judged_in_sentences(document, spec):
    """No shape of a document raises anything."""
    for each in ({"spec": document} if not isinstance(document, dict) else document, policy(spec)):
        problems, warnings, read = judge_policy(each)
        assert problems or read is not None
        assert all(isinstance(text, str) and text for text in [*problems, *warnings])
