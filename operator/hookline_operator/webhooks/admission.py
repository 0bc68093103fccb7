"""The two admission webhooks: ``/webhooks/inject`` for pods, ``/webhooks/validate`` for ``WasmPlugin`` resources.

Requests and answers are AdmissionReviews
(https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/). Anybody in the cluster can
reach this port, so a request is as hostile as any: it is bounded, and what it gets is about itself only. What is said
beyond that (what the plugin's module imports, what its schema asks for) is said of a resource whose uid the review
tells: the API server puts it there, and a stranger cannot guess it.

What fails here by our own fault is a 500 for a pod, so that the webhook's ``failurePolicy`` decides (a namespace that
must not have pods without a sidecar gets none), and an allowance with a warning for a resource, because the operator
judges each of them again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import orjson
from aiohttp import web
from pydantic import ValidationError

from hookline_api import json_cost, sentences
from hookline_api.abi import HOST_FUNCTIONS
from hookline_api.config import MAX_CONFIG, MAX_CONFIG_VALUES, Config
from hookline_api.hooks import parse_hook
from hookline_api.resources import Permission, WasmPlugin
from hookline_artifacts.errors import FetchError
from hookline_artifacts.reference import LayoutReference
from hookline_artifacts.reference import parse as parse_reference
from hookline_operator.rations import Ration
from hookline_operator.webhooks.deletion import Deletion
from hookline_operator.webhooks.injection import inject, patch
from hookline_operator.webhooks.pod_json import InjectionError, MalformedPodError
from hookline_serving import Bodies, media_type

if TYPE_CHECKING:
    from hookline_operator.webhooks.annotations import InjectionSettings

T = TypeVar("T")
Json = dict[str, Any]
_Judged = tuple[list[str], list[str], WasmPlugin | None]
_Look = Callable[[], _Judged | Deletion | None]
"""What was seen in a review; raises what went wrong."""
CheckConfig = Callable[[WasmPlugin], Awaitable[str | None]]
"""What is wrong with a plugin's config by its module's own schema, in one sentence; None where nothing is, or where
the module is not known (yet). Answers within seconds.

DANGER: who asks is not known. It may tell nothing of a resource whose uid is not the one in ``metadata.uid``."""
CheckPermissions = Callable[[WasmPlugin], "Lack | None"]
"""What its module imports and the resource does not grant; None where it lacks nothing, or where the module is not
known (yet). The same danger."""

INJECT_PATH: Final = "/webhooks/inject"
VALIDATE_PATH: Final = "/webhooks/validate"
MAX_BODY: Final = 8 * 2**20
"""Bytes of a review: an update holds an object of the API's 1.5 MiB twice, and JSON writes ``<`` as six bytes."""
_MAX_VALUES_IN_ALL: Final = 2**19
"""Values and names of a review: two ``config`` of as many as one may have; 50 MiB while it is looked at."""
_LARGE: Final = 256 * 1024
"""Bytes of a review above which it is looked at on a thread, one such at a time."""

_TOO_LARGE: Final = f"a review of more than {MAX_BODY} bytes is not read"
_SMALL_BYTES: Final = 16 * 2**20
"""Bytes of all other reviews that are on their way. Where there are more, who began first is no longer waited for."""
_LARGE_AT_ONCE: Final = 2
"""Large ones that are here at the same time, the one that is looked at among them; others wait to be read."""
_LARGE_S: Final = 2.0
"""Seconds for a large one to come once there is room for it. From the API server it takes milliseconds, and who is
slower keeps others from being read."""
_BODY_TIMEOUT_S: Final = 10.0
_LINES: Final = 50
_LINES_EACH_SECOND: Final = 1.0
"""Of the log, for what anybody may send; the rest is said at the level debug. Whoever asked is told in any case."""
_CHECK_TIMEOUT_S: Final = 4.0
_MAX_PROBLEMS: Final = 5
_MAX_VALUES: Final = 20_000
_MAX_SENTENCE: Final = 400
_MAX_WARNING: Final = 250  # beyond 256 the API server may cut
_API_VERSION: Final = "admission.k8s.io/v1"
_METADATA: Final = ("name", "namespace", "uid", "generation", "labels", "annotations")
_LABEL_PREFIX: Final = re.compile(r"(?=.{1,253}/)[a-z0-9]([-a-z0-9.]*[a-z0-9])?/")
_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")

log = logging.getLogger("hookline.admission")


@dataclass(frozen=True, slots=True)
class Lack:
    """Permissions that a plugin's module needs and its resource does not grant."""

    sentence: str
    refused: bool
    """Whether it is known for sure that it will not be loaded; else it is a warning."""


class _RefusedError(Exception):
    """The request itself is at fault."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


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

    ``settings`` is asked for each pod, since the certificate authority changes. ``injected`` hears of each pod
    (``injected``, ``skipped``, ``refused``), ``admitted`` of each resource (``allowed``, ``denied``). ``deleted`` gives
    what somebody who deletes a plugin is warned of, and forbids nothing. The application's own ``client_max_size`` does
    not matter: bodies are bounded here.
    """
    reader = _Reader()
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
                    return _allowed(warnings=[warning] if warning is not None else [])
                answer = await _validate(seen, check_config, check_permissions)
                admitted("allowed" if answer["allowed"] else "denied")
                return answer
            except Exception:
                log.exception("a resource could not be checked")
                return _allowed(
                    warnings=["Hookline could not check this resource now; its status will say what is wrong"]
                )

        return await _answer(request, reader, _judged, checked)

    return [web.post(INJECT_PATH, injection), web.post(VALIDATE_PATH, validation)]


async def _answer(
    request: web.Request, reader: _Reader, look: Callable[[Json], T], answer: Callable[[T], Awaitable[Json]]
) -> web.Response:
    """``look`` at the review, and ``answer`` by what it says, when nothing else of the review is there any more."""

    def looked(body: bytes) -> tuple[str, T]:
        review = _review(media_type(request.headers), body)
        return review["uid"], look(review)

    try:
        uid, found = await reader.read(request, looked)
        response = {**await answer(found), "uid": uid}
    except _RefusedError as error:
        return web.Response(status=error.status, text=f"{error}\n")
    except Exception:
        log.exception("an admission request failed")
        return web.Response(status=500, text="Hookline failed at this request; the operator's log says why\n")
    answered = {"apiVersion": _API_VERSION, "kind": "AdmissionReview", "response": response}
    return web.Response(body=orjson.dumps(answered), content_type="application/json")


class _Reader:
    """Reads bodies and looks at them, a bounded number of bytes at the same time, and at one large one at a time."""

    def __init__(self) -> None:
        self._small = Bodies(most=_SMALL_BYTES)
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._one = asyncio.Semaphore(1)

    async def read(self, request: web.Request, look: Callable[[bytes], T]) -> T:
        """What ``look`` finds in the whole body, of which nothing is kept. Raises _RefusedError."""
        if (request.content_length or 0) > MAX_BODY:
            raise _RefusedError(413, _TOO_LARGE)
        async with contextlib.AsyncExitStack() as held:
            body = await self._whole(request, held)
            if len(body) <= _LARGE:
                return look(body)
            async with self._one:  # where it keeps nobody else waiting
                return await asyncio.to_thread(look, body)

    async def _whole(self, request: web.Request, held: contextlib.AsyncExitStack) -> bytes:
        """The body. A large one takes one of few places, which ``held`` gives back when it was looked at."""
        body, is_large = bytearray(), False
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S) as deadline:
                held.callback(self._small.forget, deadline)
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > MAX_BODY:
                        raise _RefusedError(413, _TOO_LARGE)
                    if not is_large:
                        self._small.grows(deadline, len(chunk))
                    if len(body) > _LARGE and not is_large:
                        is_large = True
                        await held.enter_async_context(self._large)
                        self._small.forget(deadline)
                        deadline.reschedule(asyncio.get_running_loop().time() + _LARGE_S)
                self._small.forget(deadline)
        except (web.RequestPayloadError, ConnectionError):
            raise _RefusedError(400, "the review broke off") from None
        except TimeoutError:
            raise _RefusedError(408, "the review did not arrive in time; try again") from None
        return bytes(body)


def _review(content_type: str, body: bytes) -> Json:
    """The ``request`` of an AdmissionReview, with the fields that are used of the right types."""
    if content_type != "application/json":
        raise _RefusedError(415, "an AdmissionReview is application/json")
    try:
        json_cost.check(body, what="the review", max_values=_MAX_VALUES_IN_ALL)
        document = orjson.loads(body)
    except json_cost.CostError as error:
        raise _RefusedError(413, str(error)) from None
    except ValueError:
        raise _RefusedError(400, "the body is no JSON") from None
    if not isinstance(document, dict) or document.get("kind") != "AdmissionReview":
        raise _RefusedError(400, "the body is no AdmissionReview")
    if document.get("apiVersion") != _API_VERSION:
        raise _RefusedError(400, f"only {_API_VERSION} is understood")
    review = document.get("request")
    if not isinstance(review, dict):
        raise _RefusedError(400, "the AdmissionReview has no request")
    for name in ("uid", "operation"):
        if not isinstance(review.get(name), str) or not review[name]:
            raise _RefusedError(400, f"the request's {name} is no text")
    for name in ("namespace", "name", "subResource"):
        if not isinstance(review.get(name) or "", str):
            raise _RefusedError(400, f"the request's {name} is no text")
    for name in ("object", "oldObject", "kind"):
        if not isinstance(review.get(name) or {}, dict):
            raise _RefusedError(400, f"the request's {name} is no object")
    return review


def _allowed(*, warnings: list[str] | tuple[str, ...] = ()) -> Json:
    response: Json = {"allowed": True}
    if warnings:
        response["warnings"] = [text if len(text) <= _MAX_WARNING else text[:_MAX_WARNING] + " …" for text in warnings]
    return response


def _denied(message: str, *, warnings: list[str] | tuple[str, ...] = ()) -> Json:
    status = {"code": 422, "reason": "Invalid", "message": message}
    return {**_allowed(warnings=warnings), "allowed": False, "status": status}


def _inject(review: Json, settings: InjectionSettings, say: Callable[[str, object], None]) -> Json:
    kind = review.get("kind") or {}
    if kind.get("kind") != "Pod" or kind.get("group") or review.get("subResource") or review["operation"] != "CREATE":
        return _allowed()  # nothing can be added to a pod later
    pod = review.get("object") or {}
    try:
        injected = inject(pod, namespace=review.get("namespace") or "", settings=settings)
    except InjectionError as error:
        say("refused: %s", error)
        return _denied(str(error))
    except MalformedPodError as error:
        raise _RefusedError(400, str(error)) from None
    for warning in injected.warnings:
        say("%s", warning)  # controllers, who make most pods, show nobody what they are warned of
    response = _allowed(warnings=injected.warnings)
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
    made: Future[_Judged] = Future()
    try:
        problems, warnings, plugin = judge(new, name=review.get("name") or "unnamed")
        if plugin is not None:
            # Of an update the API server tells what it has stored, whatever the client left out.
            stored = {"uid": _uid(old if review["operation"] == "UPDATE" else new)}
            plugin = plugin.model_copy(update={"metadata": plugin.metadata.model_copy(update=stored)})
        made.set_result((problems, warnings, plugin))
    except Exception as error:  # noqa: BLE001 - it is logged where it is answered
        made.set_exception(error)
    return made.result


async def _validate(judged: _Judged | None, check_config: CheckConfig, check_permissions: CheckPermissions) -> Json:
    if judged is None:
        return _allowed()
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
        return _allowed(warnings=warnings)
    shown = [text if len(text) <= _MAX_SENTENCE else text[:_MAX_SENTENCE] + " …" for text in problems[:_MAX_PROBLEMS]]
    if len(problems) > _MAX_PROBLEMS:
        shown.append(f"and {len(problems) - _MAX_PROBLEMS} more")
    return _denied("; ".join(shown), warnings=warnings)


def _uid(found: Json) -> str | None:
    metadata = found.get("metadata")
    uid = metadata.get("uid") if isinstance(metadata, dict) else None
    return uid if isinstance(uid, str) else None


def _is_leaving(found: Json) -> bool:
    metadata = found.get("metadata")
    return isinstance(metadata, dict) and metadata.get("deletionTimestamp") is not None


def judge(document: Json, *, name: str = "unnamed") -> _Judged:
    """What is wrong with a ``WasmPlugin``, what is legal and risky, and the plugin itself where it can be read.

    Each is one sentence that begins with the field's path. Unknown fields are warnings: only a definition that is
    newer than this operator lets them come this far. ``name`` stands in where the document has none yet.
    """
    metadata = document.get("metadata")
    known = (
        {key: metadata[key] for key in _METADATA if metadata.get(key) is not None} if isinstance(metadata, dict) else {}
    )
    if _is_vast(document):
        return [f"spec: holds more than {_MAX_VALUES} values beside config"], [], None
    # Through JSON, because only there a bare number is no duration.
    spec = document.get("spec")
    config = spec.get("config") if isinstance(spec, dict) else None
    small = {**spec, "config": {}} if isinstance(spec, dict) and isinstance(config, dict) else spec
    text = orjson.dumps({**document, "spec": small, "metadata": {"name": name, **known}, "status": None})
    plugin: WasmPlugin | None = None
    problems: list[str] = []
    try:
        plugin = WasmPlugin.model_validate_json(text, by_alias=True, by_name=False)
        if isinstance(config, dict):
            plugin = _with_config(plugin, config, problems)
    except ValidationError as error:
        problems += map(str, sentences.problems(error))
    warnings = _unknown_fields(text)
    if isinstance(spec, dict):
        problems += _more_problems(spec)
        warnings += _risks(spec)
    return problems, warnings[:_MAX_PROBLEMS], plugin


def _with_config(plugin: WasmPlugin, settings: Json, problems: list[str]) -> WasmPlugin:
    """With its settings, which the model would parse once more; what is wrong with their size is a problem."""
    try:
        config = Config(settings)
        if len(config.data) > MAX_CONFIG:
            problems.append(f"spec.config: has more than {MAX_CONFIG} bytes")
        json_cost.check(config.data, what="spec.config:", max_values=MAX_CONFIG_VALUES)
    except json_cost.CostError as error:
        problems.append(str(error))
    except ValueError as error:
        problems.append(f"spec.config: {error}")
        return plugin
    return plugin.model_copy(update={"spec": plugin.spec.model_copy(update={"config": config})})


def _is_vast(document: Json) -> bool:
    """Whether it is so large that a sentence for each of its mistakes would be a danger of its own."""
    spec = document.get("spec")
    left: list[Any] = [document.get("metadata"), {**spec, "config": None} if isinstance(spec, dict) else spec]
    count = 0
    while left:
        node = left.pop()
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        count += len(children)
        if count > _MAX_VALUES:
            return True
        left.extend(children)
    return False


def _unknown_fields(text: bytes) -> list[str]:
    try:
        WasmPlugin.model_validate_json(text, extra="forbid", by_alias=True, by_name=False)
    except ValidationError as error:
        return [
            f"{where}: this version of Hookline knows no such field, and does nothing with it"
            for where in sentences.unknown_fields(error)
            if where != "spec.source.file"
        ]
    return []


def _at(node: Any, *names: str) -> Any:
    for name in names:
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _items(node: Any, *names: str) -> list[Any]:
    found = _at(node, *names)
    return found if isinstance(found, list) else []


def _more_problems(spec: Json) -> list[str]:
    """What the model does not say, because it also reads what machines wrote, and manifest folders."""
    problems = []
    if _at(spec, "source", "file") is not None:
        problems.append("spec.source.file: is for manifest folders only; a cluster has no files")
    reference = _at(spec, "source", "oci", "reference")
    if isinstance(reference, str) and reference:
        try:
            if isinstance(parse_reference(reference), LayoutReference):
                problems.append("spec.source.oci.reference: oci-layout: is for manifest folders only")
        except FetchError as error:
            problems.append(f"spec.source.oci.reference: {error}")
    url = _at(spec, "source", "http", "url")
    if isinstance(url, str) and not _has_host(url):
        problems.append("spec.source.http.url: names no host")
    if any(_items(spec, "verify", form) for form in ("keys", "ed25519", "keyless")):
        problems.append(
            "spec.verify: this version of Hookline cannot check signatures; "
            "pin the module with spec.sha256 or a digest reference instead"
        )
    problems += _selector_problems(_at(spec, "selector"))
    return problems


def _selector_problems(selector: Any) -> list[str]:
    labels = _at(selector, "matchLabels")
    problems = [_key_problem("matchLabels", key) for key in (labels if isinstance(labels, dict) else {})]
    for index, requirement in enumerate(_items(selector, "matchExpressions")):
        where = f"matchExpressions[{index}]"
        problems.append(_key_problem(f"{where}.key", _at(requirement, "key")))
        operator, values = _at(requirement, "operator"), _items(requirement, "values")
        # Tuples: what is no text may not be hashable either.
        if operator in ("In", "NotIn") and not values:
            problems.append(f"spec.selector.{where}.values: {operator} needs at least one value")
        if operator in ("Exists", "DoesNotExist") and values:
            problems.append(f"spec.selector.{where}.values: {operator} takes no values")
    return [problem for problem in problems if problem is not None]


def _key_problem(where: str, key: Any) -> str | None:
    return None if not isinstance(key, str) or _is_label_key(key) else f"spec.selector.{where}: {key!r:.80} is no label"


def _is_label_key(key: str) -> bool:
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    prefix = _LABEL_PREFIX.match(key)
    return _LABEL_NAME.fullmatch(key, prefix.end() if prefix else 0) is not None


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _risks(spec: Json) -> list[str]:
    warnings = []
    oci = _at(spec, "source", "oci")
    reference = _at(oci, "reference")
    if _at(oci, "insecure") is True:
        warnings.append(
            "spec.source.oci.insecure: the registry is spoken to in plain HTTP: whoever is on the way reads the "
            "credentials, and can change what a tag names"
        )
    if isinstance(reference, str) and _at(oci, "trackInterval") is None and _is_latest(reference):
        warnings.append(
            "spec.source.oci.reference: 'latest' is looked up when the resource changes, and not by itself; "
            "set trackInterval, or write a version"
        )
    warnings += [
        f"spec.failurePolicy.{cause}: with Open, a hook that decides lets calls pass unchecked"
        for cause in ("fetch", "config", "trap", "timeout", "result", "overload")
        if _at(spec, "failurePolicy", cause) == "Open" and not _only_observes(_items(spec, "hooks"))
    ]
    if _at(spec, "permissionsPolicy") == "Lenient":
        warnings.append(
            "spec.permissionsPolicy: with Lenient, a plugin runs without what it is not granted, and may decide "
            "without what it wanted to know"
        )
    useless = {*Permission} - {function.permission for function in HOST_FUNCTIONS.values()}
    asked = {each for each in _items(spec, "permissions") if isinstance(each, str)}
    warnings += [
        f"spec.permissions: {name} grants nothing in this version of Hookline" for name in sorted(asked & useless)
    ]
    return warnings


def _only_observes(hooks: list[Any]) -> bool:
    try:
        return bool(hooks) and all(parse_hook(hook).observes for hook in hooks)
    except ValueError:
        return False


def _is_latest(reference: str) -> bool:
    try:
        parsed = parse_reference(reference)
    except FetchError:
        return False
    return parsed.digest is None and parsed.tag == "latest"
