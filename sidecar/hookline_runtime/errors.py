"""Everything that the runtime raises; the second half of the one tree, which begins in ``hookline_artifacts.errors``.

    HooklineError
    ├── LoadError                   a plugin cannot be loaded: ``hookline_artifacts.errors``
    │   └── PrepareError              (in ``hookline_runtime.runtime``) names the plugin of a LoadError
    └── CallError                   one call of one plugin failed; ``cause`` is trap, timeout, result, overload, store
        ├── TrapError
        ├── DeadlineError
        ├── ResultError
        ├── OverloadError
        └── StoreError
    InputError (ValueError)         the proxy's call is malformed; ``field`` says where

The message of each is one sentence for a person: what happened, why, and what to do about it. Which answer
a failure gives is not decided here but by the plugin's ``failurePolicy`` (``hookline_runtime.chain.pipeline``).
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from hookline_api.text import readable
from hookline_artifacts.errors import HooklineError, LoadError

MAX_FIELD: Final = 200
"""Characters of a path into a hook call."""


class CallError(HooklineError):
    """One call of one plugin failed."""

    cause: ClassVar[Literal["trap", "timeout", "result", "overload", "store"]]
    line: str | None = None
    """The last line that the guest logged in this call, on one line and cut."""
    why: str | None = None
    """… and the one in which it said why it ends, such as a panic's."""
    backtrace: tuple[str, ...] = ()
    """The guest's functions that were under way, the innermost first."""


def bare(error: CallError) -> CallError:
    """The error alone: what led to it holds frames, and they hold a call's input until the collector comes."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


class TrapError(CallError):
    """The guest trapped."""

    cause = "trap"


class DeadlineError(CallError):
    """The guest used up its time or its fuel."""

    cause = "timeout"


class ResultError(CallError):
    """The guest's answer is not a valid decision."""

    cause = "result"


class OverloadError(CallError):
    """The input, or the queue of waiting calls, is over its limit."""

    cause = "overload"


class StoreError(CallError):
    """The server with the plugin's keys is away."""

    cause = "store"


_IN_OUR_WORDS: Final = {
    "trap": "a call trapped",
    "timeout": "a call took longer than limits.timeout or limits.wait, or used up limits.fuel",
    "result": "an answer is not a valid decision",
    "overload": "an input, or the calls that wait, are over their limit",
    "store": "the server with the plugin's keys does not answer",
}
_TRAPS: Final = frozenset({
    "call stack exhausted", "out of bounds memory access", "undefined element: out of bounds table access",
    "uninitialized element", "indirect call type mismatch", "integer overflow", "integer divide by zero",
    "invalid conversion to integer", "wasm `unreachable` instruction executed",
})  # fmt: skip
"""The engine's own words, which say nothing of what a guest had in its hands."""


def failure_sentence(error: CallError, *, secrets: bool) -> str:
    """A failure's sentence for a log or a status. A guest that trapped has said why, mostly: that is in it.

    With ``secrets``, values of Secrets are in the plugin's settings, and what a guest has chosen (an answer, an exit
    code, the words of a host function's error) is left out: it may be one of them.
    """
    sentence = str(error)
    if not secrets:
        return f"{sentence}: {error.why}" if error.cause == "trap" and error.why else sentence
    ours, kind = _IN_OUR_WORDS[error.cause], sentence.rpartition(" trapped: ")[2]
    ours = f"{ours}: {kind}" if error.cause == "trap" and kind in _TRAPS else ours
    return f"{ours} (no more is said, as values of Secrets are in its settings)"


def load_sentence(reason: LoadError, *, secrets: bool) -> str:
    """Why a plugin does not load, as a sentence. It may quote how the first instance failed.

    ``secrets`` is as in ``failure_sentence``.
    """
    sentence, cause = str(reason), reason.__cause__
    if not isinstance(cause, CallError):
        return sentence
    before, found, behind = sentence.partition(str(cause))
    told = failure_sentence(cause, secrets=secrets)
    if not found:
        return told if secrets else sentence
    return f"{before}{told}{behind}"


def without_words(error: Exception, *, secrets: bool) -> Exception:
    """A mistake of ours, for the log: where it was made, and its words; ``secrets`` as in ``failure_sentence``."""
    if not secrets:
        return error
    without = HooklineError(f"{type(error).__name__}, whose words may be those of a guest that has values of Secrets")
    return without.with_traceback(error.__traceback__)


class InputError(ValueError):
    """A hook call is malformed. ``field`` is a path such as ``hook_context.attributes``, or empty."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(readable(message))
        self.field = readable(field, MAX_FIELD)
