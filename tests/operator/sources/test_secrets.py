"""Values of Secrets that sources name reach exactly the pods that the plugin selects, also when they change."""

from __future__ import annotations

import base64
import json

import pytest

POSTGRES = {"host": "db.shop.svc", "database": "shop", "user": "hookline"}
PASSWORD = {"name": "grants-db", "key": "password"}
TOKEN = {"name": "api", "key": "token"}
SPEC = {
    "permissions": ["query.execute", "http.fetch"],
    "selector": {"matchLabels": {"app": "web"}},
    "dataSources": [{"name": "grants", "postgres": {**POSTGRES, "passwordFrom": PASSWORD}}],
    "egress": [{"host": "api.example.com", "credential": {"prefix": "Bearer ", "valueFrom": TOKEN}}],
}


def secret(name, **values):
    """A Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


@pytest.fixture
def pods(tenant, connect, module):
    """Two pods, of which one matches the plugin that is applied; their sidecars."""

    async def start(operator):
        tenant.apply(secret("grants-db", password="first-value"), secret("api", token="token-value"))
        tenant.apply(secret("other", password="nobody's"))
        tenant.pod("web", labels={"app": "web"})
        tenant.pod("batch", labels={"app": "batch"})
        tenant.plugin("guard", tenant.module("one", module("v1")), **SPEC)
        return [await connect(operator, tenant, name) for name in ("web", "batch")]

    return start


def credentials(sidecar):
    """Of the plugin, as the sidecar got them."""
    return sidecar.bundle_of("guard").credentials if "guard" in sidecar.runs() else None


async def test_values_reach_the_pods_that_match_and_nobody_else(operator, pods, tenant, eventually):
    """In the bundle, by the Secret's name and key; in no object of the API, and in no log."""
    web, batch = await pods(operator)
    await web.until(lambda: credentials(web) == {"grants-db/password": "first-value", "api/token": "token-value"})
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    await batch.until(lambda: batch.running is not None)
    assert batch.running.bundle.plugins == []
    before = web.runs()["guard"]
    tenant.apply(secret("grants-db", password="second-value"))
    await web.until(lambda: (credentials(web) or {}).get("grants-db/password") == "second-value")
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    entry = web.bundle_of("guard")
    assert entry.revision != before
    assert entry.seal is not None
    assert entry.revision != entry.model_copy(update={"seal": None}).revision
    kinds = ("wasmplugins", "wasmpluginrevisions", "events", "controllerrevisions")
    everything = json.dumps([tenant.plane.get(kind, f"--namespace={tenant.name}") for kind in kinds])
    everything += operator.log.read_text()
    for value in ("first-value", "second-value", "token-value"):
        assert value not in everything
        assert base64.b64encode(value.encode()).decode() not in everything
    assert batch.running.bundle.plugins == []


async def test_a_secret_that_is_only_annotated_or_that_no_source_names_changes_nothing(
    operator, pods, tenant, eventually
):
    """No new revision, and no new bundle."""
    web, _ = await pods(operator)
    await web.until(lambda: credentials(web))
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    before, bundles, revisions = web.runs(), web.bundles, tenant.revisions()
    tenant.apply(secret("other", password="of nobody either"))
    tenant.plane.kubectl("annotate", "secret/grants-db", "team=shop", f"--namespace={tenant.name}")
    # Once this is in, so would be what came before.
    tenant.apply(secret("api", token="another-token"))
    await web.until(lambda: (credentials(web) or {}).get("api/token") == "another-token")
    assert web.bundles <= bundles + 2  # one is held, and may be followed by what the status says
    assert web.runs() != before
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    names = {each["metadata"]["name"] for each in tenant.revisions()}
    assert len(names - {each["metadata"]["name"] for each in revisions}) == 1


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (secret("grants-db", other="x"), "there is no Secret 'grants-db' with the key 'password'"),
        (
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "grants-db"},
             "data": {"password": base64.b64encode(b"\xff\xfe").decode()}},
            "the key 'password' of the Secret 'grants-db' is not text in UTF-8",
        ),
        (secret("grants-db", password="x" * 65_537), "has more than 65536 bytes"),
    ],
    ids=["another key", "not text", "too large"],
)  # fmt: skip
async def test_a_value_that_cannot_be_had_keeps_the_last_good_one(operator, pods, tenant, eventually, document, says):
    """The resource says which field, and which Secret; it is mended as soon as the Secret is."""
    web, _ = await pods(operator)
    await web.until(lambda: credentials(web))
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    before = web.runs()
    tenant.plane.kubectl("delete", "secret/grants-db", f"--namespace={tenant.name}")
    tenant.apply(document)

    def told():
        ready = tenant.status("guard")["conditions"]["Ready"]
        return ready["reason"] == "ConfigInvalid" and says in ready["message"]

    await eventually(told, says)
    assert web.runs() == before or web.bundle_of("guard").artifact is None
    tenant.apply(secret("grants-db", password="mended"))
    await web.until(lambda: (credentials(web) or {}).get("grants-db/password") == "mended")
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
