"""The world ``hookline:plugin`` as data: what a component may import of its host, and what it exports.

Each function stands for one of the core ABI (``abi.HOST_FUNCTIONS``) and does the same, behind the same permission.
What is a pointer and a length there is a ``string`` here. The SDK's ``hookline.wit`` is written from this table.
"""

from __future__ import annotations

from typing import Final, NamedTuple

INTERFACE: Final = "hookline:plugin/host"
"""The only interface of Hookline's own that a component may import."""
EXPORT: Final = "call"
CALL_TYPE: Final = "func(hook: string, input: string) -> string"
LEVELS: Final = ("trace", "debug", "info", "warn", "error")
"""What ``log`` takes, in the order of the core ABI's numbers."""


class ComponentFunction(NamedTuple):
    """One function of the interface."""

    stands_for: tuple[str, str] | None
    """The function of the core ABI; None where there is none."""
    params: tuple[tuple[str, str], ...]
    """Names and types."""
    result: str | None
    numbers: str = ""
    """The core function's parameters in their order: names of ``params``, ``out`` for a place for the answer and
    ``most`` for its size; without it, all of ``params``."""
    is_hex: bool = False
    """Whether the answer is bytes, which are told in hexadecimal."""
    doc: str = ""

    @property
    def type(self) -> str:
        """As WIT writes it."""
        params = ", ".join(f"{name}: {kind}" for name, kind in self.params)
        return f"func({params})" + (f" -> {self.result}" if self.result else "")


_NOTHING: Final = "result<_, string>"
_TEXT: Final = "result<string, string>"
_PERHAPS: Final = "result<option<string>, string>"
_FLAG: Final = "result<bool, string>"

FUNCTIONS: Final[dict[str, ComponentFunction]] = {
    "log": ComponentFunction(
        ("hookline", "log"), (("level", "string"), ("text", "string")), None,
        doc="Write a line into the pod's log. The level is trace, debug, info, warn or error.",
    ),
    "fail": ComponentFunction(
        None, (("message", "string"),), None,
        doc="End this call as a failure, which the resource's failurePolicy answers. It does not return.",
    ),
    "get-time": ComponentFunction(("hookline", "get_time"), (), "u64", doc="Milliseconds since 1970."),
    "random": ComponentFunction(
        ("hookline", "random"), (("bytes", "u32"),), _TEXT, "out bytes", is_hex=True,
        doc="So many random bytes, up to 4096, in hexadecimal.",
    ),
    "get-config": ComponentFunction(
        ("hookline", "get_config"), (("path", "string"),), _PERHAPS,
        doc="The setting at a path with dots, as JSON; all of them for an empty path.",
    ),
    "metric-inc": ComponentFunction(
        ("hookline", "metric_inc"), (("name", "string"), ("by", "f64")), _NOTHING, doc="Add to a counter."
    ),
    "metric-gauge": ComponentFunction(
        ("hookline", "metric_gauge"), (("name", "string"), ("value", "f64")), _NOTHING, doc="Set a gauge."
    ),
    "metric-observe": ComponentFunction(
        ("hookline", "metric_observe"), (("name", "string"), ("value", "f64")), _NOTHING, doc="Add to a summary."
    ),
    "sha256-hex": ComponentFunction(
        ("env", "sha256_hex"), (("text", "string"),), _TEXT, "text out", doc="The SHA-256 of a text, in hexadecimal."
    ),
    "hmac-sha256": ComponentFunction(
        ("hookline", "hmac_sha256"), (("key", "string"), ("text", "string")), _TEXT, "key text out", is_hex=True,
        doc="The HMAC-SHA-256 of a text, in hexadecimal.",
    ),
    "kv-get": ComponentFunction(
        ("env", "kv_get"), (("key", "string"),), _PERHAPS, "key out most", doc="The value of a key."
    ),
    "kv-set": ComponentFunction(
        ("env", "kv_set"), (("key", "string"), ("value", "string")), _NOTHING, doc="Set a key."
    ),
    "kv-delete": ComponentFunction(("env", "kv_delete"), (("key", "string"),), _NOTHING, doc="Delete a key."),
    "kv-list": ComponentFunction(
        ("hookline", "kv_list"), (("prefix", "string"),), "result<list<string>, string>",
        doc="The keys that begin so.",
    ),
    "kv-incr": ComponentFunction(
        ("hookline", "kv_incr"), (("key", "string"), ("by", "s64")), "result<s64, string>",
        doc="Add to a number; what it is then.",
    ),
    "kv-compare-and-set": ComponentFunction(
        ("hookline", "kv_compare_and_set"), (("key", "string"), ("old", "option<string>"), ("new", "string")), _FLAG,
        doc="Set a key if its value is the old one (none: if there is none); whether it was.",
    ),
    "kv-set-ttl": ComponentFunction(
        ("hookline", "kv_set_ttl"), (("key", "string"), ("ttl-ms", "s64")), _FLAG,
        doc="Let a key end after so many milliseconds; whether there is such a key.",
    ),
    "query-execute": ComponentFunction(
        ("hookline", "query_execute"), (("source", "string"), ("sql", "string"), ("parameters", "string")), _TEXT,
        doc='Ask a database of spec.dataSources. The parameters are a JSON array; the answer is JSON, or {"error": …}.',
    ),
    "query-prepare": ComponentFunction(
        ("hookline", "query_prepare"), (("source", "string"), ("sql", "string")), _TEXT,
        doc="What a database says of a statement, as JSON.",
    ),
    "query-get-tables": ComponentFunction(
        ("hookline", "query_get_tables"), (("sql", "string"),), _TEXT, doc="The tables of a statement, as JSON."
    ),
    "query-normalize": ComponentFunction(
        ("hookline", "query_normalize"), (("sql", "string"),), _TEXT,
        doc="A statement without its constants, as JSON.",
    ),
    "cache-get": ComponentFunction(
        ("hookline", "cache_get"), (("cache", "string"), ("key", "string")), _PERHAPS, doc="The value of a key."
    ),
    "cache-exists": ComponentFunction(
        ("hookline", "cache_exists"), (("cache", "string"), ("key", "string")), _FLAG,
        doc="Whether there is such a key.",
    ),
    "cache-set": ComponentFunction(
        ("hookline", "cache_set"),
        (("cache", "string"), ("key", "string"), ("value", "string"), ("ttl-ms", "s64")), _NOTHING,
        doc="Set a key for so many milliseconds; 0 for the cache's own time.",
    ),
    "cache-delete": ComponentFunction(
        ("hookline", "cache_delete"), (("cache", "string"), ("key", "string")), _FLAG,
        doc="Delete a key; whether there was one.",
    ),
    "http-fetch": ComponentFunction(
        ("hookline", "http_fetch"), (("request", "string"),), _TEXT,
        doc='Ask a host that spec.egress allows. The request is JSON; so is the response, or {"error": …}.',
    ),
    "http-post": ComponentFunction(
        ("hookline", "http_post"), (("url", "string"), ("content-type", "string"), ("body", "string")), _TEXT,
        doc="The same for a simple POST.",
    ),
}  # fmt: skip


def written_out() -> str:
    """The world in WIT."""
    lines = [
        "// Written by scripts/write_wit.py from crds/hookline_api/component.py.",
        "package hookline:plugin;",
        "",
        "/// What a plugin may ask of its host. Each function needs the permission of docs/host-functions.md; an error",
        "/// is a text that says what was wrong.",
        "interface host {",
    ]
    for name, function in FUNCTIONS.items():
        lines += [f"  /// {function.doc}", f"  {name}: {function.type};"]
    lines += [
        "}",
        "",
        "/// A plugin: one function that answers all of its hooks.",
        "world plugin {",
        "  import host;",
        "",
        "  /// The hook's name, such as pre_query, and its input as JSON; the answer is JSON, or empty for the hook's",
        "  /// default.",
        f"  export {EXPORT}: {CALL_TYPE};",
        "}",
        "",
    ]
    return "\n".join(lines)
