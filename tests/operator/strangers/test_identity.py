"""Who gets what: a pod what its own namespace and labels select, and nobody anything by somebody else's name."""

from __future__ import annotations

import asyncio
import contextlib
import json

import aiohttp
import pytest

from sessions import client_session
from waiting import PATIENCE_S


async def refused(connect, operator, tenant, **how):
    """The status with which a connection is refused."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await connect(operator, tenant, "a", **how)
    return caught.value.status


@pytest.mark.usefixtures("module")
async def test_tokens_that_are_not_for_this_are_refused(operator, tenant, connect, control_plane):
    """No token, rubbish, one for the API, one of no pod, one of a pod without the label, one of a pod that is gone."""
    tenant.pod("a")
    assert await refused(connect, operator, tenant, token="rubbish") == 401
    assert await refused(connect, operator, tenant, token="x" * 100_000) in {400, 401}
    assert await refused(connect, operator, tenant, token="\xff") == 401
    for_the_api = tenant.token("a", "https://kubernetes.default.svc.cluster.local")
    assert await refused(connect, operator, tenant, token=for_the_api) == 401
    of_no_pod = control_plane.token(tenant.name, "default", "hookline.dev")
    assert await refused(connect, operator, tenant, token=of_no_pod) == 403
    tenant.pod("plain", labels={"hookline.dev/sidecar": "false"})
    assert await refused(connect, operator, tenant, token=tenant.token("plain")) == 403
    tenant.pod("gone")
    of_the_gone = tenant.token("gone")
    tenant.plane.kubectl("delete", "pod", "gone", f"--namespace={tenant.name}", "--grace-period=0", "--force")
    assert await refused(connect, operator, tenant, token=of_the_gone) in {401, 403}


async def test_namespaces_do_not_see_each_others_plugins_or_blobs(operator, new_tenant, module, connect):
    """Three of them, the same labels, plugins of the same name; also with a token of another's pod."""
    tenants, sidecars, shas = [new_tenant() for _ in range(3)], [], []
    for number, tenant in enumerate(tenants):
        tenant.plugin("guard", tenant.module("one", module(f"of {number}")))
        tenant.pod("web", labels={"app": "web"})
        sidecar = await connect(operator, tenant, "web")
        await sidecar.until(lambda sidecar=sidecar: "guard" in sidecar.runs())
        sidecars.append(sidecar)
        shas.append(sidecar.bundle_of("guard").artifact.sha256)
    assert len(set(shas)) == 3
    for number, sidecar in enumerate(sidecars):
        assert [each.namespace for each in sidecar.running.bundle.plugins] == [tenants[number].name]
        for other, sha in enumerate(shas):
            status, body = await sidecar.blob(sha)
            assert status == (200 if other == number else 404), body
    status, body = await sidecars[0].blob("0" * 64)
    assert (status, b"no plugin of this pod" in body) == (404, True)
    assert (await sidecars[0].blob("../../etc/passwd"))[0] == 404


async def test_a_pod_that_matches_nothing_gets_no_blob(operator, tenant, module, connect):
    """In the plugin's own namespace too."""
    tenant.plugin("guard", tenant.module("one", module()), selector={"matchLabels": {"app": "web"}})
    tenant.pod("web", labels={"app": "web"})
    tenant.pod("other")
    web, other = await connect(operator, tenant, "web"), await connect(operator, tenant, "other")
    await web.until(web.runs)
    sha = web.bundle_of("guard").artifact.sha256
    assert (await other.blob(sha))[0] == 404


async def test_a_pod_that_goes_is_let_go(operator, tenant, module, connect, eventually):
    """Its connection ends with it."""
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", tenant.module("one", module()))
    await sidecar.until(sidecar.runs)
    tenant.plane.kubectl("delete", "pod", "a", f"--namespace={tenant.name}", "--grace-period=0", "--force")
    await asyncio.wait_for(asyncio.shield(sidecar.task), PATIENCE_S)
    await eventually(lambda: operator.metrics()["hookline_operator_connected_sidecars"] == 0, "end of the session")


async def test_what_a_sidecar_sends_is_bounded_and_checked(operator, tenant, connect, control_plane):
    """Rubbish ends its own connection, and nobody else's."""
    tenant.pod("a")
    tenant.pod("b")
    good = await connect(operator, tenant, "b")
    for rubbish in (b"x" * (2**20 + 1), json.dumps({"type": "report", "plugins": "many"}).encode(), b"\xff\xfe{"):
        bad = await connect(operator, tenant, "a")
        async with asyncio.timeout(PATIENCE_S):
            while not bad.task.done():  # of two reports only the newer is read, and it has some of its own to send
                with contextlib.suppress(aiohttp.ClientError):
                    await bad.send(rubbish.decode("latin-1"))
                await asyncio.wait({bad.task}, timeout=0.2)
        with contextlib.suppress(aiohttp.ClientError):  # it was about to say more
            await bad.task
    unknown = await connect(operator, tenant, "a")
    await unknown.send(json.dumps({"type": "of the future"}))
    await asyncio.sleep(0.5)
    assert unknown.connected.is_set()
    assert good.connected.is_set()


@pytest.mark.parametrize("path", ["/", "/v1/distribution", "/v1/blobs/x", "/v1/peers", "/webhooks/inject"])
async def test_a_plain_request_is_answered_with_a_refusal(operator, control_plane, path):
    """No stack trace, nothing served."""
    async with (
        client_session() as session,
        session.get(f"https://127.0.0.1:{operator.port}{path}", ssl=False) as response,
    ):
        assert response.status in {401, 404, 405}
