"""Evidence travels as one file: what is written is what is read, and a stranger's file is bounded."""

from __future__ import annotations

import base64
import hashlib

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline_artifacts.errors import VerifyError
from hookline_artifacts.trust import evidence as module
from hookline_artifacts.trust.evidence import Evidence, Signature

FORMS = st.sampled_from(["simple", "bundle", "dsse", "ed25519"])
SIGNATURES = st.builds(
    Signature, form=FORMS, payload=st.binary(max_size=50), signature=st.binary(max_size=70),
    annotations=st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3),
)  # fmt: skip


def name(data):
    """A digest."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def made(documents=(b"{}",), signatures=()):
    """Evidence about the first document."""
    return Evidence(
        digest=name(documents[0]), documents={name(each): each for each in documents}, signatures=tuple(signatures)
    )


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4, unique=True), st.lists(SIGNATURES, max_size=5))
def test_what_is_written_is_what_is_read(documents, signatures):
    """Of every form, with any bytes; twice the same bytes come out."""
    wanted = made(documents, signatures)
    assert Evidence.read(wanted.write()) == wanted
    assert Evidence.read(wanted.write()).write() == wanted.write()


def test_what_was_left_out_does_not_travel():
    """It is a note for people where the signatures were collected."""
    noted = Evidence(digest=name(b"{}"), documents={name(b"{}"): b"{}"}, notes=("3 more not readable",))
    assert Evidence.read(noted.write()) == made()


def test_a_document_is_known_by_its_own_digest():
    """A file cannot say that other bytes are what was signed."""
    data = orjson.loads(made([b"{}"]).write())
    data["documents"] = [base64.b64encode(b"other").decode()]
    assert Evidence.read(orjson.dumps(data)).documents == {name(b"other"): b"other"}


BAD = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"7",
    "deep": b"[" * 100_000,
    "too large": b'{"a": "' + b"a" * module.MAX_EVIDENCE + b'"}',
    "many values": b"[" + b"1," * 70_000 + b"1]",
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_is_none_is_refused(what):
    """In one sentence."""
    with pytest.raises(VerifyError, match="the file with the artifact's signatures cannot be used"):
        Evidence.read(BAD[what])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2), ("version", None), ("digest", "sha256:short"), ("digest", 7), ("digest", None),
        ("documents", 7), ("documents", [7]), ("documents", ["?"]), ("documents", "sha256"),
        ("signatures", 7), ("signatures", [7]),
        ("signatures", [{}]), ("signatures", [{"form": "pgp", "payload": "", "signature": "", "annotations": {}}]),
        ("signatures", [{"form": ["simple"], "payload": "", "signature": "", "annotations": {}}]),
        ("signatures", [{"form": "simple", "payload": 1, "signature": "", "annotations": {}}]),
        ("signatures", [{"form": "simple", "payload": "", "signature": "", "annotations": []}]),
    ],
)  # fmt: skip
def test_a_field_that_makes_no_sense_is_refused(field, value):
    """Wherever it is."""
    data = orjson.loads(made().write())
    data[field] = value
    with pytest.raises(VerifyError, match="cannot be used"):
        Evidence.read(orjson.dumps(data))


def test_only_so_many_are_read():
    """Signatures and documents beyond the bounds are left out."""
    many = [Signature(form="simple", payload=b"%d" % n) for n in range(module.MAX_SIGNATURES + 5)]
    documents = [b"%d" % n for n in range(module.MAX_DOCUMENTS + 5)]
    read = Evidence.read(made(documents, many).write())
    assert (len(read.signatures), len(read.documents)) == (module.MAX_SIGNATURES, module.MAX_DOCUMENTS)
