"""``POST /v1/hooks:batch``: many calls in one request, for proxies that decide about many statements or rows at once.

The body is ``{"calls": [{"hook": …, "input": …}, …]}``; it is parsed once. The answer holds, in the same order, what
each call alone would have been answered: a decision, or a problem document where that call is malformed. One bundle
decides all of them.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_api.hooks import MAX_CALLS, parse_hook
from hookline_runtime.errors import InputError
from hookline_runtime.inputs import read_document, read_json
from hookline_sidecar.replies import Refused, Reply, document

if TYPE_CHECKING:
    from hookline_runtime.pipeline import Chains

_TURN_NS: Final = 1_000_000
"""How long a batch keeps others waiting before it lets them go first."""
_MAX_ANSWER: Final = 8 * 2**20
"""Bytes of decisions after which the calls that are left are not run: a small batch may ask for a large cached answer a
thousand times. One decision more may come on top, which leaves it below what ``hookline_client`` reads."""
_TOO_MUCH: Final = f"the decisions before it have more than {_MAX_ANSWER} bytes; ask for it in another batch"
_HEADERS: Final = (("Content-Type", "application/json"),)


class Batch:
    """One batch on its way: ``advance`` goes as far as it can without waiting, ``finish`` to the end."""

    def __init__(self, body: bytes) -> None:
        """Raises Refused where the body is no batch at all."""
        self._calls = _read(body)
        self._answers: list[bytes] = []
        self._size = 0
        """Bytes of the answers."""

    def advance(self, chains: Chains) -> Reply | None:
        """Answer as many calls as one turn allows, and plugins are ready for; the reply once there are all."""
        calls, answers = self._calls, self._answers
        end = time.perf_counter_ns() + _TURN_NS
        for index in range(len(answers), len(calls)):
            is_enough = self._size > _MAX_ANSWER
            answer = _problem(413, _TOO_MUCH, index, "") if is_enough else _answer_now(chains, calls[index], index)
            if answer is None:
                return None
            self._keep(answer)
            if not index & 7 and time.perf_counter_ns() > end and index + 1 < len(calls):
                return None
        return Reply(200, _HEADERS, b"".join((b'{"decisions":[', b",".join(answers), b"]}")))

    async def finish(self, chains: Chains) -> Reply:
        """Answer the rest, other connections' calls in between. One bundle answers all: let it be held."""
        while True:
            at = len(self._answers)
            reply = self.advance(chains)
            if reply is not None:
                return reply
            if len(self._answers) > at:
                await asyncio.sleep(0)
                continue
            given = self._calls[at]  # nothing is wrong with it: else it would have had its answer
            self._keep(await chains.answer(read_document(parse_hook(given["hook"]), given["input"])))

    def _keep(self, answer: bytes) -> None:
        self._answers.append(answer)
        self._size += len(answer)


def _read(body: bytes) -> list[Any]:
    try:
        whole = read_json(body)
    except InputError as error:
        raise Refused(400, str(error)) from None
    calls = whole.get("calls") if isinstance(whole, dict) else None
    if not isinstance(calls, list):
        raise Refused(400, 'the body is not {"calls": […]}', field="calls")
    if len(calls) > MAX_CALLS:
        raise Refused(400, f"there are {len(calls)} calls, and a batch may have {MAX_CALLS}", field="calls")
    return calls


def _answer_now(chains: Chains, given: Any, index: int) -> bytes | None:
    """What one call is answered, a problem document perhaps; None where a plugin would have to be waited for."""
    if not isinstance(given, dict):
        return _problem(400, "is not a JSON object", index, "")
    try:
        hook = parse_hook(given.get("hook"))
    except ValueError as error:
        return _problem(404, str(error), index, ".hook")
    if "input" not in given:
        return _problem(400, "is missing", index, ".input")
    document = given["input"]
    try:
        return chains.answer_body_now(hook, orjson.dumps(document), document=document)
    except InputError as error:
        return _problem(400, str(error), index, f".input.{error.field}".rstrip("."))


def _problem(status: int, detail: str, index: int, field: str) -> bytes:
    return orjson.dumps(document(status, detail, f"calls[{index}]{field}"))
