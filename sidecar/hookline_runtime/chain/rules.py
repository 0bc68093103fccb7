"""What the plugins' answers on each hook come to: the table "The twelve hooks" of the design as code.

Each rule is one small function. It says what the decision is after one plugin's answer, and whether the chain stops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import orjson

from hookline_api.hooks import DEFAULTS, Hook
from hookline_runtime.call.decisions import Answer

if TYPE_CHECKING:
    from hookline_runtime.call.inputs import Call


class Speaker(Protocol):
    """A plugin that gave an answer."""

    name: str
    signature: bytes
    """What its answer ends with."""


Step = tuple[Speaker, Answer]
"""Who said something, and what."""


def first(call: Call, step: Step, so_far: Step | None) -> tuple[Step, bool]:  # noqa: ARG001 - a rule's shape
    """The first plugin that has an opinion decides."""
    return step, True


def deny_wins(call: Call, step: Step, so_far: Step | None) -> tuple[Step, bool]:  # noqa: ARG001 - a rule's shape
    """Any deny wins, else any allow."""
    denied = step[1].action == "deny"
    return (step if denied or so_far is None else so_far), denied


def rewriting(call: Call, step: Step, so_far: Step | None) -> tuple[Step, bool]:  # noqa: ARG001 - a rule's shape
    """A rewrite feeds the next plugin; anything else stops."""
    if step[1].action != "rewrite":
        return step, True
    call.rewrite(step[1].decision["value"], step[0].name)
    return step, False


def storing(call: Call, step: Step, so_far: Step | None) -> tuple[Step, bool]:  # noqa: ARG001 - a rule's shape
    """Each plugin may veto, or change the time to live for the next one."""
    if step[1].action == "skip":
        return step, True
    call.change_ttl(step[1].decision["ttl_ms"])
    return step, False


RULES: Final = {
    Hook.AUTHENTICATE: first,
    Hook.AUTHORIZE: deny_wins,
    Hook.PRE_QUERY: rewriting,
    Hook.REWRITE: rewriting,
    Hook.ROUTE: first,
    Hook.CACHE_GET: first,
    Hook.CACHE_SET: storing,
    Hook.CUSTOM: first,
}
REWRITING: Final = frozenset(hook for hook, rule in RULES.items() if rule is rewriting)
"""Hooks on which a plugin's answer changes the call for those behind it."""
NOBODY: Final = {hook: orjson.dumps({"action": action})[:-1] for hook, action in DEFAULTS.items()}
"""What a hook comes to where no plugin has an opinion: JSON without its closing brace."""
