"""Paths of URLs, as whoever sends or judges one has to read them."""

from __future__ import annotations


def without_dots(path: str) -> str:
    """A path of a relative reference, its ``.`` and ``..`` taken: RFC 3986, 5.2.4."""
    kept: list[str] = []
    parts = path.split("/")[1:]
    for part in parts:
        if part == "..":
            del kept[-1:]
        elif part != ".":
            kept.append(part)
    if parts[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
