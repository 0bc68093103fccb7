"""Whether a plugin's settings satisfy the JSON Schema that the plugin ships; what ``schema_check``'s child runs.

DANGER: a schema is an artifact's, and so hostile: a regular expression in it can run for ever. Never in a process that
does anything else.
"""

from __future__ import annotations

import re
import resource
from typing import Any, Final

from hookline_api.text import did_you_mean, found, listed, readable
from hookline_artifacts.child import bound_processor, serve_one
from hookline_artifacts.errors import ConfigError

MEMORY: Final = 256 * 2**20
"""Bytes of one check's process, of which the interpreter and its libraries take 60 MiB."""
_MAX_PATH: Final = 200
_MAX_RULE: Final = 120
"""Characters of a rule, which is an artifact's."""
_MAX_CHOICES: Final = 12


def check_bounded(request: dict[str, Any]) -> None:
    """``check`` with a bound on processor time from here on; for a child process. Raises ConfigError."""
    bound_processor(int(request["check_s"]))
    check(request["config"], request["schema"], secret_paths=request.get("secret_paths"))


def check(config: dict[str, Any], schema: dict[str, Any], *, secret_paths: list[str] | None = None) -> None:
    """Raises ConfigError where the settings do not satisfy the schema, or the schema is malformed."""
    import jsonschema  # noqa: PLC0415 - only some jobs need it
    from referencing import Registry  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    try:
        validator_class = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        validator_class.check_schema(schema)
        # An empty registry: a reference to elsewhere is an error, and never a request to the network.
        # Never all errors at once: of a megabyte of settings they take more than one gigabyte.
        best = jsonschema.exceptions.best_match(validator_class(schema, registry=Registry()).iter_errors(config))
    except jsonschema.SchemaError as error:
        raise ConfigError(f"the plugin's own config_schema is not a JSON Schema: {error.message[:200]}") from error
    except Exception as error:  # a schema is an artifact's: references that lead nowhere, recursion, bad patterns
        # Without the text, which may quote the settings, and so a Secret's value.
        why = str(error)[:200] if isinstance(error, Unresolvable | re.error) else type(error).__name__
        raise ConfigError(f"the plugin's own config_schema cannot be used: {why}") from error
    if best is not None:
        parts = [str(part) for part in best.absolute_path]
        path = readable(".".join(["config", *parts]), _MAX_PATH)
        if best.validator in {"required", "additionalProperties", "dependentRequired"}:  # of names alone
            near = _near(best) if best.validator == "additionalProperties" else ""
            raise ConfigError(f"{path}: {readable(best.message, _MAX_RULE)}{near} (so the plugin's schema says)")
        shown = _may_be_shown(parts, secret_paths)
        seen = f"found {found(best.instance)}" if shown else "found something else, which may be a Secret's"
        raise ConfigError(f"{path}: expected {_expected(best)}, {seen} (so the plugin's schema says)")


def _near(error: Any) -> str:
    """For a field that a schema does not have: the one that may be meant, or those that there are."""
    known = [str(each) for each in error.schema.get("properties", {})] if isinstance(error.schema, dict) else []
    unknown = [each for each in error.instance if each not in known]
    meant = next(filter(None, (did_you_mean(each, known) for each in unknown[:_MAX_CHOICES])), "")
    return meant or (f"; there are {listed(known)}" if known else "")


def _may_be_shown(parts: list[str], secret_paths: list[str] | None) -> bool:
    """Whether what is there neither is nor holds the value of a Secret. DANGER: statuses are read by many."""
    if secret_paths is None:
        return False
    secret = [each.split(".") for each in secret_paths]
    return not any(each[: len(parts)] == parts[: len(each)] for each in secret)


_DIGITS: Final = frozenset({"^[0-9]+$", "^[0-9]*$", r"^\d+$", r"^\d*$", "[0-9]+", r"\d+"})
_TYPES: Final = {
    "integer": "a whole number", "number": "a number", "string": "a string", "boolean": "true or false",
    "array": "a list", "object": "an object", "null": "null",
}  # fmt: skip
_RULES: Final = {
    "minimum": "at least {}", "maximum": "at most {}", "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}", "multipleOf": "a multiple of {}", "const": "{}", "format": "a {} string",
    "minLength": "at least {} characters", "maxLength": "at most {} characters", "pattern": "a string that matches {}",
    "minItems": "at least {} items", "maxItems": "at most {} items", "minProperties": "at least {} entries",
    "maxProperties": "at most {} entries",
}  # fmt: skip


def _expected(error: Any) -> str:
    """What a rule of a schema asks for, in words where there are some."""
    rule, value = str(error.validator), error.validator_value
    if rule == "type":
        types = value if isinstance(value, list) else [value]
        return " or ".join(_TYPES.get(str(each), readable(str(each), _MAX_RULE)) for each in types)[:_MAX_RULE]
    if rule == "pattern" and value in _DIGITS:
        return "a string of digits"
    if rule == "enum" and isinstance(value, list):
        return readable("one of " + ", ".join(found(each) for each in value[:_MAX_CHOICES]), _MAX_RULE)
    words = _RULES.get(rule)
    if words is not None and isinstance(value, str | int | float):
        return words.format(value if rule == "format" else found(value, _MAX_RULE))
    return f"what {readable(rule, _MAX_RULE)} says: {readable(repr(value)[: _MAX_RULE + 1], _MAX_RULE)}"


def _work(request: dict[str, Any]) -> dict[str, str]:
    # An operator has less memory to spare than a compiler may take.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        check_bounded(request)
    except ConfigError as error:
        return {"cause": error.cause, "message": str(error)}
    return {}


def child() -> None:
    """What the child process runs."""
    serve_one(_work)
