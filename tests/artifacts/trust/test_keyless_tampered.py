"""Whatever is changed in a signature that cosign made without a key: it does not count any more."""

from __future__ import annotations

import base64
import copy
import json
from dataclasses import replace

import pytest

import keyless_cases as cases
from hookline_artifacts.errors import SignatureError
from hookline_artifacts.trust import keyless

FREE_IN_VERSION_2 = {("verificationMaterial", "tlogEntries", 0, "logIndex")}
"""What nothing covers, and nobody reads: the index of an entry in the newer log is the proof's."""


def _leaves(node, path=()):
    if isinstance(node, dict):
        for key, each in node.items():
            yield from _leaves(each, (*path, key))
    elif isinstance(node, list):
        for index, each in enumerate(node):
            yield from _leaves(each, (*path, index))
    else:
        yield path


def _altered(text):
    """The same with a bit of its middle turned: of the bytes where it is base64, else of the text."""
    if isinstance(text, int):
        return text + 1
    if text.isdigit():
        return str(int(text) + 1)
    try:
        raw = bytearray(base64.b64decode(text, validate=True))
    except ValueError:
        return text[: len(text) // 2] + ("x" if text[len(text) // 2] != "x" else "y") + text[len(text) // 2 + 1 :]
    if not raw:
        return "AAAA"
    raw[len(raw) // 2] ^= 1
    return base64.b64encode(raw).decode()


def _set(node, path, change):
    made = copy.deepcopy(node)
    here = made
    for each in path[:-1]:
        here = here[each]
    if change is None:
        del here[path[-1]]
    else:
        here[path[-1]] = change(here[path[-1]])
    return made


def _bundle(name):
    return json.loads(cases.material(name).signatures[0].payload)


def _cases():
    for name in ("signed-3-log-1", "signed-3-log-2"):
        for path in _leaves(_bundle(name)):
            if name.endswith("2") and path in FREE_IN_VERSION_2:
                continue
            yield pytest.param(name, path, id=f"{name}:{'.'.join(map(str, path))}")


def _refused(signature):
    evidence = cases.material("signed-2")
    return cases.refusal(cases.asked(cases.identity()), replace(evidence, signatures=(signature,)))


def test_the_bundles_have_what_is_altered():
    """So that the tests below alter everything: both kinds of entries, a time stamp, a promise, a proof of three."""
    paths = [".".join(map(str, path)) for name in ("1", "2") for path in _leaves(_bundle(f"signed-3-log-{name}"))]
    for each in ("signedEntryTimestamp", "signedTimestamp", "hashes.2", "rootHash", "envelope", "payloadType", "sig"):
        assert any(path.endswith(each) for path in paths), each


@pytest.mark.parametrize(("name", "path"), list(_cases()))
def test_a_bundle_with_any_part_altered_is_refused(name, path):
    """Every text and every number of it."""
    made = _set(_bundle(name), path, _altered)
    signature = replace(cases.material(name).signatures[0], payload=json.dumps(made).encode())
    assert _refused(signature)


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=".".join(map(str, p))) for p in _leaves(_bundle("signed-3-log-1"))]
)
def test_a_bundle_with_any_part_missing_never_passes_for_more(path):
    """It is refused, or proves the same: what is left out was not needed."""
    made = _set(_bundle("signed-3-log-1"), path, None)
    evidence = cases.material("signed-3-log-1")
    signature = replace(evidence.signatures[0], payload=json.dumps(made).encode())
    try:
        (proof,) = cases.judged(cases.asked(cases.identity()), replace(evidence, signatures=(signature,)))
    except SignatureError:
        return
    assert (proof.identity, path) == (cases.ABOUT["subject"], ("verificationMaterial", "tlogEntries", 0, "logIndex"))


def _annotated(name):
    return cases.material(name).signatures[0]


@pytest.mark.parametrize("name", ["signed-2", "signed-2-stamped"])
@pytest.mark.parametrize(
    "path",
    [("SignedEntryTimestamp",), *(("Payload", each) for each in ("body", "integratedTime", "logIndex", "logID"))],
    ids=".".join,
)
def test_a_promise_with_any_part_altered_is_refused(name, path):
    """It is kept in an annotation by version 2 of cosign; a valid time stamp does not make up for it."""
    signature = _annotated(name)
    entry = json.loads(signature.annotations[keyless.ENTRY])
    made = signature.annotations | {keyless.ENTRY: json.dumps(_set(entry, path, _altered))}
    assert "does not count" in _refused(replace(signature, annotations=made))


def test_the_payload_the_signature_and_the_certificate_belong_together():
    """Each with those of another signature by the same identity, and altered."""
    first, second = _annotated("signed-2"), _annotated("signed-2-stamped")
    other = second.annotations
    for made in (
        replace(first, signature=second.signature),
        replace(first, payload=first.payload.replace(b"null", b'{"a":1}')),
        replace(first, payload=first.payload + b" "),
        replace(first, annotations=first.annotations | {keyless.CERTIFICATE: other[keyless.CERTIFICATE]}),
        replace(first, annotations=first.annotations | {keyless.ENTRY: other[keyless.ENTRY]}),
        replace(first, annotations=first.annotations | {keyless.STAMP: "{}"}),
        replace(first, annotations={keyless.CERTIFICATE: first.annotations[keyless.CERTIFICATE]}),
    ):
        assert made != first
        assert "does not count" in _refused(made)


def test_a_time_stamp_of_another_signature_proves_no_time():
    """Nor does one by an authority that the root does not name. The log's promise proves it then."""
    first, second = _annotated("signed-2"), _annotated("signed-2-stamped")
    annotations = first.annotations | {keyless.STAMP: second.annotations[keyless.STAMP]}
    evidence = replace(cases.material("signed-2"), signatures=(replace(first, annotations=annotations),))
    (proof,) = cases.judged(cases.asked(cases.identity()), evidence)
    moment = json.loads(first.annotations[keyless.ENTRY])["Payload"]["integratedTime"]
    plain = cases.judged(cases.asked(cases.identity()), cases.material("signed-2"))[0]
    assert proof.time == plain.time
    assert moment


def test_an_entry_of_the_newer_log_is_nothing_without_a_time_stamp():
    """It promises no time, so the certificate may have been over long ago."""
    made = _bundle("signed-3-log-2")
    material = made["verificationMaterial"]
    del material["timestampVerificationData"]
    signature = replace(_annotated("signed-3-log-2"), payload=json.dumps(made).encode())
    assert "inclusion promise or signed timestamp" in _refused(signature)
    material["tlogEntries"][0]["integratedTime"] = "1764455487"
    signature = replace(signature, payload=json.dumps(made).encode())
    assert "does not count" in _refused(signature)


def test_a_root_without_the_log_the_stamper_or_the_authority_proves_nothing():
    """Each alone is too little."""
    root = json.loads(cases.ROOT)
    for name, case in (("tlogs", "signed-3-log-1"), ("timestampAuthorities", "signed-3-log-2"), ("ctlogs", "signed-2")):
        other = root | {name: json.loads(cases.ROOT)[name][1:] if name == "tlogs" else []}
        evidence = cases.material(case)
        if name == "ctlogs":
            other[name] = [root["tlogs"][0]]
        why = cases.refusal(cases.asked(cases.identity(), root=json.dumps(other).encode()), evidence)
        assert "does not count" in why
