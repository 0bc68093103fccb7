"""Writes docs/schemas/*.json, which editors check manifests by, from the resource's models. A test keeps them fresh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from hookline_api.manifest_schema import FLAVOURS, schema

FOLDER: Final = Path(__file__).parent.parent / "docs" / "schemas"


def render(flavour: str) -> str:
    """The text of one file."""
    return json.dumps(schema(flavour), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in FLAVOURS:
        (FOLDER / f"{each}.json").write_text(render(each))
