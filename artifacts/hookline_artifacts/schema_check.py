"""Whether a plugin's settings satisfy the JSON Schema that the plugin ships, found in a child process (``schema``)."""

from __future__ import annotations

from typing import Any, Final

import orjson

from hookline_api.config import Config
from hookline_artifacts.apart import ENDED, run_apart
from hookline_artifacts.errors import ConfigError
from hookline_artifacts.schema import MEMORY

CHECK_S: Final = 5
"""Seconds of a core that a check may take."""
_CHILD: Final = "hookline_artifacts.schema"


async def check_apart(
    config: Config | dict[str, Any],
    schema: dict[str, Any],
    *,
    secret_paths: list[str] | None = None,
    seconds: int = CHECK_S,
) -> None:
    """Check in a child process. Raises ConfigError, and FetchError where no process can be started.

    ``secret_paths`` are those of ``config`` whose values are Secrets', as in a bundle's entry; None: any may be.
    """
    request = _written(config, schema, seconds, secret_paths)
    answer = await run_apart(_CHILD, request, wanted=MEMORY)
    if answer.get("cause") == ENDED:
        raise too_long(answer["message"])
    if answer:
        raise ConfigError(str(answer.get("message")))


def _written(
    config: Config | dict[str, Any], schema: dict[str, Any], seconds: int, secret_paths: list[str] | None
) -> bytes:
    """What the child is told, as bytes: parsed settings are large, and a check may wait. Raises ConfigError."""
    settings = config.parsed() if isinstance(config, Config) else config
    try:
        return orjson.dumps({"schema": schema, "config": settings, "secret_paths": secret_paths, "check_s": seconds})
    except orjson.JSONEncodeError as error:
        raise ConfigError(f"the settings, or the schema for them, cannot be written as JSON: {error}") from None


def too_long(message: str) -> ConfigError:
    """The error for a check that did not end by itself."""
    # Without the child's last words, which may quote the settings, and so a Secret's value.
    ended = message.partition(": ")[0]
    return ConfigError(
        f"checking the settings against the plugin's schema failed: {ended}; it takes too much time or memory"
    )
