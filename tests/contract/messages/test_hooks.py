"""What a hook answers when nobody decides, and when a failure refuses: as docs/reference/hooks.md says it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hookline_api.hooks import DEFAULTS, OBSERVERS, RESULTS, Hook, closed

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "hooks.md"


def table(heading):
    """Of the table whose head begins so: the first word of the last column by hook."""
    rows = DOCUMENT.read_text().partition(f"| {heading}")[2].partition("\n\n")[0].splitlines()[2:]
    found = {}
    for row in rows:
        _, hooks, *_, last, _ = row.split("|")
        found |= dict.fromkeys(re.findall("`(.*?)`", hooks), re.findall("`(.*?)`", last)[0])
    return found


def test_the_document_has_the_defaults():
    """For each hook."""
    assert table("hook | input") == DEFAULTS


def test_the_document_has_the_refusing_answers():
    """For each that decides; there is nothing to refuse for the others."""
    refusals = {hook: closed(hook, "why")["action"] for hook in Hook}
    assert table("hook | closed answer") | dict.fromkeys(OBSERVERS, "accepted") == refusals


@pytest.mark.parametrize("hook", Hook)
def test_both_are_answers_of_the_contract(hook):
    """Whoever reads decisions can read them, and a refusal says why where there is anybody to tell."""
    shapes = {action: model for model in RESULTS[hook] for action in model.model_fields["action"].annotation.__args__}
    assert DEFAULTS[hook] in shapes
    refusal = closed(hook, "why")
    shapes[refusal["action"]].model_validate(refusal)
    assert ("why" in refusal.values()) == (refusal["action"] in {"denied", "deny", "block"})
