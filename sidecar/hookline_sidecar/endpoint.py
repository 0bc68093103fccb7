"""The hooks over HTTP: ``POST /v1/hooks/<hook>``, and ``/v1/auth`` for proxies that ask by subrequest.

A hook call is answered 200 with the decision, a block too. What is wrong with the call itself is a problem
document (RFC 9457) with 400, 404, 405, 408, 413 or 415; 503 is answered only while draining.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import orjson
from aiohttp import web

from hookline_api.hooks import Hook, parse_hook
from hookline_runtime.errors import InputError
from hookline_sidecar import auth

if TYPE_CHECKING:
    from hookline_runtime.runtime import Runtime
    from hookline_sidecar.settings import Settings

PROBLEM: Final = "application/problem+json"


class Gate:
    """What the endpoint answers from, and whether it still does."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.draining = False


def application(gate: Gate, settings: Settings) -> web.Application:
    """The hook endpoint as an aiohttp application."""
    app = web.Application(client_max_size=settings.max_body, middlewares=[_problems])

    async def hook(request: web.Request) -> web.StreamResponse:
        if gate.draining:
            return _draining()
        try:
            name = parse_hook(request.match_info["hook"])
        except ValueError as error:
            return problem(404, str(error))
        refusal = _refuse_media(request)
        if refusal is not None:
            return refusal
        try:
            async with asyncio.timeout(settings.body_timeout):
                body = await request.read()
        except TimeoutError:
            response = problem(408, f"the body did not arrive within {settings.body_timeout:g} s")
            response.force_close()
            return response
        try:
            decision = await gate.runtime.call(name, body)
        except InputError as error:
            return problem(400, str(error), field=error.field or None)
        return web.Response(body=orjson.dumps(decision), content_type="application/json")

    async def authorization(request: web.Request) -> web.StreamResponse:
        if gate.draining:
            return _draining()
        return await auth.answer(gate.runtime, request)

    app.router.add_post("/v1/hooks/{hook}", hook)
    app.router.add_route("*", "/v1/auth", authorization)
    app.router.add_route("*", "/v1/auth/{path:.*}", authorization)
    return app


def problem(status: int, detail: str, *, field: str | None = None) -> web.Response:
    """A problem document, https://www.rfc-editor.org/rfc/rfc9457."""
    body: dict[str, Any] = {"title": http.HTTPStatus(status).phrase, "status": status, "detail": detail}
    if field is not None:
        body["field"] = field
    return web.Response(status=status, body=orjson.dumps(body), content_type=PROBLEM)


def _draining() -> web.Response:
    response = problem(503, "the sidecar is shutting down; ask another one, or again after its restart")
    response.force_close()
    return response


def _refuse_media(request: web.Request) -> web.Response | None:
    """Anything but plain JSON; no header at all is taken as JSON."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        return problem(415, "compressed bodies are not read; send the JSON as it is")
    if "Content-Type" in request.headers and request.content_type != "application/json":
        return problem(415, f"the body is {request.content_type:.60}, and must be application/json")
    return None


@web.middleware
async def _problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What aiohttp itself refuses, as problem documents too."""
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge as error:
        response = problem(413, f"the body has more than {request.client_max_size} bytes")
        response.force_close()  # what is still to come of it is not read
        del error
        return response
    except web.HTTPMethodNotAllowed as error:
        response = problem(405, f"{request.method} is not answered here; use {', '.join(error.allowed_methods)}")
        response.headers["Allow"] = ",".join(sorted(error.allowed_methods))
        return response
    except web.HTTPNotFound:
        hooks = ", ".join(Hook)
        return problem(
            404, f"there is nothing at {request.path:.100}; hooks are POST /v1/hooks/ with one of {hooks}"
        )
    except web.HTTPException as error:
        return problem(error.status, error.reason)
