"""Which guest runs on a thread is said by that thread alone: callbacks of the library find their guest so."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from asking_guests import ASK, FETCH, SETTINGS
from hookline_runtime.guest.program import RUNNING


@pytest.mark.skipif(os.environ.get("HOOKLINE_CALLS") == "official", reason="wasmtime-py finds guests in its own way")
async def test_an_instance_that_is_renewed_on_another_thread_leaves_the_first_alone(workshop, wat, way):
    """Another guest may run there: it would get the answers of this one, and this one its memory."""
    runtime = await workshop.guest(wat.module(imports=FETCH, hooks={"custom_hook": ASK}), **SETTINGS)
    instance, _ = runtime.plugins["guest"]._instances.take()
    with ThreadPoolExecutor(1) as there:
        await asyncio.get_running_loop().run_in_executor(there, instance.open, None)
        ident = there.submit(threading.get_ident).result()
        assert RUNNING[ident]() is instance
        RUNNING[ident] = another = object()
        instance.open(None)
        instance.give_back(instance.take(8), 8)
    assert RUNNING[ident] is another
    assert RUNNING[threading.get_ident()]() is instance
    instance.close()
