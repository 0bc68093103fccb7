"""A decision, as a proxy wants to read it, and the check that what came is one.

The check is made of tables, which come from the contract's models once: every required field is there, every
field has its type. A full validation by the models would cost more than the call.
"""

from __future__ import annotations

import base64
import types
import typing
from typing import Any, Final, Generic, TypeVar

from hookline_api.hooks import DEFAULTS, RESULTS, Hook, Identity, closed
from hookline_client.errors import HookError, MalformedError

Action = TypeVar("Action", bound=str, covariant=True)  # noqa: PLC0105 - read as a word
_Shape = tuple[tuple[str, frozenset[type], bool], ...]


class Decision(Generic[Action]):
    """What a hook was answered; it does not change. ``Action`` are the words that ``action`` may be."""

    __slots__ = ("_data", "_fields")

    def __init__(self, fields: dict[str, Any], data: bytes | None = None) -> None:
        self._fields = fields
        self._data = data

    @property
    def action(self) -> Action:
        """What to do, a word of docs/reference/hooks.md."""
        found: Action = self._fields["action"]
        return found

    @property
    def refuses(self) -> bool:
        """Whether the client is to be refused: ``block``, ``deny`` or ``denied``."""
        return self._fields["action"] in _REFUSALS

    @property
    def reason(self) -> str | None:
        """Why, in words for the client, whatever this hook calls the field."""
        for name in _REASONS.get(self._fields["action"], ()):
            if name in self._fields:
                found: str | None = self._fields[name]
                return found
        return None

    @property
    def value(self) -> Any:
        """Of ``rewrite``: the new statement. Of ``answered``: any JSON."""
        return self._fields.get("value")

    @property
    def data(self) -> bytes | None:
        """Of ``cached`` and ``hit``: the bytes for the client."""
        return self._data

    @property
    def ttl_ms(self) -> int | None:
        """Of ``hit`` and ``store``, in milliseconds; None where nothing was said."""
        return self._fields.get("ttl_ms")

    @property
    def target(self) -> str | None:
        """Of ``node`` and ``branch``: its name."""
        return self._fields.get("target")

    @property
    def identity(self) -> dict[str, Any] | None:
        """Of ``success``: ``user_id, username, roles, tenant_id, claims``."""
        return self._fields.get("identity")

    @property
    def plugin(self) -> str | None:
        """Who decided; None where no plugin did."""
        return self._fields.get("plugin")

    @property
    def request_id(self) -> str | None:
        """To be sent with the statement's next hook; None where the sidecar could not be asked without one."""
        return self._fields.get("request_id")

    @property
    def bundle(self) -> str | None:
        """The version that decided; None where the sidecar did not."""
        return self._fields.get("bundle")

    @property
    def failure(self) -> str | None:
        """Why this is the answer of a failure policy: the sidecar's (``bundle`` is set), or the client's."""
        return self._fields.get("failure")

    @property
    def detail(self) -> str | None:
        """What happened, where the client's policy decided; for the proxy's log, not for its client."""
        return self._fields.get("detail")

    def as_dict(self) -> dict[str, Any]:
        """As it came: the fields of the model in ``hookline_api.hooks.RESULTS``."""
        return dict(self._fields)

    def __repr__(self) -> str:
        return f"Decision({self._fields!r:.500})"


_REFUSALS: Final = frozenset({"block", "deny", "denied"})
_REASONS: Final = {"block": ("value", "reason"), "denied": ("message",), "deny": ("reason",), "allow": ("reason",)}


def instead(hook: Hook, error: HookError, request_id: str | None, *, refuses: bool) -> Decision[Any]:
    """What a hook answers where the sidecar could not be asked; the words are docs/reference/hooks.md's."""
    why = f"the hook could not be asked ({error.cause})"  # in a word: the client reads it
    fields: dict[str, Any] = {**(closed(hook, why) if refuses else {"action": DEFAULTS[hook]})}
    fields |= {"plugin": None, "request_id": request_id, "bundle": None}
    fields |= {"failure": error.cause, "detail": str(error)}
    return Decision(fields)


def read_decision(hook: Hook, request_id: str | None, answer: Any) -> Decision[Any]:
    """The decision that a parsed answer is. Raises MalformedError, also where it answers another request."""
    action = answer.get("action") if type(answer) is dict else None
    shape = _SHAPES[hook].get(action) if type(action) is str else None
    if shape is None:
        raise MalformedError(f"the answer's action {action!r:.60} is not one of {hook}'s")
    _check(answer, shape)
    if request_id is not None and answer.get("request_id") != request_id:
        raise MalformedError("the answer is one to another request")
    if action == "success":
        _check(answer["identity"], _IDENTITY)
        if not all(type(role) is str for role in answer["identity"].get("roles") or ()):
            raise MalformedError("the identity's roles are not strings")
    return Decision(answer, _bytes(answer)) if action in _WITH_BYTES else Decision(answer)


def _check(answer: dict[str, Any], shape: _Shape) -> None:
    for name, kinds, required in shape:
        found = answer.get(name)
        if found is None:
            if required:
                raise MalformedError(f"the answer lacks '{name}'")
        elif type(found) not in kinds:
            raise MalformedError(f"the answer's '{name}' has the wrong type")


def _bytes(answer: dict[str, Any]) -> bytes:
    encoded = answer.get("data_base64")
    try:
        return base64.b64decode(encoded, validate=True) if encoded is not None else bytes(answer["data"])
    except (KeyError, TypeError, ValueError):
        raise MalformedError("the answer holds no bytes, neither as 'data' nor as 'data_base64'") from None


def _shape(model: Any) -> _Shape:
    return tuple(
        (name, kinds, info.is_required())
        for name, info in model.model_fields.items()
        if name != "action" and (kinds := _kinds(info.annotation))
    )


def _kinds(annotation: Any) -> frozenset[type]:
    """The types that JSON makes of it; none where anything will do."""
    is_union = typing.get_origin(annotation) in {types.UnionType, typing.Union}
    kinds = set()
    for option in typing.get_args(annotation) if is_union else (annotation,):
        origin = typing.get_origin(option) or option
        kinds.add(str if origin is typing.Literal else dict if origin is Identity else origin)
    return frozenset() if Any in kinds else frozenset(kinds)


_IDENTITY: Final = _shape(Identity)
_SHAPES: Final[dict[Hook, dict[str, _Shape]]] = {
    hook: {
        action: _shape(model) for model in models for action in typing.get_args(model.model_fields["action"].annotation)
    }
    for hook, models in RESULTS.items()
}
_WITH_BYTES: Final = frozenset({"cached", "hit"})
