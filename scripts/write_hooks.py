"""Writes two tables of docs/reference/hooks.md, of attributes and of the identity, from the contract.

A test keeps them fresh.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from hookline_api.described import describe
from hookline_api.hooks import ATTRIBUTES, Identity

TARGET: Final = Path(__file__).parent.parent / "docs" / "reference" / "hooks.md"
_BEGIN: Final = "<!-- Generated from hookline_api/hooks.py by scripts/write_hooks.py; do not edit this table. -->\n\n"
_END: Final = "<!-- End of the generated table. -->\n"
_TYPES: Final = {"user_id": "text, required", "username": "text, required", "roles": "list of text",
                 "tenant_id": "text or null", "claims": "object"}  # fmt: skip


def attributes() -> str:
    """Every attribute that plugins agree about."""
    rows = [f"| `{name}` | {each.meaning} | {each.sent_by} | `{each.example}` |\n" for name, each in ATTRIBUTES.items()]
    return "| attribute | what it says | who sends it | example |\n|---|---|---|---|\n" + "".join(rows)


def identity() -> str:
    """Every field of an identity."""
    describe(Identity)
    rows = [
        f"| `{name}` | {_TYPES[name]} | {' '.join((field.description or '').split()).replace('``', '`')} |\n"
        for name, field in Identity.model_fields.items()
    ]
    return "| field | type | |\n|---|---|---|\n" + "".join(rows)


def render(page: str) -> str:
    """The page with its tables as the contract has them now. Raises ValueError where it has no places for them."""
    made = [attributes(), identity()]
    pattern = f"({re.escape(_BEGIN)}).*?({re.escape(_END)})"
    if len(re.findall(pattern, page, flags=re.DOTALL)) != len(made):
        raise ValueError("the page has not two places for tables")
    # What stood there may be nothing, and then the end follows on the beginning.
    return re.sub(pattern, lambda found: f"{found[1]}{made.pop(0)}\n{found[2]}", page, flags=re.DOTALL)


if __name__ == "__main__":
    TARGET.write_text(render(TARGET.read_text()))
