#!/usr/bin/env python3
"""Writes the world of components, sdk/hookline_sdk/wit/hookline.wit, from the contract."""

from __future__ import annotations

from pathlib import Path

from hookline_api.component import written_out

WIT = Path(__file__).resolve().parents[1] / "sdk" / "hookline_sdk" / "wit" / "hookline.wit"


def main() -> None:
    """Write it."""
    WIT.parent.mkdir(parents=True, exist_ok=True)
    WIT.write_text(written_out(), encoding="utf-8")


if __name__ == "__main__":
    main()
