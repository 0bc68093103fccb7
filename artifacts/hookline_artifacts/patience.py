"""Patience: when a failed load is tried again, in the operator and in a sidecar.

The first pause depends on who can mend the failure, each further one is twice as long, and a server may ask for more.
Jitter keeps those that failed together from coming back together.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from hookline_artifacts.errors import ConfigError, FetchError, LoadError

if TYPE_CHECKING:
    from hookline_artifacts.limits import FetchLimits

FIRST_S: Final = 2.0
SLOW_S: Final = 20.0
"""For failures that somebody has to mend first: a missing tag, wrong credentials, a bad module."""
LAST_S: Final = 300.0


def pause(error: LoadError, attempts: int) -> float | None:
    """Seconds until the source is asked again after ``attempts`` failures; None where only a change helps.

    Wrong settings are mended by a change of the source or of what it refers to, and that is noticed.
    """
    if isinstance(error, ConfigError):
        return None
    first = FIRST_S if isinstance(error, FetchError) and error.transient else SLOW_S
    longest: float = min(first * 2 ** min(attempts - 1, 16), LAST_S)
    jittered = longest * random.uniform(0.7, 1.0)  # noqa: S311 - spreads load, keeps no secret
    return max(jittered, min(getattr(error, "retry_after", None) or 0.0, LAST_S))


def pause_of_tag(interval: float) -> float:
    """Seconds until it is asked again what a tag means that is tracked with this interval."""
    return interval * random.uniform(0.95, 1.0)  # noqa: S311 - spreads load, keeps no secret


def pause_within(limits: FetchLimits, error: FetchError, attempt: int) -> float | None:
    """Seconds until the next attempt of the same request; None where the request is given up."""
    wait = error.retry_after
    if wait is None:
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
        wait = jitter * min(limits.backoff * 2 ** (attempt - 1), limits.max_pause)
    return wait if error.transient and attempt < limits.attempts and wait <= limits.max_pause else None
