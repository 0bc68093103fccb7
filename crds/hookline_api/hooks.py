"""The twelve hooks: their names, what a proxy sends to each, and what the chain answers.

The shapes are those of ``docs/author/guest-abi.md`` (HeliosDB-Proxy's plugin system, "Feature 11"). A guest may
answer in either of its two dialects; the proxy always gets the ``action`` dialect that is modelled here.

The models describe and document; the hook path itself checks inputs with tables that the runtime derives
from them once, because a full validation would cost more than most plugins.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from hookline_api.text import did_you_mean


class Hook(StrEnum):
    """A named point at which the proxy asks. The value is the export's name and the last part of the URL."""

    AUTHENTICATE = "authenticate"
    AUTHORIZE = "authorize"
    PRE_QUERY = "pre_query"
    REWRITE = "rewrite"
    ROUTE = "route"
    CACHE_GET = "cache_get"
    CACHE_SET = "cache_set"
    POST_QUERY = "post_query"
    METRICS = "metrics"
    ON_CONNECT = "on_connect"
    ON_DISCONNECT = "on_disconnect"
    CUSTOM = "custom_hook"

    @property
    def observes(self) -> bool:
        """True where all plugins run off the reply's path and nothing is decided."""
        return self in OBSERVERS


OBSERVERS: Final = frozenset({Hook.POST_QUERY, Hook.METRICS, Hook.ON_CONNECT, Hook.ON_DISCONNECT})

# Spellings that manifests in the field use, in any case (docs/author/guest-abi.md, "Describing itself").
_SPELLINGS: Final = {
    "prequery": Hook.PRE_QUERY, "postquery": Hook.POST_QUERY, "auth": Hook.AUTHENTICATE,
    "cacheget": Hook.CACHE_GET, "cacheset": Hook.CACHE_SET, "routing": Hook.ROUTE,
    "connect": Hook.ON_CONNECT, "disconnect": Hook.ON_DISCONNECT, "custom": Hook.CUSTOM,
} | {hook.value: hook for hook in Hook}  # fmt: skip


def hook_spellings() -> frozenset[str]:
    """Every accepted spelling, in lower case."""
    return frozenset(_SPELLINGS)


def parse_hook(name: object) -> Hook:
    """The hook of any accepted spelling, in any case; raises ValueError that lists the twelve names."""
    hook = _SPELLINGS.get(name.lower()) if isinstance(name, str) else None
    if hook is None:
        raise ValueError(f"{name!r:.60} is not a hook{did_you_mean(name, Hook)}; the hooks are {', '.join(Hook)}")
    return hook


class _Shape(BaseModel):
    model_config = ConfigDict(extra="allow", defer_build=True)


NORMALIZED: Final = "hookline.normalized"
"""An attribute that says where ``normalized`` comes from, where that is not the proxy."""
VERBATIM: Final = "verbatim"
"""Its value: ``normalized`` is the query's own text."""

REWRITTEN_BY: Final = "hookline.rewritten_by"
"""An attribute that names the plugin that rewrote the query."""


class Attribute(NamedTuple):
    """One of the attributes that plugins agree about."""

    meaning: str
    sent_by: str
    example: str


_PROXY: Final = "the proxy"
ATTRIBUTES: Final[dict[str, Attribute]] = {
    "tenant_id": Attribute(
        "the tenant that the client belongs to: the identity's `tenant_id`", "the proxy; `/v1/auth`", "acme"
    ),
    "identity.roles": Attribute(
        "the identity's `roles`, with commas between and nothing else", "the proxy; `/v1/auth`", "reader,writer"
    ),
    "client_ip": Attribute("the client's address, without a port", "the proxy; `/v1/auth`", "10.0.0.7"),
    "application_name": Attribute("what the client calls itself; `match.applications` reads it", _PROXY, "psql"),
    "helios.ai_traffic": Attribute("`true` where the statement comes from an AI agent", _PROXY, "true"),
    "helios.agent_id": Attribute("which agent; some plugins read it as `agent_id`", _PROXY, "support-bot"),
    "helios.model_id": Attribute("which model the agent runs; some plugins read it as `model_id`", _PROXY, "m-large"),
    "agent_id": Attribute("as `helios.agent_id`", _PROXY, "support-bot"),
    "model_id": Attribute("as `helios.model_id`", _PROXY, "m-large"),
    "helios.vector_node": Attribute("the node that a plugin may route searches of vectors to", _PROXY, "vec-1"),
    "helios.region": Attribute("the region that the client is in, or asks for", _PROXY, "eu-west"),
    NORMALIZED: Attribute(
        "`verbatim` where `normalized` is the query's own text, because nobody normalized it", "Hookline", VERBATIM
    ),
    REWRITTEN_BY: Attribute(
        "the plugin that rewrote the query; `tables` may be out of date then", "Hookline", "row-policy"
    ),
}
"""By name. A proxy may send any others, which reach plugins as they are; names that begin with ``hookline.`` are
Hookline's. Only what a proxy sends is there: a plugin that judges by one has to say what it does without it."""

Text = Annotated[
    str,
    BeforeValidator(lambda value: "" if value is None else value),
    WithJsonSchema({"type": ["string", "null"]}),
]
"""A string that a guest always finds. HeliosDB's SDK reads it into a ``String``: a null there fails its whole input.

A proxy may leave it out or send null. Either means that it is empty, unless its field says otherwise.
"""


class HookContext(_Shape):
    """Who asks, and where: the same for every hook of one statement."""

    request_id: Text = ""
    """Stays the same over every hook of one statement; made by the sidecar where the proxy sends none."""
    client_id: str | None = None
    identity: str | None = None
    """The user's name, as the proxy knows it."""
    database: str | None = None
    branch: str | None = None
    attributes: dict[str, str] = Field(default_factory=dict)
    """Anything else that plugins read; ``ATTRIBUTES`` has the names that they agree about."""


class QueryInput(_Shape):
    """Input of ``pre_query``, ``rewrite`` and ``route``."""

    query: str
    """The statement, as the client sent it."""
    normalized: Text = ""
    """The statement without its literals. Where the proxy does not compute it, and after a rewrite, guests find the
    query's own text here, and the attribute ``hookline.normalized`` is ``verbatim``."""
    tables: list[str] = Field(default_factory=list)
    is_read_only: bool = False
    hook_context: HookContext = Field(default_factory=HookContext)


class Identity(_Shape):
    """Who a client is: what ``authenticate`` answers, and ``authorize`` is asked with."""

    user_id: str
    """Stays the same for this client, and is nobody else's."""
    username: str
    """For people, and as the user's name in ``hook_context.identity``."""
    roles: list[str] = Field(default_factory=list)
    """What the client may act as; a role has no comma. In later hooks it is the attribute ``identity.roles``."""
    tenant_id: str | None = None
    """The tenant that the client belongs to; in later hooks it is the attribute of that name."""
    claims: dict[str, Any] = Field(default_factory=dict)
    """Anything else that was proven of the client, such as the claims of a token."""


class AuthorizeInput(QueryInput):
    """Input of ``authorize``."""

    identity: Identity | None = None
    action: Text = ""
    """What is to be done: a verb of the proxy's, or an HTTP method. Empty where the proxy does not say."""
    resource: Text = ""
    """To what: a table, or an HTTP path. Empty where the proxy does not say."""


class CacheGetInput(QueryInput):
    """Input of ``cache_get``."""

    key: str


class CacheSetInput(CacheGetInput):
    """Input of ``cache_set``."""

    value: str
    """The bytes to store, base64."""
    ttl_ms: int | None = Field(default=None, ge=0)


class AuthenticateInput(_Shape):
    """Input of ``authenticate``."""

    headers: dict[str, str] = Field(default_factory=dict)
    """Names in lower case; repeated headers joined with a comma."""
    username: Text = ""
    password: str | None = None
    client_ip: Text = ""
    database: str | None = None
    hook_context: HookContext = Field(default_factory=HookContext)
    """Its ``request_id`` is the header ``x-request-id`` where the proxy names it there alone."""


class Outcome(_Shape):
    """How a statement went; the second element of ``post_query``'s input."""

    success: bool
    target_node: str | None = None
    elapsed_us: int = Field(default=0, ge=0)
    response_bytes: int = Field(default=0, ge=0)
    error: str | None = None


class EventInput(_Shape):
    """Input of ``on_connect``, ``on_disconnect`` and ``metrics``."""

    hook_context: HookContext = Field(default_factory=HookContext)
    event: dict[str, Any] = Field(default_factory=dict)


INPUTS: Final[dict[Hook, type[_Shape] | None]] = {
    Hook.AUTHENTICATE: AuthenticateInput,
    Hook.AUTHORIZE: AuthorizeInput,
    Hook.PRE_QUERY: QueryInput,
    Hook.REWRITE: QueryInput,
    Hook.ROUTE: QueryInput,
    Hook.CACHE_GET: CacheGetInput,
    Hook.CACHE_SET: CacheSetInput,
    Hook.POST_QUERY: QueryInput,  # the first element; the second is an Outcome
    Hook.METRICS: EventInput,
    Hook.ON_CONNECT: EventInput,
    Hook.ON_DISCONNECT: EventInput,
    Hook.CUSTOM: None,  # whatever the proxy sends
}
"""The model of each hook's input object; None where any JSON is accepted."""


class _Decision(_Shape):
    plugin: str | None = None
    """Who decided; null where nobody did."""
    request_id: str | None = None
    bundle: str | None = None
    """The version of the bundle that decided."""
    failure: Literal["fetch", "verify", "config", "trap", "timeout", "result", "overload", "store"] | None = None
    """Present where a plugin failed and its failure policy decided: the cause."""


class Continue(_Decision):
    """Go on with the query as it is."""

    action: Literal["continue"]


class Rewrite(_Decision):
    """Go on with another query."""

    action: Literal["rewrite"]
    value: str
    """The new statement."""


class Block(_Decision):
    """Refuse the statement."""

    action: Literal["block"]
    value: str
    """The reason, for the client."""


class Cached(_Decision):
    """Answer the client with these bytes, and do not run the query."""

    action: Literal["cached"]
    data: list[Annotated[int, Field(ge=0, le=255)]] | None = None
    """The bytes one by one; either this or ``data_base64``, as the plugin gave them."""
    data_base64: str | None = None


class Authenticated(_Decision):
    """The client is who ``identity`` says."""

    action: Literal["success"]
    identity: Identity


class Denied(_Decision):
    """The client's credentials are wrong."""

    action: Literal["denied"]
    message: str


class Defer(_Decision):
    """No plugin has an opinion; the proxy's own rules apply."""

    action: Literal["defer"]


class Allow(_Decision):
    """The action may be done."""

    action: Literal["allow"]
    reason: str | None = None


class Deny(_Decision):
    """The action may not be done."""

    action: Literal["deny"]
    reason: str | None = None


class RouteTo(_Decision):
    """Send the statement to the default node, the primary, or any standby."""

    action: Literal["default", "primary", "standby"]


class RouteTarget(_Decision):
    """Send the statement to a node or a branch by name."""

    action: Literal["node", "branch"]
    target: str


class RouteBlock(_Decision):
    """Do not route the statement at all."""

    action: Literal["block"]
    reason: str


class Hit(_Decision):
    """Answer from the cache."""

    action: Literal["hit"]
    data: list[Annotated[int, Field(ge=0, le=255)]] | None = None
    data_base64: str | None = None
    ttl_ms: int | None = None


class Miss(_Decision):
    """The cache has nothing."""

    action: Literal["miss"]


class Store(_Decision):
    """Store the value."""

    action: Literal["store"]
    ttl_ms: int | None = None


class Skip(_Decision):
    """Do not store the value."""

    action: Literal["skip"]


class Accepted(_Decision):
    """The observers will run; nothing is decided."""

    action: Literal["accepted"]


class Answered(_Decision):
    """The first answer of a custom hook that was not empty."""

    action: Literal["answered"]
    value: Any


class Empty(_Decision):
    """No plugin answered the custom hook."""

    action: Literal["empty"]


RESULTS: Final[dict[Hook, tuple[type[_Decision], ...]]] = {
    Hook.AUTHENTICATE: (Authenticated, Denied, Defer),
    Hook.AUTHORIZE: (Allow, Deny, Defer),
    Hook.PRE_QUERY: (Continue, Rewrite, Block, Cached),
    Hook.REWRITE: (Continue, Rewrite, Block),
    Hook.ROUTE: (RouteTo, RouteTarget, RouteBlock),
    Hook.CACHE_GET: (Hit, Miss),
    Hook.CACHE_SET: (Store, Skip),
    Hook.CUSTOM: (Answered, Empty, Block),
} | dict.fromkeys(sorted(OBSERVERS), (Accepted,))
"""What each hook may answer to the proxy, told apart by ``action``."""

DEFAULTS: Final[dict[Hook, str]] = {
    Hook.AUTHENTICATE: "defer",
    Hook.AUTHORIZE: "defer",
    Hook.PRE_QUERY: "continue",
    Hook.REWRITE: "continue",
    Hook.ROUTE: "default",
    Hook.CACHE_GET: "miss",
    Hook.CACHE_SET: "store",
    Hook.CUSTOM: "empty",
} | dict.fromkeys(OBSERVERS, "accepted")
"""The action where nobody decides: a plugin, the whole chain, or an open failure policy has no opinion."""


def closed(hook: Hook, message: str) -> dict[str, str]:
    """The refusing answer of a hook, with why: what a failure gives where its policy is closed.

    It is one of ``RESULTS``; the client of the proxy may read the message.
    """
    match hook:
        case Hook.AUTHENTICATE:
            return {"action": "denied", "message": message}
        case Hook.AUTHORIZE:
            return {"action": "deny", "reason": message}
        case Hook.ROUTE:
            return {"action": "block", "reason": message}
        case Hook.CACHE_GET:
            return {"action": "miss"}  # what a failing guard did not check is not served
        case Hook.CACHE_SET:
            return {"action": "skip"}
        case _ if hook in OBSERVERS:
            return {"action": "accepted"}
        case _:
            return {"action": "block", "value": message}


MAX_CALLS: Final = 1024
"""Calls of one batch."""


class BatchCall(_Shape):
    """One call of a batch."""

    hook: Hook
    input: Any
    """What would be the body of this hook's own call."""


class BatchInput(_Shape):
    """Body of ``/v1/hooks:batch``."""

    calls: list[BatchCall] = Field(max_length=MAX_CALLS)


class Problem(BaseModel):
    """What is wrong with a call (RFC 9457)."""

    model_config = ConfigDict(defer_build=True)

    title: str
    status: int
    detail: str
    field: str | None = None
    """A path into the body, where one field is wrong."""


class BatchResult(_Shape):
    """Answer of ``/v1/hooks:batch``."""

    decisions: list[dict[str, Any] | Problem]
    """In the order of the calls: each hook's decision, which has ``action``, or a problem, which has ``status``."""
