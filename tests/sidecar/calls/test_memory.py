"""Large bodies: a worker's memory stays bounded, and small calls go on beside them."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import pytest

MIB = 2**20


@pytest.fixture(scope="module")
def sidecar(new_sidecar, guests):
    """The default of 16 MiB for a body, and of 256 KiB for a plugin's input; a body may take its time."""
    sidecar = new_sidecar(body_timeout="10m")
    sidecar.folder.plugin("p", guests.module({"custom_hook": guests.echo}))
    return sidecar.start()


def peak(sidecar):
    """The most memory that the worker ever had, in bytes."""
    (worker,) = sidecar.workers
    for line in Path(f"/proc/{worker}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError


async def test_a_storm_of_large_bodies_is_bounded(sidecar):
    """Forty bodies of 16 MiB at once: only a few are held at a time, and small calls are answered."""
    worker = sidecar.workers
    body = b'"' + b"x" * (16 * MIB - 2) + b'"'
    before = peak(sidecar)

    async def storm(session):
        async with session.post(
            "/v1/hooks/custom_hook", data=io.BytesIO(body), headers={"Content-Type": "application/json"}
        ) as response:
            return response.status, await response.json()

    async with sidecar.client() as session:
        calls = [asyncio.create_task(storm(session)) for _ in range(40)]
        small = [await sidecar.ask(body=number) for number in range(20)]
        answers = await asyncio.gather(*calls)
    assert [answer["value"] for answer in small] == list(range(20))
    assert {status for status, _ in answers} == {200}
    assert {answer["failure"] for _, answer in answers} == {"overload"}
    assert sidecar.workers == worker
    assert peak(sidecar) - before < 320 * MIB


async def test_bodies_that_never_end_hold_no_memory(sidecar):
    """A hundred clients that send 200 KiB of a large body, and then wait."""
    worker, before = sidecar.workers, peak(sidecar)
    idle = []
    for _ in range(100):
        idle.append(sidecar.connect())
        idle[-1].sendall(
            b"POST /v1/hooks/custom_hook HTTP/1.1\r\nHost: x\r\nContent-Length: 16000000\r\n\r\n" + b" " * 200_000
        )
    assert (await sidecar.ask(body=1))["value"] == 1
    for each in idle:
        each.close()
    assert sidecar.workers == worker
    assert peak(sidecar) - before < 100 * MIB
