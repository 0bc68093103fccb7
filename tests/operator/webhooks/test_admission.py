"""The webhooks answer every review in one sentence or a patch, whatever is sent, and their own faults block nobody."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import pytest

from admission_reviews import ask, review
from hookline_operator.webhooks import admission, reviews
from hookline_operator.webhooks.admission import INJECT_PATH, VALIDATE_PATH
from hookline_operator.webhooks.annotations import InjectionSettings
from hookline_operator.webhooks.reviews import MAX_BODY

POD = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "web", "image": "nginx"}]}}


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
        (b"", "not JSON"), (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"), (b"NaN", "not JSON"), (b"\xff", "not JSON"),
        (b'"\\ud800"', "not JSON"), (b"[]", "not an AdmissionReview"), (b"null", "not an AdmissionReview"),
        (b'{"kind": "Pod"}', "not an AdmissionReview"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1"}', "only admission.k8s.io/v1"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}', "no request"),
        (json.dumps({**review(POD), "request": []}).encode(), "no request"),
        (json.dumps({**review(POD), "request": {}}).encode(), "uid must be text"),
        (json.dumps(review(POD, uid=5)).encode(), "uid must be text"),
        (json.dumps(review(POD, operation=None)).encode(), "operation must be text"),
        (json.dumps(review(POD, namespace=[1])).encode(), "namespace must be text"),
        (json.dumps(review("a pod")).encode(), "object must be an object"),
        (json.dumps(review(POD, oldObject=[1])).encode(), "oldObject must be an object"),
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
    assert (answer.status, await answer.text()) == (400, "the pod's containers must be a list of objects\n")


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
