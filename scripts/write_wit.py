#!/usr/bin/env python3
"""Writes the world of components from the contract: into the SDK, and into the packages that build components."""

from __future__ import annotations

from pathlib import Path

from hookline_api.component import written_out

SDK = Path(__file__).resolve().parents[1] / "sdk" / "hookline_sdk"
TARGETS = [SDK / folder / "hookline.wit" for folder in ("wit", "javascript", "python")]


def main() -> None:
    """Write it."""
    for target in TARGETS:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(written_out(), encoding="utf-8")


if __name__ == "__main__":
    main()
