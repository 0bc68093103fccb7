"""What a plugin asks and does not reach is to be seen by ``kubectl describe``, and takes nothing out of service."""

from __future__ import annotations

from hookline_api.distribution import UnavailableSource

POSTGRES = {"host": "db.shop.svc", "database": "shop", "user": "hookline"}
AWAY = [UnavailableSource(source="data source 'grants'", message="the server refused the connection")]


def events(tenant):
    """Types and reasons of the Events of its plugins."""
    found = tenant.plane.get("events", f"--namespace={tenant.name}")["items"]
    return [(each["type"], each["reason"]) for each in found if each["involvedObject"]["kind"] == "WasmPlugin"]


async def test_a_database_that_is_away_is_a_condition_and_an_event_and_nothing_else(
    operator, tenant, module, connect, eventually
):
    """The plugin stays Ready, runs on, and a new version of it gets to the pods meanwhile."""
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    spec = {"permissions": ["query.execute"], "dataSources": [{"name": "grants", "postgres": POSTGRES}]}
    tenant.plugin("guard", tenant.module("one", module("v1")), **spec)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")

    def reached():
        found = tenant.status("guard")["conditions"].get("SourcesAvailable", {})
        return found.get("status"), found.get("reason")

    await eventually(lambda: reached() == ("True", "SourcesAvailable"), "the condition")
    sidecar.unavailable["guard"] = AWAY
    await sidecar.say()
    await eventually(lambda: reached() == ("False", "DataSourceUnavailable"), "DataSourceUnavailable")
    assert tenant.ready("guard") == ("True", "Ready")
    described = tenant.plane.kubectl("describe", "wp/guard", f"--namespace={tenant.name}")
    says = "data source 'grants' cannot be reached from pod 'a': the server refused the connection"
    assert says in " ".join(described.split())
    await eventually(lambda: ("Warning", "DataSourceUnavailable") in events(tenant), "the Event")
    before = sidecar.runs()
    tenant.plugin("guard", tenant.module("two", module("v2")), **spec)
    await sidecar.until(lambda: sidecar.runs() != before)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    sidecar.unavailable.clear()
    await sidecar.say()
    await eventually(lambda: reached() == ("True", "SourcesAvailable"), "the condition")
    await eventually(lambda: ("Normal", "SourcesAvailable") in events(tenant), "the Event")


async def test_a_plugin_that_asks_nobody_has_no_such_condition(operator, guarded, tenant):
    """Most have nothing to say about it."""
    await guarded(operator)
    assert "SourcesAvailable" not in tenant.status("guard")["conditions"]
