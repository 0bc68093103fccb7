"""Writes docs/reference/openapi.json: what a sidecar answers at /openapi.json, as a file. A test keeps it fresh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from hookline_sidecar.control.admin import openapi

TARGET: Final = Path(__file__).parent.parent / "docs" / "reference" / "openapi.json"


def render() -> str:
    """The file. The version is that of the paths: a sidecar tells its own."""
    made = openapi.document()
    return json.dumps({**made, "info": made["info"] | {"version": "v1"}}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render())
