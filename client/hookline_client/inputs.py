"""What a proxy says of a call, as typed keyword arguments, and how that becomes the whole input of a hook.

A whole input, with every field of the contract and a request id, goes to the plugins byte for byte; one that lacks
something the sidecar has to write anew.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Required, TypedDict

from pydantic import BaseModel

from hookline_api.hooks import INPUTS, NORMALIZED, VERBATIM, Hook, HookContext, Outcome

_MAX_REQUEST_ID: Final = 256
"""Characters; the sidecar refuses a longer one, or answers with its own."""


class Context(TypedDict, total=False):
    """Who asks, and where; as ``hookline_api.hooks.HookContext``."""

    request_id: str | None
    client_id: str | None
    identity: str | None
    database: str | None
    branch: str | None
    attributes: dict[str, str]


class _Timed(TypedDict, total=False):
    timeout: float | None
    """Seconds for this call, instead of the client's."""


class Event(_Timed, total=False):
    """Of ``on_connect``, ``on_disconnect`` and ``metrics``."""

    hook_context: Context
    event: dict[str, Any]


class Query(_Timed, total=False):
    """Of ``pre_query``, ``rewrite`` and ``route``."""

    query: Required[str]
    normalized: str | None
    tables: Sequence[str]
    is_read_only: bool
    hook_context: Context


class Authorize(Query, total=False):
    """Of ``authorize``."""

    identity: dict[str, Any] | None
    action: str | None
    resource: str | None


class CacheGet(Query, total=False):
    """Of ``cache_get``."""

    key: Required[str]


class CacheSet(CacheGet, total=False):
    """Of ``cache_set``; ``value`` is sent as base64."""

    value: Required[bytes]
    ttl_ms: int | None


class PostQuery(Query, total=False):
    """Of ``post_query``: the query, and how it went, as ``hookline_api.hooks.Outcome``."""

    success: Required[bool]
    target_node: str | None
    elapsed_us: int
    response_bytes: int
    error: str | None


class Authenticate(_Timed, total=False):
    """Of ``authenticate``; names of headers in lower case. The sidecar makes a request id where none is named here."""

    headers: dict[str, str]
    username: str | None
    password: str | None
    client_ip: str | None
    database: str | None
    hook_context: Context


class Inputs:
    """Completes inputs. Request ids are made where there is none: one random word for each client, then numbers."""

    def __init__(self) -> None:
        self._name = os.urandom(8).hex()
        self._made = 0

    def complete(self, hook: Hook, given: Mapping[str, Any]) -> Any:
        """The whole input of these arguments, with a request id that is new where they have none."""
        whole = {**_DEFAULTS[hook], **given}
        whole.pop("timeout", None)
        if "hook_context" in whole:
            whole["hook_context"] = context = {**_CONTEXT, **whole["hook_context"]}
            if not context["request_id"] and hook is not Hook.AUTHENTICATE:  # there it may be among the headers
                self._made += 1
                context["request_id"] = f"{self._name}-{self._made:x}"
            if "normalized" in whole and whole["query"] and not whole["normalized"]:
                whole["normalized"] = whole["query"]
                context["attributes"] = {**context["attributes"], NORMALIZED: VERBATIM}
        if hook is Hook.CACHE_SET:
            whole["value"] = base64.b64encode(whole["value"]).decode()
        if hook is Hook.POST_QUERY:
            return [whole, {name: whole.pop(name) for name in _OUTCOME if name in whole}]
        return whole


def plain(given: Any) -> Any:
    """An input as JSON can be made of it: models of the contract become their fields."""
    if isinstance(given, BaseModel):
        return given.model_dump()
    if isinstance(given, list | tuple):
        return [plain(each) for each in given]
    return given


def request_id_of(hook: Hook, given: Any) -> str | None:
    """The request id that the answer has to bear; None where the sidecar makes one."""
    if hook is Hook.POST_QUERY and isinstance(given, list) and given:
        given = given[0]
    found = _in(given, "hook_context", "request_id")
    if hook is Hook.AUTHENTICATE and not found:
        found = _in(given, "headers", "x-request-id")
    return found if isinstance(found, str) and 0 < len(found) <= _MAX_REQUEST_ID else None


def _in(given: Any, part: str, name: str) -> Any:
    inner = given.get(part) if isinstance(given, dict) else None
    return inner.get(name) if isinstance(inner, dict) else None


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    return {
        name: info.get_default(call_default_factory=True, validated_data={})
        for name, info in model.model_fields.items()
        if not info.is_required()
    }


_CONTEXT: Final = _defaults(HookContext)
_OUTCOME: Final = tuple(Outcome.model_fields)
_DEFAULTS: Final[dict[Hook, dict[str, Any]]] = {
    hook: {name: {} if isinstance(value, HookContext) else value for name, value in _defaults(model).items()}
    for hook, model in INPUTS.items()
    if model is not None
}
_DEFAULTS[Hook.POST_QUERY] |= _defaults(Outcome)
