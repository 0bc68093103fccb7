"""Components in a sidecar: compiled by its child, called over its socket, and replaced while calls come."""

from __future__ import annotations

import json

import pytest

from component_guests import component


def saying(value: object) -> bytes:
    """A component that answers a constant."""
    raw = json.dumps(value).encode()
    return component(f"(call $answer (i32.const 64) (i32.const {len(raw)}))", data={64: raw})


@pytest.fixture(scope="module")
def running(new_sidecar):
    """Two workers and one plugin."""
    sidecar = new_sidecar(workers=2)
    sidecar.folder.plugin("p", saying("start"))
    return sidecar.start()


async def test_a_component_answers_over_the_socket_and_is_replaced_without_a_lost_call(running, guests, load):
    """By other components, by a module, and back; each answer is that of a version that was there."""
    await running.wait_says("start")
    async with load(running, clients=2) as asking:
        for number in range(4):
            running.folder.write("p.wasm", saying(f"c{number}"))
            await running.wait_says(f"c{number}")
            running.folder.write("p.wasm", guests.saying(f"m{number}"))
            await running.wait_says(f"m{number}")
            await asking.reaches(10)
    assert asking.failures == []
    assert {answer["value"] for answer in asking.answers} <= {
        "start", *(f"{kind}{number}" for kind in "cm" for number in range(4)),
    }  # fmt: skip
    assert "Traceback" not in running.log


async def test_a_component_that_is_refused_leaves_the_one_before(running):
    """With a sentence that says why."""
    running.folder.write("p.wasm", saying("good"))
    await running.wait_says("good")
    running.folder.write("p.wasm", component(hooks=None))
    row = running.wait_plugin("p", state="LastGood")
    assert "does not say which hooks it answers" in json.dumps(row)
    assert await running.says() == "good"
