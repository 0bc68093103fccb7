"""``POST /v1/hooks:batch``: many calls in one request, for proxies that decide about many statements or rows at once.

The body is ``{"calls": [{"hook": …, "input": …}, …]}``. The answer holds, in the same order, what each call alone would
have been answered: a decision, or a problem document where that call is malformed. One bundle decides all of them.

Where the body is beyond doubt it is cut into its calls, whose inputs reach the guests as they came; else it is parsed,
and each input written anew.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_api.hooks import MAX_CALLS, Hook, hook_spellings, parse_hook
from hookline_runtime.call.inputs import (
    check_cost,
    parse_json,
    read_marked,
    repeated_in,
    twice_sentence,
)
from hookline_runtime.call.looks import ANY_OBJECT
from hookline_runtime.errors import InputError
from hookline_runtime.guest.accelerator import scan_from
from hookline_sidecar.replies import JSON, Problem, Reply, document

if TYPE_CHECKING:
    from hookline_runtime.chain.pipeline import Chains, Later
    from hookline_runtime.plugin.backlog import Asker

LOOKED_INTO: Final = 256 * 1024
"""Bytes of a call that is looked into whatever its plugins take: what is wrong with it is said, and it costs little. A
larger one that no plugin takes is answered unread, in a batch too: to read 16 MiB once more holds the worker up."""
_TURN_NS: Final = 1_000_000
"""How long a batch keeps others waiting before it lets them go first."""
_MAX_ANSWER: Final = 8 * 2**20
"""Bytes of decisions after which the calls that are left are not run: a small batch may ask for a large cached answer a
thousand times. One decision more may come on top, which leaves it below what ``hookline_client`` reads."""
_TOO_MUCH: Final = f"the decisions before it have more than {_MAX_ANSWER} bytes; ask for it in another batch"

_HOOKS: Final = {name.encode(): parse_hook(name) for name in hook_spellings()}
_S: Final = r"[ \t\r\n]*+"
_ONE: Final = rf'{_S}\{{{_S}"hook"{_S}:{_S}"([a-z_]++)"{_S},{_S}"input"{_S}:{_S}'
_FIRST: Final = re.compile(rf'{_S}\{{{_S}"calls"{_S}:{_S}\[{_ONE}'.encode())
_NEXT: Final = re.compile(rf"{_S}\}}{_S},{_ONE}".encode())
_END: Final = re.compile(rf"{_S}\}}{_S}\]{_S}\}}{_S}".encode())

_Given = tuple[Hook, bytes, tuple[bytes, bytes] | None]
"""A call: its hook, its input, and what the accelerator found of that."""


class Batch:
    """One batch on its way: ``advance`` goes as far as it can without waiting, ``finish`` to the end."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._calls: list[_Given | bytes] | None = None
        self._answers: list[bytes] = []
        self._size = 0
        """Bytes of the answers."""
        self._later: Later | None = None
        """The next call's answer, where it has to be waited for."""

    def advance(self, chains: Chains) -> Reply | None:
        """Answer as many calls as one turn allows, and plugins are ready for; the reply once there are all.

        Raises Problem, the first time, where the body is not a batch at all.
        """
        calls, answers = self._calls, self._answers
        if calls is None:
            _check_cost(self._body)
            calls = self._calls = _cut(chains, self._body) or _read(self._body)
            self._body = b""
        end, size, ask = time.perf_counter_ns() + _TURN_NS, self._size, chains.answer
        for index in range(len(answers), len(calls)):
            given = calls[index]
            answer: bytes | Later
            if size > _MAX_ANSWER:
                answer = _problem(413, _TOO_MUCH, index, "")
            elif isinstance(given, bytes):
                answer = given
            else:
                hook, data, found = given
                try:
                    if len(data) > LOOKED_INTO and len(data) > chains.largest_input(hook):
                        answer = ask(hook, b"", unread=len(data))  # as alone; to read it once more is long
                    else:
                        answer = ask(hook, data, found)
                except InputError as error:
                    answer = _problem(400, str(error), index, f".input.{error.field}".rstrip("."))
                if not isinstance(answer, bytes):
                    self._size, self._later = size, answer
                    return None
            answers.append(answer)
            calls[index] = b""  # its input is as large as its part of the body
            size += len(answer)
            if not index & 7 and time.perf_counter_ns() > end and index + 1 < len(calls):
                self._size = size
                return None
        return Reply(200, JSON, b"".join((b'{"decisions":[', b",".join(answers), b"]}")))

    async def finish(self, chains: Chains, asker: Asker) -> Reply:
        """Answer the rest, other connections' calls in between. One bundle answers all: let it be held."""
        while True:
            if self._later is None:
                reply = self.advance(chains)
                if reply is not None:
                    return reply
                await asyncio.sleep(0)
                continue
            later, self._later = self._later, None
            answer = await later(asker)
            if self._calls:
                self._calls[len(self._answers)] = b""
            self._answers.append(answer)
            self._size += len(answer)


def _cut(chains: Chains, body: bytes) -> list[_Given | bytes] | None:
    """The calls of a body that is beyond doubt; None where there is any, and where it has too many."""
    calls: list[_Given | bytes] = []
    head = None if scan_from is None else _FIRST.match(body)
    while head is not None:
        hook = _HOOKS.get(head[1])
        if hook is None or len(calls) > MAX_CALLS:
            return None
        way = chains.ways.get(hook)
        look = ANY_OBJECT if way is None else way.look
        # Most calls have the same in front of them as the one before. The first has what begins the batch.
        again, at = head[0] if calls else b"", head.end()
        while True:
            scanned = scan_from(look, body, at)
            if scanned is not None:
                found, end = scanned
                calls.append((hook, body[at:end], None if way is None else found))
            else:
                scanned = scan_from(ANY_OBJECT, body, at)
                if scanned is None:
                    return None
                end = scanned[1]
                calls.append((hook, body[at:end], None))
            if not again or len(calls) > MAX_CALLS or not body.startswith(again, end):
                break
            at = end + len(again)
        head = _NEXT.match(body, end)
    return calls if calls and len(calls) <= MAX_CALLS and _END.fullmatch(body, end) else None


def _check_cost(body: bytes) -> None:
    """Of all inputs together, also where each by itself is looked into later."""
    try:
        check_cost(body)
    except InputError as error:
        raise Problem(400, str(error)) from None


def _read(body: bytes) -> list[_Given | bytes]:
    """The calls of any body, with a problem in place of each that is malformed."""
    try:
        whole, twice = parse_json(body)
    except InputError as error:
        raise Problem(400, str(error)) from None
    marked = read_marked(body) if twice else whole
    around = {**marked, "calls": None} if isinstance(marked, dict) else marked
    if twice and (marked is None or repeated_in(around) is not None):
        raise Problem(400, twice_sentence(around))
    calls = marked.get("calls") if isinstance(marked, dict) else None
    if not isinstance(calls, list):
        raise Problem(400, 'the body is not {"calls": […]}', field="calls")
    if len(calls) > MAX_CALLS:
        raise Problem(400, f"there are {len(calls)} calls, and a batch may have {MAX_CALLS}", field="calls")
    return [
        _look(given, index)
        if not twice or repeated_in(calls[index]) is None
        else _problem(400, twice_sentence(calls[index]), index, "")
        for index, given in enumerate(whole["calls"])
    ]


def _look(given: Any, index: int) -> _Given | bytes:
    if not isinstance(given, dict):
        return _problem(400, "is not a JSON object", index, "")
    try:
        hook = parse_hook(given.get("hook"))
    except ValueError as error:
        return _problem(404, str(error), index, ".hook")
    if "input" not in given:
        return _problem(400, "is missing", index, ".input")
    return hook, orjson.dumps(given["input"]), None


def _problem(status: int, detail: str, index: int, field: str) -> bytes:
    return orjson.dumps(document(status, detail, f"calls[{index}]{field}"))
