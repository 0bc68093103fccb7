"""What operator and sidecars say to each other: JSON messages over one WebSocket, and blobs by digest.

A sidecar opens ``GET /v1/distribution`` (``wss``) with ``Authorization: Bearer TOKEN``: a projected
service-account token of the audience ``hookline.dev``, bound to its pod. TokenReview says which pod that is; the
sidecar does not. Each message is one text frame that holds one JSON object with a ``type``. Both sides ignore
types and fields that they do not know, so either may be newer.

::

    sidecar                                    operator
       │ ── report (what runs, first of all) ─────▶ │
       │ ◀─ bundle (everything this pod must run) ─ │   hold: prepare, and wait
       │ ── GET /v1/blobs/<sha256> ───────────────▶ │   only what the sidecar has not got
       │ ── report (prepared) ────────────────────▶ │
       │ ◀─ commit ──────────────────────────────── │   when every matching pod is prepared, or at the deadline
       │ ── report (running) ─────────────────────▶ │
       │ ◀─ authority (whom to trust) ───────────── │   after the first report, and when there is another

Everything is level-triggered: a report says all of a sidecar's state, a bundle all that the pod must run. Whoever
missed a message is right again with the next. ``GET /v1/blobs/<sha256>`` takes the same token, and answers only
for what the pod's own bundle names.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter

from hookline_api.base import Name, Resource
from hookline_api.bundle import Bundle, CallCause, LoadFailure, Stage
from hookline_api.hooks import Hook
from hookline_api.sources import MAX_UNAVAILABLE

AUDIENCE: Final = "hookline.dev"
"""Of the projected tokens: a token for the Kubernetes API does not open this door, nor the other way round."""
DISTRIBUTION_PATH: Final = "/v1/distribution"
BLOBS_PATH: Final = "/v1/blobs/"
MAX_TOKEN: Final = 16 * 1024
"""Characters of a pod's token."""
MAX_PLUGINS: Final = 1000
"""Plugins in a bundle that is sent, and in a report."""
MAX_REPORT: Final = 2**20
"""Bytes of one message from a sidecar."""
MAX_REPORT_VALUES: Final = 2**15
"""Values and names in one message from a sidecar: its thousand plugins have some fifteen each."""
REPORT_BASE: Final = 32 * 1024
"""Characters of a report that an operator reads, beside those for the plugins that its pod was told of: it may still be
about others."""
REPORT_OF_PLUGIN: Final = 8 * 1024
"""And for each of those: a name of 253 characters and a sentence of 1,024, each escaped as six. What a sidecar has to
say of its plugins' hooks beside that is cut to fit, since operators before it read no more."""
MAX_AUTHORITIES: Final = 64 * 1024
"""Characters of all certificate authorities that a sidecar is told of."""
MAX_BUNDLE: Final = 64 * 2**20
"""Bytes of one message to a sidecar."""
MAX_BUNDLE_VALUES: Final = 2**22
"""Values and names in one message to a sidecar: sixteen ``config`` of as many as one may have. Its plugins are read one
after the other."""

PluginState = Literal["Running", "Updating", "LastGood", "Closed", "LeftOut"]
"""What a sidecar does for a plugin now. Running: what its bundle asks for. Updating: something older, the new one is
being made ready. LastGood: something older, because the new one failed. Closed: it refuses. LeftOut: nothing."""


Trouble = Literal["FailingCalls", "Paused", "StoreUnavailable", "Slow", "Overloaded"]
"""What is wrong with a plugin that is loaded, the worst first in a sidecar's own judgement. FailingCalls: too many of
its calls trap, time out, or answer no valid decision. Paused: the circuit breaker answers in its place.
StoreUnavailable: too many calls end because the server with its keys is away. Slow: too many calls come near
``limits.timeout``. Overloaded: too many calls find their input or their queue over its limit."""

_Count = Annotated[int, Field(ge=0, le=2**53)]
_Sentence = Annotated[str, Field(max_length=256)]


class HookHealth(Resource):
    """One hook of one plugin that is not well in one sidecar, over all its workers and the newest calls."""

    hook: Hook
    trouble: Trouble
    calls: _Count
    """Of the window that was judged, those that the breaker answered among them."""
    bad: _Count
    """Of these, how many were of that trouble."""
    seconds: Annotated[float, Field(ge=0, le=86_400)]
    """How long that window is."""
    cause: CallCause | None = None
    """Of the newest failure."""
    message: _Sentence = ""
    """The newest failure in one sentence: without the guest's own words where values of Secrets are in its settings."""


def _known(hooks: Any) -> Any:
    """Without hooks and troubles of a later version: as unknown fields, they are passed over."""
    if not isinstance(hooks, list):
        return hooks
    return [
        each
        for each in hooks
        if not isinstance(each, dict) or (each.get("hook") in tuple(Hook) and each.get("trouble") in get_args(Trouble))
    ]


class RolledBack(Resource):
    """A revision that failed on probation, and that the sidecar has gone back from."""

    revision: Annotated[str, Field(max_length=64)]
    calls: _Count
    failures: _Count
    cause: CallCause
    message: _Sentence = ""
    """As in ``HookHealth``."""


class UnavailableSource(Resource):
    """What a plugin asks outside its pod and does not reach now."""

    source: Annotated[str, Field(min_length=1, max_length=128)]
    """Its kind and its name, such as ``data source 'grants'``."""
    message: _Sentence = ""
    """Why, in one sentence, without values of Secrets."""


def _first(found: Any) -> Any:
    """No more than are taken: a later version may tell of more."""
    return found[:MAX_UNAVAILABLE] if isinstance(found, list) else found


class PluginReport(Resource):
    """One plugin in one sidecar."""

    name: Name
    state: PluginState
    revision: Annotated[str, Field(max_length=64)] | None = None
    """What answers calls now; None where nothing does."""
    failure: LoadFailure | None = None
    """Why the sidecar does not run what its bundle asks for."""
    loading: Stage | None = None
    """How far it is, while it makes ready what its bundle asks for."""
    health: Annotated[list[HookHealth], BeforeValidator(_known), Field(max_length=len(Hook))] = []
    """Its hooks that are not well; none of them where all is well."""
    probation: bool = False
    """Whether the revision that answers calls is still on probation here."""
    rolled_back: RolledBack | None = None
    """What the sidecar has gone back from, as long as nothing else is asked for."""
    unavailable: Annotated[list[UnavailableSource], BeforeValidator(_first), Field(max_length=MAX_UNAVAILABLE)] = []
    """What it asks and does not reach now; nothing where all is well, or nobody has asked yet."""


class Report(Resource):
    """Everything about one sidecar, each time any of it changes."""

    type: Literal["report"] = "report"
    running: Annotated[str, Field(max_length=64)] | None = None
    """The version of the bundle that all workers run."""
    prepared: Annotated[str, Field(max_length=64)] | None = None
    """The version of a bundle that all workers could switch to at once, and that waits for ``commit``."""
    ready: bool = False
    """Whether the sidecar's own ``/readyz`` says so."""
    plugins: Annotated[list[PluginReport], Field(max_length=1000)] = []
    sidecar: Annotated[str, Field(max_length=64)] | None = None
    """The sidecar's version."""
    authority: Annotated[str, Field(max_length=64)] | None = None
    """The ``version`` of the authorities that it was told of and trusts."""


class BundleMessage(Resource):
    """Run this. Replaces every earlier bundle, also one that is held."""

    type: Literal["bundle"] = "bundle"
    version: Annotated[str, Field(max_length=64)]
    """``bundle.version``, which is the word for it in reports."""
    bundle: Bundle
    hold: bool = False
    """Prepare and report, then wait for ``commit``; not longer than ``deadline``."""
    deadline: Annotated[int, Field(ge=0)] = 0
    """Milliseconds after which a held bundle is committed without being told."""


class Commit(Resource):
    """Switch to the bundle that is held, if it is this one."""

    type: Literal["commit"] = "commit"
    version: Annotated[str, Field(max_length=64)]


class AuthorityMessage(Resource):
    """Trust these certificate authorities, beside those that the sidecar was made with, at the next connections.

    Replaces what was told before. Said over a connection whose certificate was verified, and believed over no other.
    """

    type: Literal["authority"] = "authority"
    version: Annotated[str, Field(min_length=1, max_length=64)]
    """Another one for other authorities; the word for them in reports."""
    bundle: Annotated[str, Field(max_length=MAX_AUTHORITIES)]
    """PEM."""


ToSidecar = BundleMessage | Commit | AuthorityMessage
_TO_SIDECAR: Final[TypeAdapter[ToSidecar]] = TypeAdapter(
    Annotated[ToSidecar, Field(discriminator="type")], config=ConfigDict(defer_build=True)
)


def parse_to_sidecar(data: Any) -> ToSidecar | None:
    """What an operator sent, already decoded from JSON; None for a type that this version does not know.

    Raises ``pydantic.ValidationError`` where a known type is not well formed.
    """
    if isinstance(data, dict) and data.get("type") not in ("bundle", "commit", "authority"):
        return None
    return _TO_SIDECAR.validate_python(data)
