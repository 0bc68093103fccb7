"""AdmissionReviews: reading one that anybody may have sent, and the two answers.

A body is bounded in bytes, in seconds and in JSON values. Large ones are few at a time, and are looked at on a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson
from aiohttp import web

from hookline_api import json_cost
from hookline_serving import Bodies

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
Json = dict[str, Any]

MAX_BODY: Final = 8 * 2**20
"""Bytes of a review. An update holds an object of the API's 1.5 MiB twice, and JSON writes ``<`` as six bytes."""
_MAX_VALUES_IN_ALL: Final = 2**19
"""Values and names in a review: two ``config`` of the greatest number. That takes 50 MiB while it is looked at."""
_LARGE: Final = 256 * 1024
"""Bytes of a review above which it is looked at on a thread, one such at a time."""

_TOO_LARGE: Final = f"a review of more than {MAX_BODY} bytes is not read"
_SMALL_BYTES: Final = 16 * 2**20
"""Bytes of all smaller reviews that are arriving. Where there are more, the one that began first is dropped."""
_LARGE_AT_ONCE: Final = 2
"""Large reviews that are here at the same time, with the one that is looked at. Others wait to be read."""
_LARGE_S: Final = 2.0
"""Seconds for a large review, once there is room for it. The API server takes milliseconds, and slower callers keep
others from being read."""
_BODY_TIMEOUT_S: Final = 10.0
_MAX_WARNING: Final = 250  # beyond 256 the API server may cut
API_VERSION: Final = "admission.k8s.io/v1"


class BadReviewError(Exception):
    """The request itself is at fault."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Reader:
    """Reads bodies and looks at them, a bounded number of bytes at the same time, and at one large one at a time."""

    def __init__(self) -> None:
        self._small = Bodies(most=_SMALL_BYTES)
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        # One thread, and always the same: the C library keeps for each what its largest review took.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="review")

    async def read(self, request: web.Request, look: Callable[[bytes], T]) -> T:
        """What ``look`` finds in the whole body, of which nothing is kept. Raises BadReviewError."""
        if (request.content_length or 0) > MAX_BODY:
            raise BadReviewError(413, _TOO_LARGE)
        async with contextlib.AsyncExitStack() as held:
            body = await self._whole(request, held)
            if len(body) <= _LARGE:
                return look(body)
            # Where it keeps nobody else waiting.
            return await asyncio.get_running_loop().run_in_executor(self._thread, look, body)

    async def _whole(self, request: web.Request, held: contextlib.AsyncExitStack) -> bytes:
        """The body. A large one takes one of few places, which ``held`` gives back when it was looked at."""
        body, is_large = bytearray(), False
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S) as deadline:
                held.callback(self._small.forget, deadline)
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BODY:
                        raise BadReviewError(413, _TOO_LARGE)
                    if not is_large:
                        self._small.grows(deadline, len(chunk))
                    if len(body) > _LARGE and not is_large:
                        is_large = True
                        await held.enter_async_context(self._large)
                        self._small.forget(deadline)
                        deadline.reschedule(asyncio.get_running_loop().time() + _LARGE_S)
                self._small.forget(deadline)
        except (web.RequestPayloadError, ConnectionError):
            raise BadReviewError(400, "the review was cut off") from None
        except TimeoutError:
            raise BadReviewError(408, "the review did not arrive in time; try again") from None
        return bytes(body)


def request_of(content_type: str, body: bytes) -> Json:
    """The ``request`` of an AdmissionReview, with the fields that are used of the right types."""
    if content_type != "application/json":
        raise BadReviewError(415, "an AdmissionReview is application/json")
    try:
        json_cost.check(body, what="the review", max_values=_MAX_VALUES_IN_ALL)
        document = orjson.loads(body)
    except json_cost.CostError as error:
        raise BadReviewError(413, str(error)) from None
    except ValueError:
        raise BadReviewError(400, "the body is not JSON") from None
    if not isinstance(document, dict) or document.get("kind") != "AdmissionReview":
        raise BadReviewError(400, "the body is not an AdmissionReview")
    if document.get("apiVersion") != API_VERSION:
        raise BadReviewError(400, f"only {API_VERSION} is understood")
    review = document.get("request")
    if not isinstance(review, dict):
        raise BadReviewError(400, "the AdmissionReview has no request")
    for name in ("uid", "operation"):
        if not isinstance(review.get(name), str) or not review[name]:
            raise BadReviewError(400, f"the request's {name} must be text")
    for name in ("namespace", "name", "subResource"):
        if not isinstance(review.get(name) or "", str):
            raise BadReviewError(400, f"the request's {name} must be text")
    for name in ("object", "oldObject", "kind"):
        if not isinstance(review.get(name) or {}, dict):
            raise BadReviewError(400, f"the request's {name} must be an object")
    return review


def allowed(*, warnings: list[str] | tuple[str, ...] = ()) -> Json:
    """The answer that lets it in; warnings are cut to what the API server shows."""
    response: Json = {"allowed": True}
    if warnings:
        response["warnings"] = [text if len(text) <= _MAX_WARNING else text[:_MAX_WARNING] + " …" for text in warnings]
    return response


def denied(message: str, *, warnings: list[str] | tuple[str, ...] = ()) -> Json:
    """The answer that does not, and why."""
    status = {"code": 422, "reason": "Invalid", "message": message}
    return {**allowed(warnings=warnings), "allowed": False, "status": status}
