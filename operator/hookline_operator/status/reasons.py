"""The reasons of conditions and Events: what scripts compare with. One word each, never changed.

``docs/operate/status.md`` says of each what it means and what to do; ``STALLED`` and ``RECONCILING`` do in a sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, get_args

from hookline_api.distribution import Trouble

if TYPE_CHECKING:
    from hookline_api.bundle import LoadCause

READY: Final = "Ready"
HEALTHY: Final = "Healthy"
RESOLVED: Final = "Resolved"
VERIFIED: Final = "Verified"
GRANTED: Final = "PermissionsGranted"
PROGRAMMED: Final = "Programmed"
NO_PODS: Final = "NoMatchingPods"
NO_REPORTS: Final = "NoReports"
"""For Healthy: no sidecar that runs it has reported."""
SOURCES_AVAILABLE: Final = "SourcesAvailable"
DATA_SOURCE_UNAVAILABLE: Final = "DataSourceUnavailable"
STORE_UNAVAILABLE: Final = "StoreUnavailable"
CACHE_UNAVAILABLE: Final = "CacheUnavailable"
SOURCE_UNAVAILABLE: Final = "SourceUnavailable"
"""For SourcesAvailable where it is False, the worst first. StoreUnavailable is one of ``TROUBLES`` too. The last is of
anything else, such as a host of ``egress``."""
PENDING: Final = "Pending"
PROGRESSING: Final = "Progressing"
FETCH_FAILED: Final = "FetchFailed"
VERIFY_FAILED: Final = "VerifyFailed"
CONFIG_INVALID: Final = "ConfigInvalid"
SIGNATURE_FAILED: Final = "SignatureFailed"
POLICY_FORBIDS: Final = "PolicyForbids"
SELF_TEST_FAILED: Final = "SelfTestFailed"
PERMISSIONS_INCREASED: Final = "PermissionsIncreased"
POLICY_AUDIT: Final = "PolicyWouldForbid"
"""For an Event: a policy in Audit would refuse the plugin."""
PODS_FAILED: Final = "PodsFailed"
ROLLED_BACK: Final = "RolledBack"
UNGUARDED: Final = "Unguarded"
SETTLED: Final = "Settled"
NOT_WRITTEN: Final = "StatusNotWritten"
"""For an Event: the API server refuses the status, so what it shows is old."""
NOT_GRANTED: Final = "PermissionNotGranted"

TROUBLES: Final[tuple[str, ...]] = get_args(Trouble)
"""For Healthy where it is False; the worst comes first."""

OF_CAUSE: Final[dict[LoadCause, str]] = {
    "fetch": FETCH_FAILED,
    "verify": VERIFY_FAILED,
    "config": CONFIG_INVALID,
}
CAUSES: Final[dict[str, LoadCause]] = {
    **{reason: cause for cause, reason in OF_CAUSE.items()},
    SIGNATURE_FAILED: "verify",
    POLICY_FORBIDS: "verify",
    SELF_TEST_FAILED: "verify",
    PERMISSIONS_INCREASED: "config",
}
"""The cause behind a reason, where a reason is about a failure to load."""
WRONG: Final = frozenset({*CAUSES, PODS_FAILED, ROLLED_BACK, UNGUARDED, *TROUBLES})
"""The reasons with which something is wrong that does not pass in a moment."""

_CALLS: Final = "mend the plugin, or what it asks; status.failures has the pods, the hooks and the causes"
STALLED: Final[dict[str, str]] = {
    FETCH_FAILED: "mend the source, its password or its ConfigMap: that is noticed at once, a registry in some minutes",
    VERIFY_FAILED: "push another module, or change the resource",
    SIGNATURE_FAILED: "sign the artifact, or change the resource or the policy that asks for the signature",
    POLICY_FORBIDS: "change the resource, or have the policy changed",
    SELF_TEST_FAILED: "mend the module or its cases, and push it anew, or change spec.selfTest",
    PERMISSIONS_INCREASED: "grant the permissions in spec.permissions, or go back to the version before",
    CONFIG_INVALID: "change the resource, or the Secret or ConfigMap that its settings come from",
    PODS_FAILED: "look at the pods in status.failures",
    ROLLED_BACK: "change the resource, or what its settings come from: nothing is tried again before",
    UNGUARDED: "have the pods without a sidecar made anew, once they get one",
    "FailingCalls": _CALLS,
    "Paused": _CALLS,
}
"""What it takes, where it takes a person."""
_LOAD: Final = "it may pass with fewer calls, more pods, or other spec.limits"
RECONCILING: Final[dict[str, str]] = {
    PENDING: "it takes a moment",
    FETCH_FAILED: "it is tried again by itself",
    PROGRESSING: "pods load it, or are getting ready",
    "StoreUnavailable": "it passes when the server with its keys is back",
    "Slow": _LOAD,
    "Overloaded": _LOAD,
}
"""What is under way, where nobody has to do anything yet."""
