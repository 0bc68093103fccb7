"""Where each cause, reason and exit code is explained: the anchors of ``docs/reference/errors.md``, and its text.

``pointer`` is for whoever tells a person of one: a status, ``/v1/plugins``, the command line. The page is generated
from ``PARTS`` (``scripts/write_errors.py``).
"""

from __future__ import annotations

from typing import Final, NamedTuple

PAGE: Final = "docs/reference/errors.md"


class Entry(NamedTuple):
    """One thing that goes wrong."""

    what: str
    """What happened."""
    why: str
    """Why it happens."""
    do: str
    """What to do."""
    example: str
    """What a person sees of it."""


LOADING: Final[dict[str, Entry]] = {
    "fetching": Entry(
        "The plugin is loaded for the first time, and its module is not here yet: it is being fetched, checked or "
        "verified. Nothing has failed. Decisions carry the `failure` `fetch` meanwhile.",
        "The registry is slow, the module is large, or a sidecar waits for the operator to resolve the source.",
        "Wait. If it lasts, `status.conditions` and the sidecar's log name who is being asked.",
        "plugin 'guard' is being fetched; ask again",
    ),
    "compiling": Entry(
        "The module is here and is being compiled, once for each version of it and of Hookline. Nothing has failed. "
        "Decisions carry the `failure` `fetch` meanwhile.",
        "A megabyte of WebAssembly takes about a second of a core, and more where the core is shared.",
        "Wait: the log says when it is done. Give the sidecar more CPU where pods start too slowly.",
        "plugin 'guard' is being compiled; ask again",
    ),
    "fetch": Entry(
        "The module cannot be had, and nothing of it ran before.",
        "The registry is away or refuses, the reference or its password is wrong, a ConfigMap or a file is not there.",
        "Mend what the sentence names. `spec.failurePolicy.fetch` says what is answered until then.",
        "plugin 'guard' is not loaded (fetch)",
    ),
    "verify": Entry(
        "The module is here, and is not what was asked for. It never runs.",
        "Its digest, its signature, its imports or its exports are wrong, it does not compile, it does not answer its "
        "own cases as they say, or a policy forbids it.",
        "Push another module, sign it, or change the resource. `status.failedDigest` says which artifact it is about.",
        "the module exports no hook; it exports alloc, memory, prequery (did you mean pre_query?); the hooks are …",
    ),
    "config": Entry(
        "The settings are wrong.",
        "A field is misspelt or out of range, a key of a Secret is missing, the plugin's own schema refuses `config`, "
        "or the module imports what `spec.permissions` does not grant.",
        "Change the field, the Secret or the ConfigMap that the sentence names: that is noticed at once.",
        "configFrom 'token': there is no Secret 'guard' with the key 'tokn'; that Secret has token "
        "(did you mean token?)",
    ),
}
"""By the causes of ``LoadCause`` and the stages of ``Stage``."""

CALLS: Final[dict[str, Entry]] = {
    "trap": Entry(
        "The guest trapped: WebAssembly ended the call.",
        "An `unreachable`, which is what a panic or an abort becomes, a division by zero, an access outside of its "
        "memory, or a stack that is too deep.",
        "Run the same call with `hookline call`, or look at the sidecar's log: both name the trap.",
        '{"action":"block","value":"plugin \'guard\' failed (trap)","failure":"trap",…}',
    ),
    "timeout": Entry(
        "The guest used up its time (`limits.timeout`), its fuel (`limits.fuel`), or the time that it may wait for "
        "others (`limits.wait`). From a client library: no answer came in its own time.",
        "It loops, its input is larger than it was tried with, or the server that it asks is slow.",
        "Have it do less in a call, or raise the limit. `hookline bench` shows what a call takes.",
        '{"action":"block","value":"plugin \'guard\' failed (timeout)","failure":"timeout",…}',
    ),
    "result": Entry(
        "The guest answered, and the answer is not a decision of this hook.",
        "It is not JSON, lacks `action`, has an unknown one, lacks a field (a rewrite without SQL), or is longer than "
        "`limits.output`.",
        "Compare the answer with docs/reference/hooks.md; the sentence in the log says which part is wrong.",
        "the result has neither 'action' nor 'kind'",
    ),
    "overload": Entry(
        "The call was too large for the plugin (`limits.input`), or too many waited for it (`limits.concurrency`). "
        "From a client library: too many calls wait in the client.",
        "Statements are longer than the limit, or calls come faster than the plugin answers.",
        "Raise the limit that the sentence names, run more pods, or have the plugin do less.",
        '{"action":"block","value":"plugin \'guard\' failed (overload)","failure":"overload",…}',
    ),
    "store": Entry(
        "The server with the plugin's keys (`kv.scope: Cluster`) did not answer, or refused.",
        "Valkey is away, full, or does not take the password.",
        "Bring it back. `spec.failurePolicy.store` says what happens meanwhile.",
        "store: no answer within 100ms",
    ),
}
"""By the causes of ``CallCause``."""

CLIENT: Final[dict[str, Entry]] = {
    "unreachable": Entry(
        "The client library could not connect to its sidecar; the call was not sent.",
        "The sidecar is not up yet or is gone, or the socket's path or its group is wrong.",
        "Look whether it listens (`--socket`, `--listen`) and whether the proxy's user may open the socket.",
        "the hook could not be asked (unreachable)",
    ),
    "lost": Entry(
        "The connection ended after the call was sent. Whether the call was processed is not known.",
        "The sidecar was replaced or killed, or its drain time was too short.",
        "Nothing for a single one; the policy of the client answered. If it goes on, look why the sidecar ends.",
        "the hook could not be asked (lost)",
    ),
    "refused": Entry(
        "The sidecar answered 400 or 413: the call is malformed or too large. It never opens a hook.",
        "A field has another type than docs/reference/hooks.md says, a name stands twice, or the body is above "
        "`--max-body`.",
        "Mend the proxy; `detail` of the problem and `field` say what is wrong.",
        '{"title":"Bad Request","status":400,"detail":"is not a string","field":"hook_context.request_id"}',
    ),
    "failed": Entry(
        "The sidecar answered with another status than 200.",
        "It is shutting down (503), or the path is wrong (404).",
        "Once more on a new connection after a 503; look at the address after a 404.",
        "the hook could not be asked (failed)",
    ),
    "malformed": Entry(
        "What came is not HTTP/1.1, not a decision of this hook, or the answer to another request.",
        "Something else listens at the address, or a proxy in between changed the answer.",
        "Let the client talk to the sidecar itself.",
        "the hook could not be asked (malformed)",
    ),
}
"""By the causes of ``hookline_client``; ``timeout`` and ``overload`` are above."""

REASONS: Final[dict[str, Entry]] = {
    "Pending": Entry(
        "The source is being resolved.", "It was changed just now, or who is asked is slow.", "Wait.",
        "the source is being resolved: registry.example:443 has not sent the module yet",
    ),
    "Progressing": Entry(
        "Some pods do not run this generation yet.", "They load it, are not ready, or have not connected.",
        "Wait, or look at the pod that the message names.", "1 of 2 pods run it; pod 'web-1' is loading it",
    ),
    "NoMatchingPods": Entry(
        "No pod with a sidecar has the labels of `spec.selector`.", "The labels differ, or the pods have no sidecar.",
        "Compare the labels; set `spec.selector.required: false` if the pods come later.",
        "no pod with a sidecar matches spec.selector",
    ),
    "NoReports": Entry(
        "No sidecar that runs it has reported.", "There are no pods, or none has connected.", "Look at Programmed.",
         "",
    ),
    "FetchFailed": Entry(
        "The module cannot be fetched.", "As the cause `fetch`.",
        "With Reconciling it is tried again by itself; with Stalled mend the reference, the password or the ConfigMap.",
        "registry.example:443 answered 404 for registry.example/guard:v2; the last good version goes on in 2 pods",
    ),
    "VerifyFailed": Entry(
        "The module is not what was asked for.", "As the cause `verify`.",
        "Push another module, or change the resource. `status.failedDigest` has the artifact's digest.",
        "the module imports 'env.shell', which this version of Hookline does not offer; the last good version goes "
        "on in 2 pods",
    ),
    "ConfigInvalid": Entry(
        "The settings do not fit.", "As the cause `config`.", "Change the resource, the Secret or the ConfigMap.",
        'spec.permissions[0]: "kv_read" is not a permission (did you mean kv.read?); the permissions are …',
    ),
    "SignatureFailed": Entry(
        "The artifact is not signed as `spec.verify` or a PluginTrustPolicy asks.",
        "It has no signature, one by somebody else, or one of another artifact.",
        "Sign it (`hookline sign`), or change who is asked for. `status.failedDigest` has the artifact's digest.",
        "PluginTrustPolicy 'signed': it is not signed by acme: it has no signature",
    ),
    "SelfTestFailed": Entry(
        "The module may not run because of its own cases.",
        "`spec.selfTest` is `Required`, and it carries none that can be read; or they ask a hook that it does not "
        "export.",
        "Build it with its `cases.json`, mend the case, or change `spec.selfTest`.",
        "spec.selfTest: Required asks for a module that carries its own cases, and this one has no section "
        "hookline.cases: …",
    ),
    "PolicyForbids": Entry(
        "A PluginTrustPolicy forbids what the resource asks for.", "The repository, the version, or a permission.",
        "Change the resource, or have the policy changed.",
        "PluginTrustPolicy 'small' forbids it: spec.limits.memory: is 32Mi, and may be 16Mi at the most",
    ),
    "PolicyWouldForbid": Entry(
        "A policy in Audit would refuse the plugin, which runs.", "As `PolicyForbids`.",
        "Change it before the policy's mode becomes Enforce.",
        "PluginTrustPolicy 'later' (Audit) would refuse it: spec.source.oci.reference: must have a digest "
        "(@sha256:…)",
    ),
    "PermissionsIncreased": Entry(
        "The new version asks for permissions that are not granted, and that the one before did not ask for.",
        "The artifact's imports or its description grew.", "Grant them in `spec.permissions`, or go back.",
        "the new version asks for kv.read, which the one before it did not",
    ),
    "PermissionNotGranted": Entry(
        "The module imports a function whose permission is not granted.", "`spec.permissions` lacks it.",
        "Add it. With `permissionsPolicy: Lenient` the plugin runs, and the call is denied.",
        "the module imports env.kv_get, which needs the permission kv.read",
    ),
    "PodsFailed": Entry(
        "A pod cannot load what the others can.", "Its memory, its disk, or its version of Hookline.",
        "`kubectl logs POD -c hookline-sidecar`; `status.failures` has the pod and the sentence.",
        "1 of 2 pods run it; pod 'web-1' cannot load it: it does not compile; kubectl logs web-1 -c "
        "hookline-sidecar says more",
    ),
    "RolledBack": Entry(
        "The revision failed on probation, and all pods go back to the one before.",
        "Its first calls trapped, timed out or answered no valid decision: `status.rolledBack` has the figures.",
        "Change the resource, or what its settings come from; nothing is tried again before.",
        "revision r2 failed 5 of its first 12 calls in pod 'a' (trap: wasm trap: unreachable); all pods go back to "
        "the version before it",
    ),
    "FailingCalls": Entry(
        "Too many calls trap, time out, or answer no valid decision.", "As the causes `trap`, `timeout` and `result`.",
        "`status.failures` names pods, hooks and causes. Go back, or mend the plugin.",
        "38 % of 120 calls of pre_query in 2 of 3 pods failed in the last 30 s: trap: wasm trap: unreachable",
    ),
    "Paused": Entry(
        "The circuit breaker answers in the plugin's place.", "So many calls in a row failed.",
        "As `FailingCalls`; after a pause the plugin is asked again.",
        "100 % of 900 calls of pre_query in pod 'a' were answered by the circuit breaker in its place in the last "
        "30 s",
    ),
    "StoreUnavailable": Entry(
        "The server with the plugin's keys is away.", "As the cause `store`.", "Bring it back.",
        "100 % of 100 calls of pre_query in pod 'a' ended because the server with its keys was away in the last 30 s",
    ),
    "Slow": Entry(
        "Too many calls come near `limits.timeout`.", "The plugin does too much in a call, or the CPU is short.",
        "Have it do less, raise the limit, or give the pod more CPU.",
        "2 % of 1000 calls of pre_query in pod 'a' came near spec.limits.timeout in the last 30 s",
    ),
    "Overloaded": Entry(
        "Too many calls find their input or the queue over its limit.", "As the cause `overload`.",
        "Raise `limits.input` or `limits.concurrency`, or run more pods.",
        "50 % of 300 calls of post_query in 3 of 3 pods were over spec.limits.input, or found its queue full in "
        "the last 30 s",
    ),
    "DataSourceUnavailable": Entry(
        "A database of `spec.dataSources` cannot be reached.",
        "It is away, or refuses the password or the certificate.",
        "Bring it back, or mend the Secret; the message names it.",
        "data source 'grants' cannot be reached from 2 of 3 pods: the server refused the connection",
    ),
    "CacheUnavailable": Entry(
        "A cache on a server cannot be reached.", "Valkey is away, or refuses the password.",
        "Bring it back; plugins miss meanwhile.",
        "cache 'hot' cannot be reached from pod 'a': the server does not answer within 100ms",
    ),
    "SourceUnavailable": Entry(
        "A host of `spec.egress` cannot be reached.", "It is away, or its name or certificate is wrong.",
        "Bring it back, or mend the rule; the message names it.", "",
    ),
    "Unguarded": Entry(
        "Pods that match, or ask for a sidecar, have none.",
        "They were made before the label, or the webhook was away.",
        "Make them anew: `kubectl rollout restart`.",
        "1 pod that should be guarded has no sidecar: pod 'b': it is older than the operator: delete it",
    ),
    "WaitsForPlugin": Entry(
        "A pod does not start because a plugin is not loaded in it.", "The plugin is being loaded, or cannot be.",
        "Look at the plugin; `spec.failurePolicy.CAUSE: Open` lets pods start without it.",
        "the sidecar waits for plugin 'guard': it is being compiled",
    ),
    "NotObserved": Entry(
        "No operator looks at the resource, so what the status shows may be old.", "The operator is away.",
        "Look at the operator's pods.", "no operator is at work",
    ),
    "StatusNotWritten": Entry(
        "The API server refuses the status, so what it shows is old.",
        "The CRD is older than the operator, or a webhook refuses.", "Apply the chart's CRDs.", "",
    ),
}  # fmt: skip
"""By the reasons of conditions and Events that say that something is wrong, or under way."""

EXITS: Final[dict[int, Entry]] = {
    1: Entry(
        "A check was not passed.", "It is not signed as asked, not what it should be, or forbidden by a policy.",
        "The sentence on stderr says which check; the causes `verify` and `config` above say more.",
        "hookline: the module exports no hook; …",
    ),
    2: Entry(
        "The command line is wrong, or a file that it names is.", "An option, a key, a policy or a manifest.",
        "`hookline COMMAND --help`.", "hookline: keys/acme.pub is not a public key",
    ),
    3: Entry(
        "It cannot be had or written.", "A registry is away or refuses, a file is not there, a disk is full.",
        "Mend what the sentence names, and run it again.", "hookline: there is no file 'none.wasm'",
    ),
    70: Entry(
        "A fault in hookline itself.", "Nobody expected it.",
        "Set `HOOKLINE_TRACEBACK=1`, run it again, and report what it prints.",
        "hookline: this is a fault in hookline …",
    ),
    130: Entry("It was interrupted.", "Somebody pressed Ctrl-C.", "Run it again.", ""),
}  # fmt: skip
"""By the exit codes of ``hookline``."""

PARTS: Final[dict[str, dict[str, Entry]]] = {
    "A plugin is not loaded": LOADING,
    "A call fails": CALLS,
    "The sidecar cannot be asked": CLIENT,
    "Reasons of conditions and Events": REASONS,
    "Exit codes of the command line": {f"exit {code}": entry for code, entry in EXITS.items()},
}
"""The page: its headings, and below each the headings of its entries."""
_ANCHORS: Final = {name: name.lower().replace(" ", "-") for part in PARTS.values() for name in part}


def anchor(name: str) -> str | None:
    """The anchor of a cause, a stage, a reason, or ``exit CODE``; None for what is no trouble, such as ``Ready``."""
    return _ANCHORS.get(name)


def pointer(name: str) -> str | None:
    """``docs/reference/errors.md#trap``, or None: what a person may read more in."""
    found = anchor(name)
    return None if found is None else f"{PAGE}#{found}"
