"""What a guest answered, as a decision: both dialects read, one spoken (``docs/author/heliosdb.md``).

HeliosDB-Proxy's host reads ``action/value/data``, its SDK writes ``kind/sql/reason/bytes``. Either is accepted
of any guest; the proxy always gets the first. A result without its action, with an unknown one, or lacking a
required field is a failure with cause ``result``, never a silent default.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

import orjson

from hookline_api import json_cost
from hookline_api.hooks import DEFAULTS, OBSERVERS, Hook
from hookline_runtime.errors import ResultError

if TYPE_CHECKING:
    from collections.abc import Callable

Decision = dict[str, Any]
"""An answer of ``hookline_api.hooks.RESULTS`` as plain data; ``action`` is always there."""


class Answer:
    """A decision as data, and as JSON without its closing brace: who decided, and when, is spliced on."""

    __slots__ = ("action", "decision", "head")

    def __init__(self, decision: Decision, head: bytes | None = None) -> None:
        self.action: str = decision["action"]
        self.decision = decision
        self.head = orjson.dumps(decision)[:-1] if head is None else head


_MAX_TTL_MS: Final = 2**53
_MAX_CONTAINERS: Final = 20_000
_MAX_NAMES: Final = 80_000
"""Names in a result. A mebibyte of the shortest ones has some more; each takes a dictionary's entry and a text."""
_MAX_RESULT_VALUES: Final = 2**20
"""Values and names: a mebibyte of data as an array of numbers, which is four of JSON; more of it is ``data_base64``."""


def read_answer(hook: Hook, raw: bytes | None) -> Answer | None:
    """A guest's answer in the ``action`` dialect; None where it has no opinion. Raises ResultError."""
    if raw is None or hook in OBSERVERS:
        return None
    if hook is Hook.CUSTOM:
        return _custom(raw)
    result = _parse(raw)
    if not isinstance(result, dict):
        raise ResultError("the result is not a JSON object")
    action = result.get("action", result.get("kind"))
    if action is None:
        raise ResultError("the result has neither 'action' nor 'kind'")
    reader = _READERS[hook].get(action) if isinstance(action, str) else None
    if reader is None:
        # Without the word: it is the guest's, which may have made it of a Secret or of somebody's query.
        raise ResultError(f"the result's action is not one of {', '.join(_READERS[hook])}")
    decision = reader(result)
    if action == DEFAULTS[hook] and len(decision) == 1:
        return None
    return Answer(decision, raw[:-1] if decision == result and _is_plain(raw, result) else None)


def _is_plain(raw: bytes, result: dict[str, Any]) -> bool:
    """Whether the guest's own bytes say the decision and nothing else, to any reader of JSON.

    Readers differ where a name stands twice. Without a backslash each quotation mark begins or ends a name or a text,
    so counting them finds a second one, whatever space is around it.
    """
    texts = sum(type(value) is str for value in result.values())
    return (
        raw.endswith(b"}")
        and b"\\" not in raw
        and raw.count(b'"') == 2 * (len(result) + texts)
        and all(type(value) is str or type(value) is int for value in result.values())
    )


def _parse(raw: bytes) -> Any:
    # What is parsed holds the interpreter, outside of the guest's deadline: a megabyte of "[],[],…" for a tenth of
    # a second. Bytes of data are numbers, and cheap.
    if raw.count(b"[") + raw.count(b"{") > _MAX_CONTAINERS:
        raise ResultError(f"the result has more than {_MAX_CONTAINERS} brackets")
    if len(raw) > _MAX_NAMES:
        if json_cost.names(raw, at_most=_MAX_NAMES) > _MAX_NAMES:
            raise ResultError(f"the result has more than {_MAX_NAMES} names")
        if json_cost.values(raw, at_most=_MAX_RESULT_VALUES) > _MAX_RESULT_VALUES:
            raise ResultError(f"the result has more than {_MAX_RESULT_VALUES} values; give data as data_base64")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "UTF-8" in error.msg:  # orjson's words are about Python's texts
            raise ResultError("the result is not valid JSON: it is not UTF-8") from None
        raise ResultError(f"the result is not valid JSON: {str(error)[:120]}") from None


def _custom(raw: bytes) -> Answer | None:
    value = _parse(raw) if raw else None
    return None if value is None else Answer({"action": "answered", "value": _writable(value)})


def _writable(value: Any) -> Any:
    # What is read may be nested four times as deep as what can be written, and the proxy gets this as it is.
    try:
        orjson.dumps([[[[value]]]])  # as deep as it will stand in any answer or question that is made of it
    except orjson.JSONEncodeError:
        raise ResultError("the result is nested too deeply") from None
    return value


def _text(result: dict[str, Any], *names: str) -> str:
    for name in names:
        if isinstance(result.get(name), str):
            text: str = result[name]
            return text
    raise ResultError(f"the result lacks {' or '.join(repr(name) for name in names)}, a string")


def _plain(action: str) -> Callable[[dict[str, Any]], Decision]:
    return lambda _: {"action": action}


def _reasoned(action: str) -> Callable[[dict[str, Any]], Decision]:
    def read(result: dict[str, Any]) -> Decision:
        reason = result.get("reason")
        if reason is not None and not isinstance(reason, str):
            raise ResultError("the result's 'reason' is not a string")
        return {"action": action} | ({"reason": reason} if reason is not None else {})

    return read


def _rewrite(result: dict[str, Any]) -> Decision:
    return {"action": "rewrite", "value": _text(result, "value", "sql")}


def _block(result: dict[str, Any]) -> Decision:
    return {"action": "block", "value": _text(result, "value", "reason")}


def _target(action: str) -> Callable[[dict[str, Any]], Decision]:
    return lambda result: {"action": action, "target": _text(result, "target")}


def _bytes(action: str) -> Callable[[dict[str, Any]], Decision]:
    def read(result: dict[str, Any]) -> Decision:
        decision: Decision = {"action": action}
        encoded = result.get("data_base64")
        if encoded is not None:
            try:
                base64.b64decode(encoded, validate=True)
            except (TypeError, ValueError, binascii.Error):
                raise ResultError("the result's 'data_base64' is not base64") from None
            decision["data_base64"] = encoded
        else:
            data = result.get("data", result.get("bytes"))
            try:
                decision["data"] = list(bytes(data)) if isinstance(data, list) else None
            except (TypeError, ValueError):
                decision["data"] = None
            if decision["data"] is None:
                raise ResultError("the result lacks 'data', an array of bytes, or 'data_base64'")
        return decision | _ttl(result)

    return read


def _ttl(result: dict[str, Any]) -> Decision:
    ttl = result.get("ttl_ms")
    if ttl is None:
        return {}
    if type(ttl) is not int or not 0 <= ttl <= _MAX_TTL_MS:
        raise ResultError("the result's 'ttl_ms' is not a number of milliseconds")
    return {"ttl_ms": ttl}


def _success(result: dict[str, Any]) -> Decision:
    identity = result.get("identity")
    if not isinstance(identity, dict):
        raise ResultError("the result lacks 'identity', an object")
    for name in ("user_id", "username"):
        if not isinstance(identity.get(name), str) or not identity[name]:
            raise ResultError(f"the result's identity lacks '{name}', a string")
    roles, tenant, claims = identity.get("roles"), identity.get("tenant_id"), identity.get("claims")
    if roles is not None and not (isinstance(roles, list) and all(isinstance(role, str) for role in roles)):
        raise ResultError("the result's identity.roles is not an array of strings")
    if tenant is not None and not isinstance(tenant, str):
        raise ResultError("the result's identity.tenant_id is not a string")
    if claims is not None and not isinstance(claims, dict):
        raise ResultError("the result's identity.claims is not an object")
    return {
        "action": "success",
        "identity": {
            "user_id": identity["user_id"],
            "username": identity["username"],
            "roles": roles or [],
            "tenant_id": tenant,
            "claims": _writable(claims) if claims else {},
        },
    }


_READERS: Final[dict[Hook, dict[str, Callable[[dict[str, Any]], Decision]]]] = {
    Hook.AUTHENTICATE: {
        "success": _success,
        "denied": lambda result: {"action": "denied", "message": _text(result, "message", "reason", "value")},
        "defer": _plain("defer"),
    },
    Hook.AUTHORIZE: {"allow": _reasoned("allow"), "deny": _reasoned("deny"), "defer": _plain("defer")},
    Hook.PRE_QUERY: {
        "continue": _plain("continue"), "rewrite": _rewrite, "block": _block, "cached": _bytes("cached"),
    },
    Hook.REWRITE: {"continue": _plain("continue"), "rewrite": _rewrite, "block": _block},
    Hook.ROUTE: {
        "default": _plain("default"),
        "primary": _plain("primary"),
        "standby": _plain("standby"),
        "node": _target("node"),
        "branch": _target("branch"),
        "block": lambda result: {"action": "block", "reason": _text(result, "reason", "value")},
    },
    Hook.CACHE_GET: {"hit": _bytes("hit"), "miss": _plain("miss")},
    Hook.CACHE_SET: {"store": lambda result: {"action": "store"} | _ttl(result), "skip": _plain("skip")},
}  # fmt: skip
