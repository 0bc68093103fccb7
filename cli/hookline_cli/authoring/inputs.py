"""What a hook is asked: JSON as the proxy sends it, or a statement alone."""

from __future__ import annotations

import json
from typing import Any, Final

from hookline_api.hooks import INPUTS, Hook
from hookline_api.text import readable
from hookline_artifacts.errors import ConfigError
from hookline_cli.authoring import texts

PAGE: Final = "docs/reference/hooks.md has the fields of each hook"


def read_input(text: str | None, hook: Hook) -> bytes:
    """The bytes that the hook is asked with. Raises ConfigError and FetchError."""
    if text is None:
        return _nothing(hook)
    raw = texts.from_argument(text, what="the input")
    try:
        given = raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"the input is not UTF-8: byte {error.start}") from None
    if hook is not Hook.CUSTOM and _has_query(hook) and not given.lstrip().startswith(("{", "[")):
        return _asking(hook, _statement(given))
    document = texts.parsed(raw, what="the input")
    if isinstance(document, str) and _has_query(hook):
        return _asking(hook, document)
    return raw.strip()


def _statement(given: str) -> str:
    """SQL as it is, or as a text in JSON."""
    text = given.strip()
    if text.startswith('"'):
        try:
            found = json.loads(text)
        except ValueError:
            return text  # SQL may begin with a name in quotation marks
        if isinstance(found, str):
            return found
    return text


def _has_query(hook: Hook) -> bool:
    model = INPUTS[hook]
    return model is not None and "query" in model.model_fields


def _nothing(hook: Hook) -> bytes:
    model = INPUTS[hook]
    required = [name for name, field in model.model_fields.items() if field.is_required()] if model else []
    if required:
        raise ConfigError(
            f"{hook.value} needs an input with {', '.join(required)}: give JSON, @FILE, - for stdin"
            f"{', or SQL alone' if required == ['query'] else ''}; {PAGE}"
        )
    return b"{}"


def _asking(hook: Hook, query: str) -> bytes:
    if hook is Hook.CACHE_SET:
        raise ConfigError(f"cache_set needs query, key and value: give them as JSON; {PAGE}")
    question: dict[str, Any] = {"query": query}
    if hook is Hook.CACHE_GET:
        question["key"] = query
    document = [question, {"success": True}] if hook is Hook.POST_QUERY else question
    try:
        return json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"the input has half of a surrogate pair: {readable(query, 60)}") from None
