"""Whether a plugin's settings satisfy the JSON Schema that the plugin ships.

A schema is an artifact's, and so hostile: a regular expression in it can run for ever. ``check`` belongs into a
child process; ``check_apart`` starts one.
"""

from __future__ import annotations

import re
import resource
from typing import Any, Final

import orjson

from hookline_api.config import Config
from hookline_runtime.artifacts.apart import ENDED, bound_processor, run_apart, serve_one
from hookline_runtime.errors import ConfigError

CHECK_S: Final = 5
"""Seconds of a core that a check may take."""
_MEMORY: Final = 256 * 2**20
"""Bytes of one check's process, of which the interpreter and its libraries take 60 MiB."""


async def check_apart(config: Config | dict[str, Any], schema: dict[str, Any], *, seconds: int = CHECK_S) -> None:
    """Check in a child process. Raises ConfigError, and FetchError where no process can be started."""
    request = _written(config, schema, seconds)
    answer = await run_apart(__name__, request, wanted=_MEMORY)
    if answer.get("cause") == ENDED:
        raise too_long(answer["message"])
    if answer:
        raise ConfigError(str(answer.get("message")))


def _written(config: Config | dict[str, Any], schema: dict[str, Any], seconds: int) -> bytes:
    """What the child is told, as bytes: parsed settings are large, and a check may wait. Raises ConfigError."""
    settings = config.parsed() if isinstance(config, Config) else config
    try:
        return orjson.dumps({"schema": schema, "config": settings, "check_s": seconds})
    except orjson.JSONEncodeError as error:
        raise ConfigError(f"the settings, or the schema for them, cannot be written as JSON: {error}") from None


def too_long(message: str) -> ConfigError:
    """The error for a check that did not end by itself."""
    # Without the child's last words, which may quote the settings, and so a Secret's value.
    ended = message.partition(": ")[0]
    return ConfigError(
        f"checking the settings against the plugin's schema failed: {ended}; it takes too much time or memory"
    )


def check_bounded(request: dict[str, Any]) -> None:
    """``check`` with a bound on processor time from here on; for a child process. Raises ConfigError."""
    bound_processor(int(request["check_s"]))
    check(request["config"], request["schema"])


def check(config: dict[str, Any], schema: dict[str, Any]) -> None:
    """Raises ConfigError where the settings do not satisfy the schema, or the schema is none."""
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
        raise ConfigError(f"the plugin's own config_schema is no JSON Schema: {error.message[:200]}") from error
    except Exception as error:  # a schema is an artifact's: references that lead nowhere, recursion, bad patterns
        # Without the text, which may quote the settings, and so a Secret's value.
        why = str(error)[:200] if isinstance(error, Unresolvable | re.error) else type(error).__name__
        raise ConfigError(f"the plugin's own config_schema cannot be used: {why}") from error
    if best is not None:
        # The message quotes the value, which may be a Secret's: say where and which rule, not what.
        path = ".".join(["config", *(str(part) for part in best.absolute_path)])
        names_only = best.validator in {"required", "additionalProperties", "dependentRequired"}
        rule = (best.message if names_only else f"{best.validator}: {best.validator_value!r}")[:200]
        raise ConfigError(f"{path} does not satisfy the plugin's schema ({rule})")


def _work(request: dict[str, Any]) -> dict[str, str]:
    # Beside an operator there is no room for what a compiler may take.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    try:
        check_bounded(request)
    except ConfigError as error:
        return {"cause": error.cause, "message": str(error)}
    return {}


def child() -> None:
    """What the child process runs."""
    serve_one(_work)
