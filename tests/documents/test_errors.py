"""docs/reference/errors.md explains every word for something that goes wrong, each under its own heading."""

from __future__ import annotations

import re
from typing import get_args

import pytest

import write_errors
from hookline_api import errors_page
from hookline_api.bundle import CallCause, LoadCause, Stage
from hookline_api.distribution import Trouble
from hookline_cli import frame
from hookline_client.errors import Cause
from hookline_operator.lead import pod_events
from hookline_operator.status import reasons, staleness

WORDS = {
    "causes of loading": {*get_args(LoadCause), *get_args(Stage)},
    "causes of calls": set(get_args(CallCause)),
    "causes of the client": set(get_args(Cause)),
    "troubles": set(get_args(Trouble)),
    "reasons": {
        value for name, value in vars(reasons).items() if name.isupper() and name[0] != "_" and isinstance(value, str)
    } | {*reasons.WRONG, *reasons.RECONCILING, *reasons.STALLED},
    "Events of pods": {pod_events.UNGUARDED, pod_events.WAITS},
    "staleness": {staleness.NOT_OBSERVED},
    "exit codes": {f"exit {code}" for code in frame.EXITS if code},
}  # fmt: skip
FINE = {
    reasons.READY, reasons.HEALTHY, reasons.RESOLVED, reasons.VERIFIED, reasons.GRANTED, reasons.PROGRAMMED,
    reasons.SOURCES_AVAILABLE, reasons.SETTLED,
}  # fmt: skip


def test_the_page_is_fresh():
    """``make crds`` writes it."""
    assert write_errors.render() == write_errors.TARGET.read_text(), "run: make crds"


@pytest.mark.parametrize("kind", WORDS)
def test_every_word_has_an_anchor(kind):
    """A new cause, reason or exit code is explained before it is met."""
    for word in WORDS[kind] - FINE:
        assert errors_page.anchor(word) is not None, word
        assert errors_page.pointer(word) == f"docs/reference/errors.md#{errors_page.anchor(word)}"


def test_every_anchor_is_of_a_word():
    """And stands on the page, once."""
    words = set().union(*WORDS.values())
    named = {name for part in errors_page.PARTS.values() for name in part}
    assert named - words == set()
    headings = re.findall(r"^#{2,3} (.+)$", write_errors.TARGET.read_text(), re.MULTILINE)
    anchors = [each.lower().replace(" ", "-") for each in headings]
    assert len(set(anchors)) == len(anchors)
    assert {errors_page.anchor(name) for name in named} <= set(anchors)


def test_what_is_no_trouble_has_none():
    """Nobody is sent to read about what goes well."""
    assert all(errors_page.pointer(word) is None for word in (*FINE, "", "exit 0"))


def test_every_entry_says_what_why_and_what_to_do():
    """In sentences."""
    for part in errors_page.PARTS.values():
        for name, entry in part.items():
            for text in entry[:3]:
                assert text.endswith("."), name
                assert text[0].isupper() or text[0] == "`", name
