"""A review costs a bounded amount of memory, whoever sent it: anybody can reach the webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import subprocess
import sys

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from hookline_api.config import MAX_CONFIG_VALUES
from hookline_operator.webhooks.admission import INJECT_PATH, VALIDATE_PATH, routes
from hookline_operator.webhooks.annotations import InjectionSettings
from hookline_operator.webhooks.dry_run import PATH
from hookline_operator.webhooks.reviews import MAX_BODY
from sessions import client_session

MIB = 2**20
SETTINGS = InjectionSettings(image="sidecar:1", operator="https://o.n.svc", operator_ca="CA")
REVIEW = (
    b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"%s","name":"p",'
    b'"namespace":"n","kind":{"group":"hookline.dev","version":"v1alpha1","kind":"WasmPlugin"},"object":%s,"oldObject":%s}}'
)
PLUGIN = (
    b'{"apiVersion":"hookline.dev/v1alpha1","kind":"WasmPlugin","metadata":{"name":"p"},"spec":{"source":{"oci":'
    b'{"reference":"registry.example/p:1"}},"config":%s}}'
)
RULES = json.dumps({"rules": [{"id": n, "pattern": f"r-{n}-<*>", "on": True} for n in range(19_000)]}).encode()
"""A config of a mebibyte as people write them."""


def _review(config, *, operation=b"CREATE", old=b"null"):
    return REVIEW % (operation, PLUGIN % config, old)


async def _post(client, body, path=VALIDATE_PATH):
    async with client.post(path, data=io.BytesIO(body), headers={"Content-Type": "application/json"}) as answer:
        return answer.status, await answer.text()


@pytest.fixture
async def client():
    """A client of a server with both webhooks; no module is known."""

    async def unknown(_):
        return None

    app = web.Application()
    app.add_routes(routes(settings=lambda: SETTINGS, check_config=unknown))
    async with TestClient(TestServer(app)) as found:
        yield found


@pytest.mark.parametrize("path", [VALIDATE_PATH, INJECT_PATH, PATH])
async def test_a_review_of_too_many_values_is_refused_with_a_sentence(client, path):
    """Before it is parsed."""
    body = _review(b'{"a":[' + b"{}," * ((MAX_BODY - 1000) // 3) + b"{}]}")
    status, text = await _post(client, body, path)
    assert status == 413
    assert text.startswith(f"the review has {len(body)} bytes with more than 524288 values and names in them, and is")


async def test_the_honest_update_of_a_large_config_is_allowed(client):
    """A mebibyte, and the one that was there before."""
    assert MIB - 200_000 < len(RULES) < MIB
    status, text = await _post(client, _review(RULES, operation=b"UPDATE", old=PLUGIN % RULES.replace(b"r-", b"s-")))
    assert (status, json.loads(text)["response"]) == (200, {"allowed": True, "uid": "u"})


async def test_a_config_that_no_sidecar_would_take_is_denied_by_its_field(client):
    """With too many values, or too many bytes; and a text full of commas is one value."""
    status, text = await _post(client, _review(b'{"a":[' + b"1," * MAX_CONFIG_VALUES + b"1]}"))
    assert status == 200
    response = json.loads(text)["response"]
    assert "spec.config: has 524297 bytes with more than 262144 values and names in" in response["status"]["message"]
    status, text = await _post(client, _review(b'{"a":"%s"}' % (b"x" * MIB)))
    assert "spec.config: has more than 1048576 bytes" in json.loads(text)["response"]["status"]["message"]
    status, text = await _post(client, _review(b'{"sql":"%s"}' % (b"a,b:[{" * 150_000)))
    assert json.loads(text)["response"]["allowed"] is True


_SERVER = """
import asyncio, sys
from aiohttp import web
from hookline_operator.webhooks.admission import routes
from hookline_operator.webhooks.annotations import InjectionSettings
def status(name):
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(name)) * 1024
async def unknown(_):
    await asyncio.sleep(0)
async def memory(_):
    return web.json_response([status("VmRSS"), status("VmHWM")])
async def main():
    app = web.Application()
    settings = InjectionSettings(image="i", operator="https://o.n.svc", operator_ca="CA")
    app.add_routes([*routes(settings=lambda: settings, check_config=unknown), web.get("/memory", memory)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


@pytest.fixture
def port():
    """Of both webhooks in a process of their own."""
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        yield int(child.stdout.readline())


@pytest.fixture
async def server(port):
    """A client of it."""
    async with client_session(f"http://127.0.0.1:{port}") as session:
        yield session


async def _memory(session):
    async with session.get("/memory") as answer:
        return await answer.json()


async def test_one_review_of_eight_mebibytes_takes_a_bounded_amount_of_memory(server):
    """It took 726 MiB."""
    await _post(server, _review(b"{}"))
    before, _ = await _memory(server)
    status, _ = await _post(server, _review(b'{"a":[' + b"{}," * ((MAX_BODY - 1000) // 3) + b"{}]}"))
    assert status == 413
    assert (await _memory(server))[1] - before <= 4 * MAX_BODY


async def test_a_crowd_of_the_dearest_reviews_takes_a_bounded_amount_of_memory(server):
    """One large one is looked at at a time, and no more than two of the largest are there; others are told so."""
    await _post(server, _review(b"{}"))
    before, _ = await _memory(server)
    dear = _review(
        b'{"a":[' + b"{}," * 130_000 + b"{}]}", operation=b"UPDATE", old=PLUGIN % (b'{"b":[%s{}]}' % (b"{}," * 100_000))
    )
    answers = await asyncio.gather(*(_post(server, dear) for _ in range(24)))
    assert {status for status, _ in answers} <= {200, 503}
    assert 200 in {status for status, _ in answers}
    assert (await _memory(server))[1] - before <= 128 * MIB


@pytest.mark.parametrize(("size", "count", "honest"), [(200_000, 100, b"{}"), (1_000_000, 4, RULES)])
async def test_reviews_that_do_not_end_keep_no_honest_one_out(client, size, count, honest):
    """Those that began first are no longer waited for; all of them together would be more than there is room for."""
    head = f"POST {VALIDATE_PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    stalled = []
    try:
        for _ in range(count):
            reader, writer = await asyncio.open_connection(client.host, client.port)
            stalled.append((reader, writer))
            writer.write(head.encode() + f"Content-Length: {size + 10}\r\n\r\n".encode() + b" " * size)
            await writer.drain()
        status, text = await _post(client, _review(honest))
        assert (status, json.loads(text)["response"]["allowed"]) == (200, True)
        first = await stalled[0][0].readline()
        assert b" 408 " in first
    finally:
        for _, writer in stalled:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
