"""The two admission webhooks: ``/webhooks/inject`` for pods, ``/webhooks/validate`` for ``WasmPlugin`` resources.

Requests and answers are AdmissionReviews (https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-
controllers/). Anybody in the cluster can reach this port. So a request is bounded, and its answer is about the request
itself. What the plugin's module imports, and what its schema asks for, is said only where the review has the resource's
uid: the API server puts it there, and a stranger cannot guess it.

A defect here is a 500 for a pod, so that the webhook's ``failurePolicy`` decides whether pods without a sidecar may
start. For a resource it is an allowance with a warning, because the operator judges each resource again.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson
from aiohttp import web

from hookline_api.resources import WasmPlugin
from hookline_operator.rations import Ration
from hookline_operator.webhooks.deletion import Deletion
from hookline_operator.webhooks.injection import inject, patch
from hookline_operator.webhooks.judge import Judgement, judge
from hookline_operator.webhooks.pod_json import InjectionError, MalformedPodError
from hookline_operator.webhooks.reviews import API_VERSION, BadReviewError, Reader, allowed, denied, request_of
from hookline_serving import media_type

if TYPE_CHECKING:
    from hookline_operator.webhooks.annotations import InjectionSettings

T = TypeVar("T")
Json = dict[str, Any]
_Look = Callable[[], Judgement | Deletion | None]
"""What was seen in a review; raises what went wrong."""
CheckConfig = Callable[[WasmPlugin], Awaitable[str | None]]
"""What the module's own schema finds wrong with a plugin's config, in one sentence. None where nothing is wrong, or the
module is not known yet. It answers within seconds. DANGER: the caller is not known. It may tell nothing of a
resource whose uid differs from the one in ``metadata.uid``."""
CheckPermissions = Callable[[WasmPlugin], "Lack | None"]
"""What its module imports and the resource does not grant. None where nothing is missing, or the module is not known
yet. The same danger."""

INJECT_PATH: Final = "/webhooks/inject"
VALIDATE_PATH: Final = "/webhooks/validate"
_LINES: Final = 50
_LINES_EACH_SECOND: Final = 1.0
"""Lines of the log for what anybody may send. The rest has the level debug, and whoever asked is told in any case."""
_CHECK_TIMEOUT_S: Final = 4.0
_MAX_PROBLEMS: Final = 5
_MAX_SENTENCE: Final = 400

log = logging.getLogger("hookline.admission")


@dataclass(frozen=True, slots=True)
class Lack:
    """Permissions that a plugin's module needs and its resource does not grant."""

    sentence: str
    refused: bool
    """Whether it is known for sure that it will not be loaded; else it is a warning."""


def routes(
    *,
    settings: Callable[[], InjectionSettings],
    check_config: CheckConfig,
    check_permissions: CheckPermissions = lambda _: None,
    deleted: Callable[[Deletion], str | None] = lambda _: None,
    injected: Callable[[str], None] = lambda _: None,
    admitted: Callable[[str], None] = lambda _: None,
) -> list[web.RouteDef]:
    """The routes of both webhooks, for the operator's HTTPS server.

    ``settings`` is asked for each pod, since the certificate authority changes. ``injected`` is called for each pod
    (``injected``, ``skipped``, ``refused``), ``admitted`` for each resource (``allowed``, ``denied``). ``deleted``
    returns a warning for whoever deletes a plugin, and forbids nothing. The application's own ``client_max_size`` does
    not matter: bodies are bounded here.
    """
    reader = Reader()
    lines = Ration(burst=_LINES, each_second=_LINES_EACH_SECOND)

    async def injection(request: web.Request) -> web.Response:
        async def counted(answer: Json) -> Json:
            injected("injected" if "patch" in answer else "skipped" if answer["allowed"] else "refused")
            return answer

        def look(review: Json) -> Json:
            return _inject(review, settings(), log.info if lines.take() else log.debug)

        return await _answer(request, reader, look, counted)

    async def validation(request: web.Request) -> web.Response:
        async def checked(judged: _Look) -> Json:
            try:
                seen = judged()
                if isinstance(seen, Deletion):
                    warning = deleted(seen)
                    return allowed(warnings=[warning] if warning is not None else [])
                answer = await _validate(seen, check_config, check_permissions)
                admitted("allowed" if answer["allowed"] else "denied")
                return answer
            except Exception:
                log.exception("a resource could not be checked")
                return allowed(
                    warnings=["Hookline could not check this resource now; its status will say what is wrong"]
                )

        return await _answer(request, reader, _judged, checked)

    return [web.post(INJECT_PATH, injection), web.post(VALIDATE_PATH, validation)]


async def _answer(
    request: web.Request, reader: Reader, look: Callable[[Json], T], answer: Callable[[T], Awaitable[Json]]
) -> web.Response:
    """``look`` at the review, and ``answer`` by what it says, when nothing else of the review is there any more."""

    def looked(body: bytes) -> tuple[str, T]:
        review = request_of(media_type(request.headers), body)
        return review["uid"], look(review)

    try:
        uid, found = await reader.read(request, looked)
        response = {**await answer(found), "uid": uid}
    except BadReviewError as error:
        return web.Response(status=error.status, text=f"{error}\n")
    except Exception:
        log.exception("an admission request failed")
        return web.Response(status=500, text="Hookline failed at this request; the operator's log says why\n")
    answered = {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}
    return web.Response(body=orjson.dumps(answered), content_type="application/json")


def _inject(review: Json, settings: InjectionSettings, say: Callable[[str, object], None]) -> Json:
    kind = review.get("kind") or {}
    if kind.get("kind") != "Pod" or kind.get("group") or review.get("subResource") or review["operation"] != "CREATE":
        return allowed()  # nothing can be added to a pod later
    pod = review.get("object") or {}
    try:
        injected = inject(pod, namespace=review.get("namespace") or "", settings=settings)
    except InjectionError as error:
        say("refused: %s", error)
        return denied(str(error))
    except MalformedPodError as error:
        raise BadReviewError(400, str(error)) from None
    for warning in injected.warnings:
        say("%s", warning)  # controllers, who make most pods, show nobody what they are warned of
    response = allowed(warnings=injected.warnings)
    if operations := patch(pod, injected.pod):
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(orjson.dumps(operations)).decode()}
    return response


def _judged(review: Json) -> _Look:
    """What ``judge`` says of a review's object, or raises; None where nothing has to be judged."""
    kind = review.get("kind") or {}
    new, old = review.get("object") or {}, review.get("oldObject") or {}
    if kind.get("kind") != "WasmPlugin" or review.get("subResource"):
        return lambda: None
    if review["operation"] == "DELETE":
        deletion = Deletion.of(review)
        return lambda: deletion
    if review["operation"] not in {"CREATE", "UPDATE"}:
        return lambda: None
    if review["operation"] == "UPDATE" and (new.get("spec") == old.get("spec") or _is_leaving(new)):
        return lambda: None  # labels, a finalizer: whatever was wrong before must not stand in their way
    made: Future[Judgement] = Future()
    try:
        problems, warnings, plugin = judge(new, name=review.get("name") or "unnamed")
        if plugin is not None:
            # Of an update the API server tells what it has stored, whatever the client left out.
            stored = {"uid": _uid(old if review["operation"] == "UPDATE" else new)}
            plugin = plugin.model_copy(update={"metadata": plugin.metadata.model_copy(update=stored)})
        made.set_result(Judgement(problems, warnings, plugin))
    except Exception as error:  # noqa: BLE001 - it is logged where it is answered
        made.set_exception(error)
    return made.result


async def _validate(judged: Judgement | None, check_config: CheckConfig, check_permissions: CheckPermissions) -> Json:
    if judged is None:
        return allowed()
    problems, warnings, plugin = judged
    if plugin is not None and not problems:
        lacking = check_permissions(plugin)
        if lacking is not None:
            (problems if lacking.refused else warnings).append(f"spec.permissions: {lacking.sentence}")
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                wrong = await check_config(plugin)
        except TimeoutError:
            wrong = None
            warnings.append("spec.config was not checked: that takes too long now; the status will say what is wrong")
        if wrong is not None:
            problems.append(f"spec.{wrong}" if wrong.startswith("config") else f"spec.config: {wrong}")
    if not problems:
        return allowed(warnings=warnings)
    shown = [text if len(text) <= _MAX_SENTENCE else text[:_MAX_SENTENCE] + " …" for text in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        shown.append(f"and {len(problems) - _MAX_PROBLEMS} more")
    return denied("; ".join(shown), warnings=warnings)


def _uid(found: Json) -> str | None:
    metadata = found.get("metadata")
    uid = metadata.get("uid") if isinstance(metadata, dict) else None
    return uid if isinstance(uid, str) else None


def _is_leaving(found: Json) -> bool:
    metadata = found.get("metadata")
    return isinstance(metadata, dict) and metadata.get("deletionTimestamp") is not None
