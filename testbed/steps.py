"""How much work a function does, counted: never how long it takes.

``opcodes`` counts what the interpreter executes, of a function and of all Python that it calls. It is blind for what
happens within one call into C. Where the work more than doubles with a doubled input, it is not linear.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any, Final

GROWTH: Final = 2.3
"""What a doubled input may take, as a factor: two, and something for what is done once or grows in steps."""
MOST_OPCODES: Final = 5_000_000


class TooMuchError(AssertionError):
    """The function did more than the meter counts."""


def opcodes(work: Callable[[], object]) -> int:
    """The interpreter's steps in one call. An exception of the call ends it, and is not passed on."""
    count = 0

    def trace(frame: Any, event: str, _argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        if count > MOST_OPCODES:
            raise TooMuchError(f"more than {MOST_OPCODES} steps of the interpreter")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except TooMuchError:
        raise
    except Exception:  # noqa: BLE001 - a refusal is an answer too
        return count
    finally:
        sys.settrace(before)
    return count


def _quietly(work: Callable[[], object]) -> None:
    with contextlib.suppress(Exception):  # a refusal is an answer too
        work()


def growth(
    meter: Callable[[Callable[[], object]], int], make: Callable[[int], Any], parse: Callable[[Any], object], size: int
) -> float:
    """How many times the work there is for an input of twice the size. Raises TooMuchError."""
    small, large = make(size), make(2 * size)
    _quietly(lambda: parse(make(1)))  # what is made once is made now
    return meter(lambda: parse(large)) / meter(lambda: parse(small))
