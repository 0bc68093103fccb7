"""Whoever has a pod, or nothing at all, gets a ration of the operator: what counts is how much is read and asked."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hookline_api.bundle import LoadFailure
from hookline_api.distribution import PluginReport, Report
from hookline_operator.rations import Ration, Rations
from hookline_operator.serve import frames, peers, reports
from hookline_operator.serve.fleet import PodState
from hookline_operator.serve.frames import FrameGate
from sessions import client_session
from waiting import PATIENCE_S, until_true

_EMPTY_FRAGMENT = bytes([0x00, 0x80, 0, 0, 0, 0])
_FIRST_FRAGMENT = bytes([0x01, 0x80, 0, 0, 0, 0])
_PING = bytes([0x89, 0x80, 0, 0, 0, 0])
_CUT = {1008, 1006}
"""What a client says of a connection that is ended for a reason; the second where it could not answer any more."""
_numbers = itertools.count()


def counted(operator, name, **labels):
    """One of its counters."""
    text = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return operator.metrics().get(f"hookline_operator_{name}_total{{{text}}}", 0.0)


def raw(sidecar, data):
    """Write bytes as they are, which no library would."""
    sidecar._socket._response.connection.transport.write(data)


def forged(audience="hookline.dev", *, expires=3600, pod=None):
    """A token that nobody signed, another one each time."""
    claims = {"aud": [audience], "exp": time.time() + expires, "sub": "system:serviceaccount:a:b", "n": next(_numbers)}
    if pod is not None:
        claims["kubernetes.io"] = pod
    head, body = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in ({"alg": "RS256"}, claims))
    return f"{head.rstrip('=')}.{body.rstrip('=')}.c2lnbmF0dXJl"


async def test_of_many_reports_the_newest_is_read(operator, tenant, module, connect, eventually):
    """All of them come, and a ration is read; the status says what the last one said."""
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await sidecar.until(sidecar.runs)
    await eventually(lambda: tenant.ready("guard") == ("True", "Ready"), "Ready")
    before, began, sent = counted(operator, "reports", result="read"), time.monotonic(), 400
    version, runs = sidecar.running.version, sidecar.runs()["guard"]
    for number in range(sent):
        last = number == sent - 1
        plugin = PluginReport(name="guard", state="Running", revision="an older one" if last else runs)
        report = Report(running=version, ready=True, plugins=[plugin])
        await sidecar.send(report.model_dump_json(by_alias=True))
    await eventually(lambda: tenant.ready("guard") != ("True", "Ready"), "what the last report says")
    read, passed = (counted(operator, "reports", result=each) for each in ("read", "passed"))
    assert read - before <= 64 + 16 * (time.monotonic() - began) + 1
    assert read - before + passed >= sent
    assert sidecar.connected.is_set()


@pytest.mark.parametrize(
    "data",
    [_PING * 600, _FIRST_FRAGMENT + _EMPTY_FRAGMENT * 600, (_FIRST_FRAGMENT[:1] + _PING[1:]) * 600],
    ids=["pings", "fragments", "beginnings"],
)
async def test_frames_that_are_no_messages_end_the_connection(operator, tenant, connect, eventually, data):
    """And are counted; another pod's connection goes on."""
    tenant.pod("a")
    tenant.pod("b")
    bad, good = await connect(operator, tenant, "a"), await connect(operator, tenant, "b")
    raw(bad, data)
    await asyncio.wait_for(asyncio.shield(bad.task), PATIENCE_S)
    assert bad.closed_with in {1002, *_CUT}  # the library may have seen first that they make no sense
    if bad.closed_with != 1002:
        await eventually(lambda: counted(operator, "sessions_cut", reason="flood") == 1, "the count")
    assert good.connected.is_set()


async def test_pings_by_the_hundred_are_a_flood(operator, tenant, connect, eventually):
    """Each is well formed, and answered by no sidecar's need."""
    tenant.pod("a")
    bad = await connect(operator, tenant, "a")
    raw(bad, _PING * 2000)
    await asyncio.wait_for(asyncio.shield(bad.task), PATIENCE_S)
    assert bad.closed_with in _CUT
    await eventually(lambda: counted(operator, "sessions_cut", reason="flood") == 1, "the count")


async def test_a_report_that_is_too_large_is_passed_over(operator, tenant, module, connect, eventually):
    """It names a thousand plugins, and its pod was told of one. It is not cut off for that: it hears what to run."""
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    tenant.plugin("guard", tenant.module("one", module("v1")))
    await sidecar.until(sidecar.runs)
    failure = LoadFailure(cause="fetch", message="x" * 500)
    plugins = [PluginReport(name=f"p{number}", state="Closed", failure=failure) for number in range(1000)]
    await sidecar.send(Report(running="another", plugins=plugins).model_dump_json(by_alias=True))
    await eventually(lambda: counted(operator, "reports", result="large") == 1, "the count")
    before = sidecar.runs()
    tenant.plugin("guard", tenant.module("two", module("v2")))
    await sidecar.until(lambda: sidecar.runs() != before)


async def test_a_frame_that_would_have_to_be_inflated_is_refused(operator, tenant, connect):
    """Nothing is compressed here, in either direction: a few bytes would become millions."""
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a")
    assert not sidecar._socket.compress
    raw(sidecar, bytes([0xC1, 0x82, 0, 0, 0, 0, 1, 0]))
    await asyncio.wait_for(asyncio.shield(sidecar.task), PATIENCE_S)
    assert sidecar.closed_with in {1002, 1006}


@pytest.mark.parametrize(("what", "reason"), [(None, "silent"), (_FIRST_FRAGMENT, "unfinished")])
async def test_who_says_nothing_or_does_not_end_is_let_go(new_operator, tenant, connect, eventually, what, reason):
    """A session has its place, and half of a message its bytes; the bounds are shorter here than they are."""
    short = {"silent": "server; d._HELLO_S = 0.2", "unfinished": "frames; d._UNFINISHED_S = 0.2"}[reason]
    operator = new_operator(first=f"from hookline_operator.serve import {short.replace(';', ' as d;')}").start()
    tenant.pod("a")
    sidecar = await connect(operator, tenant, "a", silent=reason == "silent")
    if what is not None:
        await sidecar.until(lambda: sidecar.running is not None)
        raw(sidecar, what)
    await asyncio.wait_for(asyncio.shield(sidecar.task), PATIENCE_S)
    assert sidecar.closed_with in _CUT
    await eventually(lambda: counted(operator, "sessions_cut", reason=reason) == 1, "the count")


async def test_bad_tokens_are_a_ration_and_a_sidecar_does_not_wait_for_them(operator, tenant, connect):
    """Each is another, and looks good: few are asked about, and a pod's own token all the while."""
    tenant.pod("a")
    tenant.pod("b")
    await connect(operator, tenant, "b")
    token = await asyncio.to_thread(tenant.token, "a")
    began, url = time.monotonic(), f"https://127.0.0.1:{operator.port}/v1/distribution"
    async with client_session() as session:

        async def ask(token):
            async with session.get(url, ssl=False, headers={"Authorization": f"Bearer {token}"}) as answer:
                assert answer.status in {401, 429}
                assert answer.headers["Connection"] == "close"
                return answer.status

        statuses = [await ask(forged()) for _ in range(150)]
        asked = counted(operator, "callers", result="refused")
        assert asked <= 8 + 0.5 * (time.monotonic() - began) + 1
        assert counted(operator, "callers", result="share") == statuses.count(429) >= 100
        assert await connect(operator, tenant, "a", token=token)
        # Nor does one who knows the pod use up what the pod itself may.
        uid = tenant.plane.get("pod", "a", f"--namespace={tenant.name}")["metadata"]["uid"]
        claimed = {"namespace": tenant.name, "pod": {"name": "a", "uid": uid[:-1] + "x"}}
        assert {await ask(forged(pod=claimed)) for _ in range(20)} <= {401, 429}
        assert await connect(operator, tenant, "b")


async def test_what_a_look_shows_to_be_wrong_is_not_asked_about(operator):
    """Another audience, an end long ago, no token at all; and a refusal is remembered."""
    url = f"https://127.0.0.1:{operator.port}/v1/distribution"
    async with client_session() as session:

        async def ask(token):
            async with session.get(url, ssl=False, headers={"Authorization": f"Bearer {token}"}) as answer:
                return answer.status, (await answer.json(content_type=None))["title"]

        assert await ask("a.b.c") == (
            401,
            "the token is not good for the audience 'hookline.dev': it is not a JSON Web Token",
        )
        assert (await ask(forged("https://kubernetes.default.svc")))[1].endswith("it is for another")
        assert (await ask(forged(expires=-7200)))[1].endswith("it has expired")
        assert counted(operator, "callers", result="malformed") == 3
        assert counted(operator, "callers", result="refused") == 0
        bad = forged()
        answers = await asyncio.gather(*(ask(bad) for _ in range(20)))
        assert {status for status, _ in answers} == {401}
        assert counted(operator, "callers", result="refused") == 1


async def test_a_pod_without_a_sidecar_has_few_lookups(operator, tenant):
    """Its token is good, and each request would be a question to the API server."""
    tenant.pod("plain", labels={"hookline.dev/sidecar": "false"})
    headers = {"Authorization": f"Bearer {await asyncio.to_thread(tenant.token, 'plain')}"}
    url, began = f"https://127.0.0.1:{operator.port}/v1/distribution", time.monotonic()
    async with client_session(headers=headers) as session:

        async def ask():
            async with session.get(url, ssl=False) as answer:
                return answer.status

        statuses = [await ask() for _ in range(60)]
    assert statuses[0] == 403
    assert statuses.count(403) <= 10 + 0.5 * (time.monotonic() - began) + 1
    assert set(statuses) == {403, 429}


async def test_a_pod_that_connects_again_and_again_is_made_to_wait(operator, tenant, connect, eventually):
    """The newest connection counts, and each takes the place of another; another pod's goes on."""
    tenant.pod("a")
    tenant.pod("b")
    good, token = await connect(operator, tenant, "b"), await asyncio.to_thread(tenant.token, "a")
    ends = await asyncio.gather(
        *(connect(operator, tenant, "a", token=token) for _ in range(60)), return_exceptions=True
    )
    refused = sum(isinstance(end, aiohttp.WSServerHandshakeError) and end.status == 429 for end in ends)
    assert refused > 0
    await eventually(lambda: counted(operator, "sessions_cut", reason="again") == refused, "the count")
    assert good.connected.is_set()


def test_a_ration_comes_back_with_time():
    """And never beyond what may be had at once."""
    now = [0.0]
    ration = Ration(burst=2, each_second=0.5, now=lambda: now[0])
    assert [ration.take() for _ in range(3)] == [True, True, False]
    now[0] = 2.0
    assert [ration.take() for _ in range(2)] == [True, False]
    now[0] = 1000.0
    assert [ration.take() for _ in range(3)] == [True, True, False]
    assert ration.spend(1) == 2.0
    ration.give(5)
    assert [ration.take() for _ in range(3)] == [True, True, False]


def test_of_many_callers_the_one_not_heard_of_for_longest_is_forgotten():
    """A flood of addresses takes no memory beyond that."""
    rations = Rations(burst=1, each_second=0.001, kept=2)
    assert rations.of("a").take()
    assert rations.of("b").take()
    assert not rations.of("a").take()
    assert rations.of("c").take()
    assert not rations.of("a").take()
    assert rations.of("b").take()


class _Parser:
    def __init__(self):
        self.data = b""

    def feed_data(self, data):
        self.data += data
        return False, b""


class _Transport(asyncio.Transport):
    paused = False

    def pause_reading(self):
        self.paused = True


def _gate():
    refusals = []
    return FrameGate(_Parser(), _Transport(), refusals.append), refusals


def _frame(opcode, size, *, final=True):
    head = bytes([opcode | (0x80 if final else 0)])
    if size < 126:
        head += bytes([0x80 | size])
    else:
        head += bytes([0x80 | 126]) + size.to_bytes(2) if size < 2**16 else bytes([0x80 | 127]) + size.to_bytes(8)
    return head + b"mask" + b"x" * size


@pytest.mark.slow
@given(
    sizes=st.lists(st.sampled_from([0, 1, 125, 126, 300, 65_535, 65_536]), max_size=8),
    cuts=st.lists(st.integers(1, 400), min_size=1, max_size=6),
)
async def test_frames_are_counted_however_they_are_cut(sizes, cuts):
    """Heads of three sizes, in pieces of any."""
    gate, refusals = _gate()
    data, position, pieces = b"".join(_frame(1, size) for size in sizes), 0, itertools.cycle(cuts)
    left = gate._frames._burst = gate._frames._left = float(len(sizes))
    gate._frames._each_second = 1e-9
    while position < len(data):
        size = next(pieces)
        gate.feed_data(data[position : position + size])
        position += size
    assert (refusals, gate._parser.data, gate._unfinished) == ([], data, None)
    assert round(left - gate._frames._left) == len(sizes)
    gate.feed_data(_frame(9, 0))
    assert refusals == [frames.FLOOD]
    assert gate._transport.paused


@pytest.mark.parametrize("data", [b"\x81", _frame(1, 300)[:200], _FIRST_FRAGMENT, _FIRST_FRAGMENT + _PING])
async def test_a_message_that_does_not_end_ends_the_connection(monkeypatch, data):
    """Whatever of it is missing; a ping in the middle is not an end."""
    monkeypatch.setattr(frames, "_UNFINISHED_S", 0.0)
    gate, refusals = _gate()
    gate.feed_data(data)
    await until_true(lambda: refusals, "a refusal", pause=0)
    assert refusals == [frames.UNFINISHED]


def test_a_report_is_about_what_the_pod_was_told_of():
    """And its sentences are short, and lines of nobody's choosing."""
    failure = LoadFailure(cause="fetch", message="a\nb\x1b[31m" + "c" * 5000)
    known = PluginReport(name="guard", state="Closed", failure=failure)
    report = Report(plugins=[known, PluginReport(name="other", state="Running"), known])
    (only,) = reports.about(report, {"guard", "more"}).plugins
    assert only.name == "guard"
    assert only.failure.message.startswith("a b [31mc")
    assert len(only.failure.message) == 1024


@pytest.mark.parametrize("text", ['{"type":"of the future"}', "{}", '{"type":"of the future","plugins":7}'])
def test_a_message_of_a_later_version_is_no_report(text):
    """Neither is it an error."""
    assert reports.read(text) is None


def test_a_followers_news_come_in_pieces():
    """Each of a bounded size, and all of it arrives."""
    failure = LoadFailure(cause="fetch", message="\x01" * 1024)
    plugins = [PluginReport(name=f"p{number}", state="Closed", failure=failure) for number in range(20)]
    state = PodState(uid="u", namespace="n", name="a", report=Report(plugins=plugins))
    pods = {f"u{number}": state.model_copy(update={"uid": f"u{number}"}) for number in range(60)} | {"gone": None}
    pieces = list(peers._pieces(pods))
    assert len(pieces) > 20
    assert max(map(len, pieces)) < peers._PIECE + 1000
    found = {}
    for piece in pieces:
        found |= peers._States.model_validate_json(piece).pods
    assert found == pods


def test_what_is_told_of_hooks_is_cleaned_as_all_sentences_are():
    """Control characters have no place in a status; a hook is told of once, with figures that make sense."""
    bad = {"hook": "route", "trouble": "Slow", "calls": 5, "bad": 9, "seconds": 1, "message": "a\nb\x1b[31m"}
    back = {"revision": "sealed", "calls": 1, "failures": 3, "cause": "trap", "message": "c\x7fd"}
    plugin = {"name": "guard", "state": "Running", "health": [bad, bad], "rolledBack": back}
    report = reports.read(json.dumps({"type": "report", "plugins": [plugin]}))
    assert "sealed" in reports.revisions(report)
    (only,) = reports.about(report, {"guard"}, unsealed={("guard", "sealed"): "ours"}).plugins
    (hook,) = only.health
    assert (hook.message, hook.calls, hook.bad) == ("a b [31m", 5, 5)
    assert (only.rolled_back.message, only.rolled_back.revision, only.rolled_back.failures) == ("c d", "ours", 1)


@pytest.mark.parametrize("later", [{"hook": "of_the_future"}, {"trouble": "OfTheFuture"}, {"hook": ["route"]}])
def test_what_a_later_sidecar_says_of_its_hooks_is_passed_over(later):
    """The rest of its report is read: that pod is still heard."""
    hook = {"hook": "route", "trouble": "Slow", "calls": 5, "bad": 5, "seconds": 1}
    plugin = {"name": "p", "state": "Running", "health": [hook | later] * 20 + [hook]}
    report = reports.read(json.dumps({"type": "report", "plugins": [plugin]}))
    assert [each.hook for each in report.plugins[0].health] == ["route"]


@pytest.mark.parametrize("field", ["seconds", "bad", "calls"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "1e99"])
def test_a_figure_that_is_none_is_no_report(field, value):
    """It would stand in a metric or a status."""
    hook = {"hook": "route", "trouble": "Slow", "calls": 5, "bad": 5, "seconds": 1}
    text = json.dumps({"type": "report", "plugins": [{"name": "p", "state": "Running", "health": [hook]}]})
    before = f'"{field}": {hook[field]}'
    assert before in text
    with pytest.raises(ValidationError):
        reports.read(text.replace(before, f'"{field}": {value}'))
