"""Plugins for Hookline in Python: one function for each hook, which gets a dictionary and answers one.

    import hookline

    def pre_query(query: hookline.Query) -> hookline.Answer:
        return hookline.block("no") if "drop" in query["query"].lower() else None

    WitWorld = hookline.plugin(pre_query=pre_query)

In a component, ``host`` is Hookline's; in tests it is ``hookline.native``.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from hookline.types import (
    Answer,
    AuthenticateInput,
    AuthorizeInput,
    CacheGetInput,
    CacheSetInput,
    EventInput,
    HookContext,
    Outcome,
    Query,
)

if TYPE_CHECKING:
    from collections.abc import Callable

if sys.platform == "wasi" or TYPE_CHECKING:
    from wit_world.imports import host
else:
    try:
        from wit_world.imports import host  # while a component is made
    except ImportError:
        from hookline import native as host

__all__ = [
    "GO_ON", "Answer", "AuthenticateInput", "AuthorizeInput", "CacheGetInput", "CacheSetInput", "EventInput",
    "HookContext", "Outcome", "Query", "block", "config", "error_text", "fetch", "host", "plugin", "query", "rewrite",
]  # fmt: skip

GO_ON: dict[str, Any] = {"action": "continue"}
"""Go on as if the plugin were not there (pre_query, rewrite)."""


def block(reason: str) -> dict[str, Any]:
    """Refuse the statement (pre_query, rewrite), and tell the client why."""
    return {"action": "block", "value": reason}


def rewrite(sql: str) -> dict[str, Any]:
    """Go on with another statement (pre_query, rewrite)."""
    return {"action": "rewrite", "value": sql}


def config(path: str = "", otherwise: Any = None) -> Any:
    """The plugin's setting at a path with dots; ``otherwise`` where there is none."""
    found = host.get_config(path)
    return otherwise if found is None else json.loads(found)


def fetch(request: dict[str, Any]) -> dict[str, Any]:
    """Ask a host that spec.egress allows. The response, or an object with ``error``."""
    found: dict[str, Any] = json.loads(host.http_fetch(json.dumps(request)))
    return found


def query(source: str, sql: str, parameters: list[Any] | None = None) -> dict[str, Any]:
    """Ask a database of spec.dataSources. The result, or an object with ``error``."""
    found: dict[str, Any] = json.loads(host.query_execute(source, sql, json.dumps(parameters or [])))
    return found


def error_text(error: BaseException) -> str:
    """What a host function says that has an error: it raises one with the text as its ``value``."""
    return str(getattr(error, "value", error))


def plugin(**hooks: Callable[[Any], Answer]) -> type:
    """The class that a component is made of: the functions of its hooks, by their names.

    What one raises fails the call.
    """

    class WitWorld:
        def call(self, hook: str, input: str) -> str:  # noqa: A002 - the world's name for it
            handler = hooks.get(hook)
            if handler is None:
                host.fail(f"it has no function for the hook {hook}")
                return ""
            try:
                answer = handler(json.loads(input) if input else None)
            except Exception as error:
                if getattr(error, "ended", False):
                    raise  # in tests, what fail() raises
                host.fail(_told(error))
                return ""
            return "" if answer is None else json.dumps(answer)

    return WitWorld


def _told(error: Exception) -> str:
    frame, where = error.__traceback__, ""
    while frame is not None:
        code = frame.tb_frame.f_code
        where = f" (in {code.co_name}, line {frame.tb_lineno} of {code.co_filename.rpartition('/')[2]})"
        frame = frame.tb_next
    return f"{type(error).__name__}: {error_text(error)}{where}"
