"""What goes wrong between a proxy and its sidecar, as one tree.

    HookError                 ``cause`` is its name in decisions and counters
    ├── UnreachableError        the sidecar cannot be reached; the call was not sent
    ├── OverloadError           too many calls are waiting already; the call was not sent
    ├── LostError               the connection ended after the call was sent: it may have been processed
    ├── DeadlineError           no answer in time: it may have been processed, or still will be
    ├── RefusedError            the sidecar does not take this input (400, 413); it was not processed
    ├── FailedError             the sidecar answered with another status than 200
    └── MalformedError          the answer is not HTTP/1.1, or not a decision of this hook

What the proxy gets instead of a decision is decided by the client's policy, and by nothing else.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Cause = Literal["unreachable", "overload", "lost", "timeout", "refused", "failed", "malformed"]


class HookError(Exception):
    """A hook call that the sidecar did not answer with a decision."""

    cause: ClassVar[Cause]


class UnreachableError(HookError):
    """No connection; not sent."""

    cause = "unreachable"


class OverloadError(HookError):
    """The client's own queue is full; not sent."""

    cause = "overload"


class LostError(HookError):
    """Sent, and the connection ended before the answer: whether it was processed is not known."""

    cause = "lost"


class DeadlineError(HookError):
    """No answer in time."""

    cause = "timeout"


class RefusedError(HookError):
    """The input is malformed or too large. Who sends the statement can bring this about, so it never opens a hook."""

    cause = "refused"


class FailedError(HookError):
    """The sidecar answered, but not with 200."""

    cause = "failed"


class MalformedError(HookError):
    """What came does not answer this call. Its connection is closed."""

    cause = "malformed"
