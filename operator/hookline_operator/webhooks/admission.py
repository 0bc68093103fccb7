"""The admission webhooks: for pods, for ``WasmPlugin`` and for ``PluginTrustPolicy`` resources.

Requests and answers are AdmissionReviews (https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-
controllers/). Anybody in the cluster can reach this port. So a request is bounded, and its answer is about the request
itself. What the plugin's module imports, and what its schema asks for, is said only where the review has the resource's
uid: the API server puts it there, and a stranger cannot guess it. What a policy would do to the plugins of the cluster
is said only at a path that the API server alone is told.

A defect here is a 500 for a pod, so that the webhook's ``failurePolicy`` decides whether pods without a sidecar may
start. For a resource it is an allowance with a warning, because the operator judges each resource again.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import orjson
from aiohttp import web

from hookline_api.resources import WasmPlugin
from hookline_artifacts.errors import FetchError
from hookline_artifacts.judging.plugins import Judgement, judge
from hookline_artifacts.judging.policies import judge_policy, read_spec
from hookline_operator.rations import Ration
from hookline_operator.webhooks.deletion import Deletion
from hookline_operator.webhooks.dry_run import PATH as POLICIES_PATH
from hookline_operator.webhooks.dry_run import PolicyReview
from hookline_operator.webhooks.gate import Change
from hookline_operator.webhooks.injection import inject, patch
from hookline_operator.webhooks.pod_json import InjectionError, MalformedPodError
from hookline_operator.webhooks.reviews import API_VERSION, BadReviewError, Reader, allowed, denied, request_of
from hookline_serving import media_type

if TYPE_CHECKING:
    from hookline_artifacts.judging.signers import Findings
    from hookline_operator.webhooks.annotations import InjectionSettings

T = TypeVar("T")
Json = dict[str, Any]


class _Resource(NamedTuple):
    """A plugin that is applied."""

    judgement: Judgement
    change: Change | None
    """None where it cannot be read."""


class _PolicyResource(NamedTuple):
    """A policy that is applied or deleted."""

    problems: list[str]
    warnings: list[str]
    review: PolicyReview | None
    """None where it is refused, or nothing of it changes."""


_Look = Callable[[], _Resource | Deletion | None]
"""What was seen in a review; raises what went wrong."""
CheckConfig = Callable[[WasmPlugin], Awaitable[str | None]]
"""What the module's own schema finds wrong with a plugin's config, in one sentence. None where nothing is wrong, or the
module is not known yet. It answers within seconds. DANGER: the caller is not known. It may tell nothing of a
resource whose uid differs from the one in ``metadata.uid``."""
CheckPolicies = Callable[[Change], Awaitable["Findings"]]
"""What policies forbid of a plugin, or would. It answers within seconds, or raises."""
Rehearse = Callable[[PolicyReview], Awaitable[list[str]]]
"""What a policy would do to the plugins of this cluster. It answers within the seconds that the review has."""
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
_TIMEOUT: Final = re.compile(r"([0-9]{1,3})s")
"""How long the API server waits, as it says in the query; https://pkg.go.dev/k8s.io/client-go/rest#Request.Timeout."""
_TIMEOUT_S: Final = 5.0
_NO_CHECK: Final = "Hookline could not check this {} now; its status will say what is wrong"
_OTHER_PATH: Final = (
    "what it would do to the plugins of this cluster is told at another path, which the operator writes into the "
    "webhook configuration within a minute"
)

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
    check_policies: CheckPolicies | None = None,
    rehearse: Rehearse | None = None,
    policies_path: Callable[[], str] = lambda: "",
    deleted: Callable[[Deletion], str | None] = lambda _: None,
    injected: Callable[[str], None] = lambda _: None,
    admitted: Callable[[str], None] = lambda _: None,
) -> list[web.RouteDef]:
    """The routes of all webhooks, for the operator's HTTPS server.

    ``settings`` is asked for each pod, since the certificate authority changes. ``injected`` is called for each pod
    (``injected``, ``skipped``, ``refused``), ``admitted`` for each resource (``allowed``, ``denied``). ``deleted``
    returns a warning for whoever deletes a plugin, and forbids nothing. What ``rehearse`` says is told to who asks at
    ``policies_path``. The application's own ``client_max_size`` does not matter: bodies are bounded here.
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
                answer = await _validate(seen, check_config, check_permissions, check_policies)
                admitted("allowed" if answer["allowed"] else "denied")
                return answer
            except Exception:
                log.exception("a resource could not be checked")
                return allowed(warnings=[_NO_CHECK.format("resource")])

        return await _answer(request, reader, _judged, checked)

    return [
        web.post(INJECT_PATH, injection),
        web.post(VALIDATE_PATH, validation),
        web.post(f"{POLICIES_PATH}{{secret:(/[0-9a-f]*)?}}", _policies(reader, rehearse, policies_path)),
    ]


def _policies(
    reader: Reader, rehearse: Rehearse | None, policies_path: Callable[[], str]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """The handler for policies."""

    async def policies(request: web.Request) -> web.Response:
        trusted = hmac.compare_digest(request.path.encode(), policies_path().encode())
        seconds = _seconds(request)

        async def checked(judged: Callable[[], _PolicyResource | None]) -> Json:
            try:
                return await _validate_policy(judged(), rehearse if trusted else None)
            except Exception:
                log.exception("a policy could not be checked")
                return allowed(warnings=[_NO_CHECK.format("policy")])

        return await _answer(request, reader, lambda review: _judged_policy(review, seconds), checked)

    return policies


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
    updates = review["operation"] == "UPDATE"
    is_new = not updates or new.get("spec") != old.get("spec")
    if updates and (_is_leaving(new) or (not is_new and _labels(new) == _labels(old))):
        return lambda: None  # an annotation, a finalizer: whatever was wrong before must not stand in their way
    return _noted(lambda: _resource(review, new, old if updates else None, is_new=is_new))


def _resource(review: Json, new: Json, old: Json | None, *, is_new: bool) -> _Resource:
    """What there is to say of a plugin: with the same spec as before, what is wrong with that is not said again."""
    problems, warnings, plugin = judge(new, name=review.get("name") or "unnamed")
    change = None
    if plugin is not None:
        # Of an update the API server tells what it has stored, whatever the client left out.
        stored = {"uid": _uid(new if old is None else old)}
        plugin = plugin.model_copy(update={"metadata": plugin.metadata.model_copy(update=stored)})
        change = Change(plugin, review.get("namespace") or "", None if old is None else _labels(old), is_new)
    return _Resource(Judgement(problems, warnings, plugin) if is_new else Judgement([], [], plugin), change)


def _noted(find: Callable[[], T]) -> Callable[[], T]:
    """What is found, or the error that it ends with, for whoever answers: it is logged there."""
    made: Future[T] = Future()
    try:
        made.set_result(find())
    except Exception as error:  # noqa: BLE001
        made.set_exception(error)
    return made.result


def _judged_policy(review: Json, seconds: float) -> Callable[[], _PolicyResource | None]:
    """The same as ``_judged``, of a policy."""
    kind = review.get("kind") or {}
    operation = review["operation"]
    if kind.get("kind") != "PluginTrustPolicy" or review.get("subResource"):
        return lambda: None
    new, old = review.get("object") or {}, review.get("oldObject") or {}
    same = new.get("spec") == old.get("spec") and review.get("dryRun") is not True
    if operation == "UPDATE" and (same or _is_leaving(new)):
        return lambda: None  # a label, a finalizer; who tries it out wants to know what it does
    if operation not in {"CREATE", "UPDATE", "DELETE"}:
        return lambda: None

    def find() -> _PolicyResource:
        problems, warnings, spec = ([], [], None) if operation == "DELETE" else judge_policy(new)
        before = read_spec(old["spec"])[0] if isinstance(old.get("spec"), dict) else None
        change = PolicyReview(_name(review), spec, before, review.get("dryRun") is True, seconds)
        return _PolicyResource(problems, warnings, None if problems else change)

    return _noted(find)


async def _validate_policy(judged: _PolicyResource | None, rehearse: Rehearse | None) -> Json:
    if judged is None:
        return allowed()
    problems, warnings, review = judged
    if problems or review is None:
        return denied(_shown(problems), warnings=warnings)
    return allowed(warnings=[*warnings, *(await rehearse(review) if rehearse is not None else [_OTHER_PATH])])


async def _validate(
    judged: _Resource | None,
    check_config: CheckConfig,
    check_permissions: CheckPermissions,
    check_policies: CheckPolicies | None,
) -> Json:
    if judged is None:
        return allowed()
    (problems, warnings, plugin), change = judged
    if change is not None and check_policies is not None:
        try:
            async with asyncio.timeout(_CHECK_TIMEOUT_S):
                found = await check_policies(change)
            problems += found.problems
            warnings += found.warnings
        except (TimeoutError, FetchError):
            warnings.append("no PluginTrustPolicy was asked about it: that takes too long now; the operator will")
    if plugin is not None and not problems and change is not None and change.is_new:
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
    return denied(_shown(problems), warnings=warnings) if problems else allowed(warnings=warnings)


def _shown(problems: list[str]) -> str:
    """All that is wrong in one message, as long as it is not too much."""
    shown = [text if len(text) <= _MAX_SENTENCE else text[:_MAX_SENTENCE] + " …" for text in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        shown.append(f"and {len(problems) - _MAX_PROBLEMS} more")
    return "; ".join(shown)


def _seconds(request: web.Request) -> float:
    """How long the API server waits for an answer."""
    found = _TIMEOUT.fullmatch(request.query.get("timeout", ""))
    return float(found[1]) if found is not None else _TIMEOUT_S


def _name(review: Json) -> str:
    metadata = (review.get("object") or review.get("oldObject") or {}).get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else review.get("name") or "unnamed"


def _labels(found: Json) -> Mapping[str, str]:
    """Its labels, whatever is there."""
    metadata = found.get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, dict) else None
    return {key: text for key, text in (labels if isinstance(labels, dict) else {}).items() if isinstance(text, str)}


def _uid(found: Json) -> str | None:
    metadata = found.get("metadata")
    uid = metadata.get("uid") if isinstance(metadata, dict) else None
    return uid if isinstance(uid, str) else None


def _is_leaving(found: Json) -> bool:
    metadata = found.get("metadata")
    return isinstance(metadata, dict) and metadata.get("deletionTimestamp") is not None
