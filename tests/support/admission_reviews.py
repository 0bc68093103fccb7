"""Admission reviews, as the API server sends them."""

from __future__ import annotations

from hookline_operator.webhooks.annotations import InjectionSettings

SETTINGS = InjectionSettings(
    image="sidecar:1", operator="https://hookline-operator.hookline-system.svc", operator_ca="CA"
)


def review(found, *, kind="Pod", operation="CREATE", **more):
    """An AdmissionReview as an API server sends it."""
    group = "hookline.dev" if kind == "WasmPlugin" else ""
    request = {
        "uid": "705ab4f5", "kind": {"group": group, "version": "v1", "kind": kind}, "operation": operation,
        "namespace": "shop", "object": found, **more,
    }  # fmt: skip
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


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
