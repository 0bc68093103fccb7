"""Writes helm/README.md: the chart's values as a table, from the comments in values.yaml. A test keeps it fresh."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
VALUES = ROOT / "helm" / "values.yaml"
TARGET = ROOT / "helm" / "README.md"

_HEAD = """\
<!-- Generated from values.yaml by scripts/write_values.py; do not edit. -->
# The chart

The values of the chart that installs Hookline's operator. [Installing](../docs/operate/installing.md) explains those
that most installations set.

| value | default | |
|---|---|---|
"""
_KEY = re.compile(r"( *)([A-Za-z]+):")


def described() -> Iterator[tuple[str, str]]:
    """Each value with a comment that begins with ``# --``: its path, ``image.tag``, and the comment."""
    path: list[str] = []
    comment: list[str] = []
    for line in VALUES.read_text().splitlines():
        text = line.strip()
        if text.startswith("# --"):
            comment = [text.removeprefix("# --").strip()]
        elif text.startswith("#") and comment:
            comment.append(text.removeprefix("#").strip())
        elif key := _KEY.match(line):
            path = [*path[: len(key[1]) // 2], key[2]]
            if comment:
                yield ".".join(path), " ".join(comment)
            comment = []


def default(path: str) -> Any:
    """What values.yaml has at ``image.tag``."""
    found = yaml.safe_load(VALUES.read_text())
    for part in path.split("."):
        found = found[part]
    return found


def render() -> str:
    """The file's content."""
    rows = [f"| `{path}` | `{json.dumps(default(path))}` | {comment} |\n" for path, comment in described()]
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    TARGET.write_text(render())
