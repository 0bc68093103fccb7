"""What the supervisor and its workers say to each other: frozen dataclasses as JSON, each behind its length in bytes.

To a worker: ``Prepare`` a bundle, ``Commit`` or ``Discard`` what is prepared, which versions are ``Proven``, and what
is ``Missing``. To the supervisor: ``Hello``; of a ``Prepare`` either ``Prepared`` or ``LoadRefused``; ``Committed``;
and each time that it is another, a ``Report`` of what the shared statistics do not hold.

Both ends are ours and of one version, and the socket is mode 0600 in a 0700 folder. Lengths are bounded and messages
are validated all the same: one that is broken ends its connection, and one of an unknown kind is passed over.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from hookline_api import bundle as bundle_json
from hookline_api import sentences
from hookline_api.bundle import Bundle, BundlePlugin, CallCause, LoadCause, LoadFailure
from hookline_runtime.plugin.budget import Plan  # noqa: TC001 - pydantic reads the annotations

_LENGTH: Final = struct.Struct(">I")
_MAX_MESSAGE: Final = 512 * 2**20
_SMALL: Final = 256 * 1024
"""Bytes up to which a message is parsed in one piece; a larger one has a bundle in it."""

log = logging.getLogger("hookline.messages")

Count = Annotated[int, Field(ge=0)]


# ── to a worker ──


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepare:
    """Make ready to switch to a bundle."""

    version: str
    bundle: Bundle
    before: tuple[BundlePlugin, ...]
    """The versions before those plugins that are on probation."""
    numbers: dict[str, Count]
    """The rows of the statistics by plugin."""
    memory: Plan | None
    """What the parts of the sidecar may have; None where nothing bounds it."""
    modules: dict[str, str] = field(default_factory=dict)
    """Where the supervisor holds copies of compiled modules, by the file's name."""
    kind: Literal["prepare"] = "prepare"


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """Switch to what is prepared."""

    version: str
    kind: Literal["commit"] = "commit"


@dataclass(frozen=True, kw_only=True, slots=True)
class Discard:
    """Give up what is prepared."""

    version: str
    kind: Literal["discard"] = "discard"


@dataclass(frozen=True, kw_only=True, slots=True)
class Proven:
    """Give up the versions before these revisions."""

    revisions: dict[str, str]
    """By plugin."""
    kind: Literal["proven"] = "proven"


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """Why plugins of what runs, for which placeholders stand, are not there, where that is something else by now."""

    version: str
    failures: dict[str, LoadFailure]
    """By plugin."""
    kind: Literal["missing"] = "missing"


# ── to the supervisor ──


@dataclass(frozen=True, kw_only=True, slots=True)
class Hello:
    """A worker begins."""

    index: Count
    pid: Count
    kind: Literal["hello"] = "hello"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A worker could switch to this version."""

    version: str
    guests: Count
    """Bytes that its guests may have."""
    alone: dict[str, str]
    """The plugins on probation whose version before cannot be had, and why."""
    kind: Literal["prepared"] = "prepared"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadRefused:
    """A worker cannot load one plugin of a bundle."""

    version: str
    plugin: str
    cause: LoadCause
    message: str
    damaged: bool = False
    """Whether its compiled form may be what is wrong."""
    passing: bool = False
    """Whether it may load another time although nothing of it has changed."""
    kind: Literal["refused"] = "refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """A worker runs this version."""

    version: str
    kind: Literal["committed"] = "committed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Paused:
    """A hook whose circuit breaker is open."""

    failures: Count
    until: float
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallFailure:
    """A call that failed."""

    hook: str
    cause: CallCause
    message: str
    at: float
    """Seconds since 1970."""
    line: str | None = None
    """The last line that the guest logged in that call; None where it has values of Secrets."""
    backtrace: tuple[str, ...] = ()
    """The guest's functions that were under way, the innermost first; none where it has values of Secrets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GuestMetric:
    """A metric that a plugin keeps in one worker."""

    type: str
    """``counter``, ``gauge`` or ``summary``."""
    value: float
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class HostCalls:
    """How long the calls of one host function that waits took in one worker."""

    buckets: list[Count]
    """Calls by ``hookline_runtime.host.arguments.BOUNDS_S``; the last takes the rest."""
    seconds: float
    """In all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PluginFacts:
    """What one worker knows of one plugin, beside the shared statistics."""

    revision: str
    inline: bool
    paused: dict[str, Paused]
    """By hook, as the two of ``last_failures``."""
    last_failure: CallFailure | None
    """With its line and its backtrace, which those below do not have."""
    last_fault: CallFailure | None
    """The newest that the version before did not fail on."""
    last_failures: dict[str, CallFailure]
    denied: dict[str, Count]
    """Host calls without their permission, by function."""
    refused: dict[str, Count]
    """Host calls that a cap, an argument or the store stopped, by function."""
    metrics: dict[str, GuestMetric]
    unavailable: dict[str, str] = field(default_factory=dict)
    """What cannot be reached now, such as ``data source 'grants'``, and why."""
    caches: dict[str, dict[str, Count]] = field(default_factory=dict)
    """What looking for keys came to (``hookline_runtime.host.cache.RESULTS``), by cache."""
    host_calls: dict[str, HostCalls] = field(default_factory=dict)
    """By function, of those that wait."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What one worker knows of its plugins."""

    plugins: dict[str, PluginFacts]
    kind: Literal["report"] = "report"


ToWorker = Prepare | Commit | Discard | Proven | Missing
ToSupervisor = Hello | Prepared | LoadRefused | Committed | Report
T = TypeVar("T")


class Kinds(Generic[T]):
    """The messages of one direction."""

    def __init__(self, messages: Any, *names: str) -> None:
        self._names = frozenset(names)
        self._adapter: TypeAdapter[T] = TypeAdapter(Annotated[messages, Field(discriminator="kind")])

    def decode(self, data: bytes) -> T | None:
        """The message; None for a kind that is not known. Raises ValueError, of which ValidationError is one."""
        message = orjson.loads(data) if len(data) <= _SMALL else bundle_json.read(data.decode(), orjson.loads)
        kind = message.get("kind") if isinstance(message, dict) else None
        if isinstance(kind, str) and kind not in self._names:
            log.warning("a message of the unknown kind '%.40s' is ignored", kind)
            return None
        return self._adapter.validate_python(message)


TO_WORKER: Final = Kinds[ToWorker](ToWorker, "prepare", "commit", "discard", "proven", "missing")
TO_SUPERVISOR: Final = Kinds[ToSupervisor](ToSupervisor, "hello", "prepared", "refused", "committed", "report")


def encode(message: ToWorker | ToSupervisor) -> bytes:
    """A message as it is sent, without its length."""
    return orjson.dumps(message, default=_written)


def _written(value: object) -> orjson.Fragment:
    if isinstance(value, Bundle):
        return orjson.Fragment(bundle_json.write(value))
    if isinstance(value, BundlePlugin | LoadFailure):
        return orjson.Fragment(value.model_dump_json(by_alias=True))
    raise TypeError


async def receive(reader: asyncio.StreamReader, kinds: Kinds[T]) -> T | None:
    """The next message of a known kind; None where the other end is gone, or sends anything else."""
    try:
        while True:
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            if length > _MAX_MESSAGE:
                return None
            message = kinds.decode(await reader.readexactly(length))
            if message is not None:
                return message
    except ValidationError as error:
        log.warning("a message cannot be read: %s", sentences.without_values(error))
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        pass  # it is gone, or was cut off in the middle
    return None


def send(writer: asyncio.StreamWriter, message: ToWorker | ToSupervisor) -> None:
    """Put a message on its way. A message to a peer that is gone is lost; the peer's reader notices."""
    data = encode(message)
    writer.write(_LENGTH.pack(len(data)) + data)
