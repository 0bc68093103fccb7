"""Who deletes a plugin that pods run is warned, and the log says who it was; nothing is ever refused."""

import json
import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.pods import Pod
from hookline_operator.cluster.revisions import Revision, Seal, body_of
from hookline_operator.webhooks.admission import VALIDATE_PATH, routes
from hookline_operator.webhooks.deletion import Deletions

UID = "705ab4f5-0000"


def a_pod(name, **labels):
    """A pod with a sidecar."""
    return Pod.of({"metadata": {"namespace": "shop", "name": name, "uid": name, "labels": labels}})


@pytest.fixture
def catalogue():
    """A plugin that runs in the pods of one app."""
    made = Catalogue()
    spec = {"source": {"oci": {"reference": "r.test/a:1"}}, "selector": {"matchLabels": {"app": "web"}}}
    metadata = {"namespace": "shop", "name": "guard", "uid": UID, "generation": 1}
    status = {"hooks": "authenticate,authorize"}
    made.put_plugin({"metadata": metadata, "spec": spec, "status": status}, gone=False)
    artifact = {"digest": f"sha256:{'0' * 64}", "sha256": "0" * 64, "size": 8, "layout": "raw", "reference": "one"}
    template = {"plugin": "guard", "spec": spec, "artifact": artifact, "hooks": [], "imports": [], "inputs": {}}
    body = body_of(
        namespace="shop", plugin="guard", uid=UID, number=1, template=json.dumps(template).encode(), seal=Seal()
    )
    made.put_revision(("shop", "r"), None, Revision.of(body, Seal()))
    return made


@pytest.fixture
async def ask(catalogue):
    """Sends a review of a deletion; the response."""

    async def no_config(_plugin):
        return None

    app = web.Application()
    app.add_routes(routes(settings=lambda: None, check_config=no_config, deleted=Deletions(catalogue).note))
    async with TestClient(TestServer(app)) as client:

        async def asking(uid=UID, **changes):
            request = {
                "uid": "1", "kind": {"group": "hookline.dev", "version": "v1alpha1", "kind": "WasmPlugin"},
                "operation": "DELETE", "namespace": "shop", "name": "guard", "object": None,
                "oldObject": {"metadata": {"namespace": "shop", "name": "guard", "uid": uid}},
                "userInfo": {"username": "alice"}, **changes,
            }  # fmt: skip
            body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
            answer = await client.post(VALIDATE_PATH, json=body)
            assert answer.status == 200, await answer.text()
            return (await answer.json())["response"]

        yield asking


async def test_whoever_deletes_what_pods_run_is_warned_and_named(catalogue, ask, caplog):
    """With the number of pods and the hooks; and it is allowed."""
    for name in ("a", "b", "c"):
        catalogue.put_pod(("shop", name), None, a_pod(name, app="web"))
    catalogue.put_pod(("shop", "d"), None, a_pod("d", app="db"))
    response = await ask()
    assert response["allowed"] is True
    (warning,) = response["warnings"]
    assert warning.startswith("3 pods run this plugin: from now on, their proxies' hooks (authenticate,authorize)")
    assert len(warning) < 250
    assert "plugin 'shop/guard' is deleted, as alice asks; pods that match: 3" in caplog.text


async def test_what_no_pod_runs_is_deleted_without_a_warning(ask):
    """A warning that always comes is read by nobody."""
    assert await ask() == {"allowed": True, "uid": "1"}


async def test_a_stranger_learns_nothing_and_writes_no_line(catalogue, ask, caplog):
    """Without the plugin's uid it is as if there were none."""
    catalogue.put_pod(("shop", "a"), None, a_pod("a", app="web"))
    for uid in ("", "guess", None, 5, ["x"], "ü"):
        assert await ask(uid=uid) == {"allowed": True, "uid": "1"}
    assert await ask(name="other") == {"allowed": True, "uid": "1"}
    assert await ask(oldObject=None) == {"allowed": True, "uid": "1"}
    assert caplog.text == ""


async def test_a_dry_run_is_warned_and_not_logged(catalogue, ask, caplog):
    """Nothing is deleted."""
    catalogue.put_pod(("shop", "a"), None, a_pod("a", app="web"))
    assert (await ask(dryRun=True))["warnings"][0].startswith("1 pod runs this plugin")
    assert caplog.text == ""


@pytest.mark.parametrize("user", [None, "x", {"username": None}, {"username": "a\nb" * 100}])
async def test_who_asks_is_bounded_and_on_one_line(catalogue, ask, caplog, user):
    """A name is whatever an identity provider says."""
    catalogue.put_pod(("shop", "a"), None, a_pod("a", app="web"))
    caplog.set_level(logging.WARNING)
    await ask(userInfo=user)
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 250


async def test_whoever_makes_up_reviews_fills_no_log(catalogue, ask, caplog):
    """A tenant knows the uid of its own plugin; each answer is the same, and the log has some of them."""
    catalogue.put_pod(("shop", "a"), None, a_pod("a", app="web"))
    answers = [await ask() for _ in range(200)]
    assert all(each["warnings"] for each in answers)
    assert len(caplog.records) < 100
