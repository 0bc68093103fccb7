"""The inputs of the twelve hooks, as type checkers know them; at run time they are dictionaries.

The wire is described in docs/reference/hooks.md.
"""

from __future__ import annotations

from typing import Any, TypedDict


class HookContext(TypedDict):
    """What comes with every call."""

    request_id: str
    client_id: str | None
    identity: str | None
    database: str | None
    branch: str | None
    attributes: dict[str, str]


class Query(TypedDict):
    """A statement: the input of pre_query, rewrite and route."""

    query: str
    normalized: str
    tables: list[str]
    is_read_only: bool
    hook_context: HookContext


class CacheGetInput(Query):
    """Of cache_get."""

    key: str


class CacheSetInput(CacheGetInput):
    """Of cache_set. The value is base64."""

    value: str
    ttl_ms: int | None


class AuthorizeInput(Query):
    """Of authorize."""

    identity: dict[str, Any] | None
    action: str
    resource: str


class AuthenticateInput(TypedDict):
    """Of authenticate."""

    headers: dict[str, str]
    username: str
    password: str | None
    client_ip: str
    database: str | None


class Outcome(TypedDict):
    """What became of a statement: post_query gets a list of the query and this."""

    success: bool
    target_node: str | None
    elapsed_us: int
    response_bytes: int
    error: str | None


class EventInput(TypedDict):
    """Of metrics, on_connect and on_disconnect."""

    hook_context: HookContext
    event: dict[str, Any]


Answer = dict[str, Any] | None
"""What a hook's function answers; None for the hook's default. custom_hook may answer any JSON."""
