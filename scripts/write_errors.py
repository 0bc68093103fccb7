"""Writes docs/reference/errors.md: every cause, reason and exit code, from the contract. A test keeps it fresh."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hookline_api.errors_page import PAGE, PARTS

TARGET: Final = Path(__file__).parent.parent / PAGE
_HEAD: Final = """\
# Errors

This page explains every word that Hookline has for something that goes wrong, for whoever meets one: the `failure` of
a decision, the `cause` of `status.failures` and of `/v1/plugins`, the reasons of conditions and Events, and the exit
codes of `hookline`. `more` in a status and in `/v1/plugins` leads here.

<!-- Generated from crds/hookline_api/errors_page.py by scripts/write_errors.py; do not edit. -->
"""


def render() -> str:
    """The whole page."""
    written = [_HEAD]
    for part, entries in PARTS.items():
        written.append(f"\n## {part}\n")
        for name, entry in entries.items():
            written.append(f"\n### {name}\n\n{entry.what}\n\n- **Why.** {entry.why}\n- **What to do.** {entry.do}\n")
            if entry.example:
                written.append(f"\n```\n{entry.example}\n```\n")
    return "".join(written)


if __name__ == "__main__":
    TARGET.write_text(render())
