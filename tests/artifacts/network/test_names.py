"""A name server that never answers keeps nobody waiting but those who name its names."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from hookline_api.resources import HTTPSource
from hookline_artifacts import threads
from hookline_artifacts.errors import FetchError
from hookline_artifacts.threads import look_up, on_behalf_of
from waiting import until_true


@pytest.fixture
def silent(monkeypatch):
    """Names below ``silent.test`` are looked up for as long as the test likes."""
    real, ends = socket.getaddrinfo, threading.Event()

    def asked(host, *args, **kwargs):
        if str(host).endswith("silent.test"):
            ends.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    yield
    ends.set()


@pytest.mark.usefixtures("silent")
async def test_a_plugin_that_changes_and_changes_leaves_others_their_lookups(server, make_fetcher):
    """Twenty names, each given up as at a change; the event loop's own threads and another's lookups are free."""
    fetcher = make_fetcher(attempts=1, connect=20.0)

    async def ask(url, owner):
        with on_behalf_of(owner):
            await fetcher.fetch_http(HTTPSource(url=url, sha256="0" * 64), owner=owner)

    given_up = [asyncio.create_task(ask(f"http://n{each}.silent.test/x", "hostile")) for each in range(20)]

    def busy():
        return threads._lookups is not None and threads._lookups._running["hostile"] == threads.LOOKUPS // 2

    await until_true(busy, "half of the threads are waiting")
    for task in given_up:
        task.cancel()
    await asyncio.wait(given_up)
    assert threads._lookups._running["hostile"] == threads.LOOKUPS // 2
    assert not (await asyncio.to_thread(lambda: threading.current_thread().name)).startswith("names")
    with pytest.raises(FetchError, match="404"):
        await ask(f"http://localhost:{server.host.rpartition(':')[2]}/nothing", "other")


@pytest.mark.usefixtures("silent")
async def test_one_name_is_waited_for_so_long(make_fetcher):
    """Whatever the system's resolver does."""
    fetcher = make_fetcher(attempts=1, connect=0.05)
    with pytest.raises(FetchError, match=r"its name was not found within 0\.05 s") as caught:
        await fetcher.fetch_http(HTTPSource(url="http://a.silent.test/x", sha256="0" * 64))
    assert caught.value.transient


async def test_no_share_fills_the_queue(monkeypatch):
    """What one namespace has waiting is refused above half of all."""
    ends = threading.Event()
    monkeypatch.setattr(threads, "MAX_WAITING", 20)

    async def look(share):
        with on_behalf_of(share):
            return await look_up(ends.wait)

    waiting = [asyncio.create_task(look("hostile")) for _ in range(30)]
    await asyncio.sleep(0)
    other = asyncio.create_task(look("other"))
    await asyncio.sleep(0)
    refused = [task for task in waiting if task.done()]
    ends.set()
    assert len(refused) == 30 - threads.LOOKUPS // 2 - 10
    assert {type(task.exception()) for task in refused} == {FetchError}
    assert await other
    await asyncio.gather(*waiting, return_exceptions=True)
