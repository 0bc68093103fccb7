"""Writes the table of docs/host-functions.md, from the contract. A test keeps it fresh."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from hookline_api.abi import HOST_FUNCTIONS

TARGET: Final = Path(__file__).parent.parent / "docs" / "host-functions.md"

_BEGIN: Final = (
    "<!-- Generated from hookline_api/abi.py by scripts/write_host_functions.py; do not edit this table. -->\n\n"
)
_END: Final = "<!-- End of the generated table. -->\n"
_HEAD: Final = "| function | module | type | permission |\n|---|---|---|---|\n"
TYPES: Final = {"i": "i32", "I": "i64", "F": "f64"}
"""By the contract's letters."""


def table() -> str:
    """Every function: its name, its type and its permission."""
    rows = []
    for (module, name), function in HOST_FUNCTIONS.items():
        params, results = (", ".join(TYPES[letter] for letter in part) for part in (function.params, function.results))
        permission = "none" if function.permission is None else f"`{function.permission.value}`"
        rows.append(f"| [`{name}`](#{name}) | `{module}` | `({params}) -> {results}` | {permission} |\n")
    return _HEAD + "".join(rows)


def render(page: str) -> str:
    """The page with its table as the contract has it now. Raises ValueError where the page has no place for it."""
    made, places = re.subn(
        f"({re.escape(_BEGIN)}).*?({re.escape(_END)})",
        lambda found: f"{found[1]}{table()}\n{found[2]}",
        page,
        flags=re.DOTALL,
    )
    if places != 1:
        raise ValueError("the page has no place for the table, or several")
    return made


if __name__ == "__main__":
    TARGET.write_text(render(TARGET.read_text()))
