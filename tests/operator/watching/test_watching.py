"""A collection that keeps itself current, at an API server that answers what a test wants it to."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging

import pytest
from aiohttp import web
from kubernetes.aio import client

from hookline_operator.cluster import reflector as module
from hookline_operator.cluster.kube import Kube, KubeError
from hookline_operator.cluster.reflector import Reflector, is_older
from hookline_operator.cluster.sight import GRACE_S, Sight, Sights
from waiting import until_true

WHERE = "/api/v1/secrets"


def _object(name, version):
    return {"metadata": {"namespace": "shop", "name": name, "resourceVersion": str(version)}}


class Server:
    """Serves one collection, as far as ``items``, ``version`` and ``says`` have it."""

    def __init__(self):
        self.items, self.version = {}, 1
        self.refuses = None
        """Status and headers of each answer, where it refuses."""
        self.watches = []
        """The versions from which somebody watched."""
        self.events = asyncio.Queue()
        self.lists = 0

    async def __call__(self, request):
        """Answer."""
        if self.refuses is not None:
            status, headers = self.refuses
            return web.json_response({"message": "not now"}, status=status, headers=headers)
        if "watch" in request.query:
            return await self._watch(request)
        self.lists += "limit" not in request.query or request.query["limit"] != "1"
        items = [_object(name, version) for name, version in self.items.items()]
        return web.json_response({"items": items, "metadata": {"resourceVersion": str(self.version)}})

    def _remember(self, metadata):
        """What a watch tells, a list knows too: a real store never gets older."""
        if "resourceVersion" in metadata:
            self.version = int(metadata["resourceVersion"])
            if "name" in metadata:
                self.items[metadata["name"]] = self.version

    async def _watch(self, request):
        self.watches.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(float(request.query["timeoutSeconds"])):
                while (event := await self.events.get()) is not None:
                    self._remember(event["object"].get("metadata", {}))
                    await response.write(json.dumps(event).encode() + b"\n")
        return response


@pytest.fixture
async def api():
    """An API server, and a connection to it."""
    server = Server()
    runner = web.ServerRunner(web.Server(server))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.kube = Kube(client.Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}"))
    yield server
    await server.kube.close()
    await runner.cleanup()


@pytest.fixture
async def copy(api, monkeypatch):
    """A reflector of that collection, with short turns, which runs."""
    monkeypatch.setattr(module, "TURN_S", 0)
    monkeypatch.setattr(module, "_JITTER_S", 1)
    monkeypatch.setattr(module, "_SHORT_S", 0.01)
    monkeypatch.setattr(module, "_PAUSE_FIRST_S", 0.001)
    api.items["a"] = 1
    made = Reflector(
        api.kube, WHERE, project=lambda found: found["metadata"]["resourceVersion"], changed=lambda *_: None,
        metadata_only=True,
    )  # fmt: skip
    task = asyncio.create_task(made.run())
    await until_true(made.synced.is_set, "a copy")
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_a_watch_forgot_to_tell_the_next_one_is_asked_for(api, copy):
    """It begins where the one before it ended, and lists nothing."""
    api.events.put_nowait({"type": "MODIFIED", "object": _object("a", 7)})
    await until_true(lambda: copy.items == {("shop", "a"): "7"}, "the change")
    await until_true(lambda: api.watches[-1:] == ["7"], "the next watch")
    assert api.lists == 1


async def test_a_bookmark_moves_the_watch_on(api, copy):
    """So that it can still be resumed after an hour in which nothing changed."""
    api.events.put_nowait({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "99"}}})
    await until_true(lambda: api.watches[-1:] == ["99"], "a watch from there")
    assert copy.items == {("shop", "a"): "1"}


async def test_what_was_deleted_before_a_watch_could_be_resumed_is_gone(api, copy, caplog):
    """410: all is listed, at once, and nothing is wrong."""
    api.items = {"b": 5}
    api.version = 5
    error = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}
    api.events.put_nowait(error)
    await until_true(lambda: copy.items == {("shop", "b"): "5"}, "what is there now")
    assert copy.sight.failures["gone"] == 1
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "unauthorized"), (403, "forbidden"), (404, "not_found"), (410, "gone"),
                           (429, "throttled"), (500, "server_error"), (503, "server_error")]
)  # fmt: skip
async def test_a_refusal_is_said_once_and_its_end_too(api, copy, caplog, status, reason):
    """However often it is tried; what changed meanwhile is there afterwards."""
    caplog.set_level(logging.INFO, "hookline")
    api.refuses = (status, {})
    api.events.put_nowait(None)
    await until_true(lambda: copy.sight.failures[reason] > module._RESUMED + 1, "some tries")
    said = [each.getMessage() for each in caplog.records if WHERE in each.getMessage()]
    assert said == [f"watching {WHERE}: not now"]
    api.items, api.version, api.refuses = {"c": 9}, 9, None
    await until_true(lambda: copy.items == {("shop", "c"): "9"}, "what is there now")
    await until_true(lambda: not copy.sight.trouble, "the end of it")
    assert sum("secrets can be seen again" in each.getMessage() for each in caplog.records) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_api_server_with_too_much_to_do_is_not_asked_for_everything(api, copy, monkeypatch, status):
    """The watch goes on from where it was: each replica listing all again would be what brings it down."""
    monkeypatch.setattr(module, "_PAUSE_FIRST_S", 0.2)
    api.refuses = (status, {})
    api.events.put_nowait(None)
    await until_true(lambda: copy.sight.trouble, "a refusal")
    begun = len(api.watches)
    api.items, api.version, api.refuses = {"c": 9}, 9, None
    await until_true(lambda: len(api.watches) > begun, "the next watch")
    assert (api.watches[-1], api.lists) == ("1", 1)


async def test_an_api_server_that_asks_for_time_gets_it(api):
    """Retry-After is at least how long it is left alone."""
    api.refuses = (429, {"Retry-After": "7"})
    with pytest.raises(KubeError) as refused:
        await api.kube.list(WHERE)
    made = Reflector(api.kube, WHERE, project=lambda _: 1, changed=lambda *_: None)
    assert made._note_failure(refused.value) == 7
    api.refuses = (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})
    with pytest.raises(KubeError) as refused:
        await api.kube.list(WHERE)
    assert refused.value.retry_after == 0


async def test_a_store_that_was_put_back_to_a_backup_is_listed_anew(api, copy):
    """A watch from a version that is still to come tells nothing until it has."""
    api.events.put_nowait({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "99"}}})
    await until_true(lambda: api.watches[-1:] == ["99"], "a watch from there")
    api.items, api.version = {"old": 3}, 3
    for _ in range(8):
        api.events.put_nowait(None)
    await until_true(lambda: copy.items == {("shop", "old"): "3"}, "the backup")
    assert copy.sight.failures["went_back"] == 1


async def test_an_object_is_found_with_the_right_to_list_alone(api):
    """Nothing else of the collection is taken for it."""
    api.items = {"a": 1, "b": 2}
    assert (await api.kube.find(WHERE, "b"))["metadata"]["name"] == "b"
    assert await api.kube.find(WHERE, "c") is None


def _sight(clock, **more):
    return Sight("pods", now=lambda: clock[0], **more)


@pytest.mark.parametrize(
    ("reason", "unready"),
    [("forbidden", True), ("not_found", True), ("deaf", True), ("unreachable", False), ("throttled", False),
     ("server_error", False)],
)  # fmt: skip
def test_who_is_blind_is_unready_only_where_another_could_see(reason, unready):
    """After a grace; and ready again with the first word."""
    clock = [0.0]
    sight = _sight(clock)
    sight.failed(reason, "why")
    assert not sight.blind
    clock[0] = GRACE_S + 1
    assert sight.blind
    assert sight.costs_readiness is unready
    sight.answered()
    assert (sight.blind, sight.costs_readiness, sight.trouble) == (False, False, "")


def test_what_no_pod_depends_on_costs_no_readiness():
    """The Lease, say: a replica that cannot hold it serves sidecars as before."""
    clock = [0.0]
    sight = _sight(clock, needed=False)
    sight.failed("forbidden", "why")
    clock[0] = GRACE_S + 1
    assert sight.blind
    assert not sight.costs_readiness


def test_trouble_that_flaps_between_two_reasons_is_said_once_for_each(caplog):
    """A line for each state, and a count of all."""
    sight = Sights().new("pods")
    for reason, _ in itertools.product(("forbidden", "server_error"), range(3)):
        sight.failed(reason, reason)
    sight.failed("forbidden", "forbidden")
    assert [each.getMessage() for each in caplog.records] == ["forbidden", "server_error"]
    assert sight.failures == {"forbidden": 4, "server_error": 3}


@pytest.mark.parametrize(("version", "than", "older"), [("9", "10", True), ("10", "9", False), ("x", "9", False)])
def test_versions_are_compared_as_numbers_where_they_are_some(version, than, older):
    """Of others nothing can be told."""
    assert is_older(version, than) is older
