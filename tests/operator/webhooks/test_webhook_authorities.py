"""The API server trusts our webhooks by our authority, and where it refuses or goes away, the rest goes on."""

from __future__ import annotations

import asyncio
import base64

import pytest

from certificate_stores import DAY, NOW, Store, keeper
from hookline_operator.cluster.authority import (
    SERVING_LIFE,
)
from hookline_operator.cluster.kube import KubeError
from hookline_operator.webhooks import certificates

WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/{}/hookline"


def _configuration(*services):
    return {
        "metadata": {"name": "hookline"},
        "webhooks": [
            {"name": f"w{index}", "clientConfig": {"service": {"name": name, "namespace": namespace}}}
            for index, (name, namespace) in enumerate(services)
        ],
    }


async def test_the_api_server_is_made_to_trust_our_entries_and_no_others():
    """Patched where it differs, and again where somebody spoils it."""
    store = Store()
    ours = ("hookline-operator", "hookline-system")
    for kind in ("mutating", "validating"):
        config = _configuration(ours, ("hookline-operator", "elsewhere"), ("other", "hookline-system"), ours)
        config["webhooks"].append({"name": "by-url", "clientConfig": {"url": "https://example.org"}})
        store.put(WEBHOOKS.format(f"{kind}webhookconfigurations"), config)
    one = keeper(store, webhooks="hookline")
    await one.sync()
    bundle = base64.b64encode(one.bundle.encode()).decode()
    where = WEBHOOKS.format("mutatingwebhookconfigurations")
    for kind in ("mutating", "validating"):
        entries_ = store.objects[WEBHOOKS.format(f"{kind}webhookconfigurations")]["webhooks"]
        assert [entry["clientConfig"].get("caBundle") for entry in entries_] == [bundle, None, None, bundle, None]
    writes = len(store.writes)
    await one.sync()
    assert len(store.writes) == writes
    store.objects[where]["webhooks"][0]["clientConfig"]["caBundle"] = "c3BvaWx0"
    await one.sync()
    assert store.writes[writes:] == [where]
    assert store.objects[where]["webhooks"][0]["clientConfig"]["caBundle"] == bundle


async def test_replicas_that_introduce_themselves_together_agree():
    """Conflicts are looked at again."""
    store = Store()
    for kind in ("mutating", "validating"):
        where = WEBHOOKS.format(f"{kind}webhookconfigurations")
        store.put(where, _configuration(("hookline-operator", "hookline-system")))
    keepers = [keeper(store, webhooks="hookline") for _ in range(4)]
    await asyncio.gather(*(each.sync() for each in keepers))
    bundle = base64.b64encode(keepers[0].bundle.encode()).decode()
    for kind in ("mutating", "validating"):
        where = WEBHOOKS.format(f"{kind}webhookconfigurations")
        assert store.objects[where]["webhooks"][0]["clientConfig"]["caBundle"] == bundle
        assert store.writes.count(where) == 1
    assert all(each.not_ready() == [] for each in keepers)


async def test_without_a_webhook_configuration_the_rest_goes_on(caplog):
    """A chart may have none."""
    one = keeper(Store(), webhooks="hookline")
    await one.sync()
    assert one.not_ready() == []
    await one.sync()
    assert caplog.text.count("mutatingwebhookconfigurations/hookline") == 1, "said once"


async def test_an_api_server_that_goes_away_takes_no_readiness_with_it():
    """What was there once goes on until it expires."""
    store, clock = Store(), [NOW]
    one = keeper(store, now=lambda: clock[0])
    store.broken = KubeError(0, "the API server cannot be reached")
    with pytest.raises(KubeError):
        await one.sync()
    assert one.not_ready() == ["there is no serving certificate yet"]
    store.broken = None
    await one.sync()
    store.broken = KubeError(0, "the API server cannot be reached")
    with pytest.raises(KubeError):
        await one.sync()
    assert one.not_ready() == []
    clock[0] += SERVING_LIFE + DAY
    assert one.not_ready() == ["the serving certificate has expired, and no new one could be stored"]


async def test_the_keeper_runs_on_when_the_api_server_refuses(monkeypatch, caplog):
    """It says so, waits and looks again."""
    pauses = []
    real = asyncio.sleep

    async def sleep(seconds):
        if seconds:
            pauses.append(seconds)
            if len(pauses) == 4:
                store.broken = None
        await real(0)

    store = Store()
    store.broken = KubeError(403, "secrets is forbidden")
    one = keeper(store)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    task = asyncio.create_task(one.run())
    while len(pauses) < 5:
        await real(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "secrets is forbidden" in caplog.text
    assert one.not_ready() == []
    assert pauses[0] < pauses[2] <= 36
    assert pauses[4] >= 0.8 * certificates._PERIOD_S


async def test_a_namespace_that_is_missing_is_an_error_and_no_conflict():
    """It would be tried again without end."""

    class Missing(Store):
        async def request(self, method, where, **_):
            await self._turn()
            raise KubeError(404, f"namespaces not found: {method} {where}")

    with pytest.raises(KubeError, match="namespaces not found"):
        await keeper(Missing()).sync()


def test_the_kube_client_is_an_api():
    """What the operator passes fits the protocol, by name and by kind of argument."""
    import inspect

    from hookline_operator.cluster.kube import Kube
    from hookline_operator.cluster.sealing import Api

    for name in ("get", "request"):
        wanted = inspect.signature(getattr(Api, name)).parameters
        has = inspect.signature(getattr(Kube, name)).parameters
        assert {key for key, each in wanted.items() if each.kind is each.KEYWORD_ONLY} <= {*has}
        assert inspect.iscoroutinefunction(getattr(Kube, name))
