"""Which files of a folder are somebody's sources: not what a build makes, and not what an editor keeps for itself."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_NOT_SOURCES: Final = frozenset(
    {"node_modules", "target", "build", "dist", "__pycache__", "zig-cache", ".zig-cache", "zig-out", ".git", ".venv"}
)
_MADE: Final = frozenset({".wasm", ".pyc", ".swp", ".tmp"})
_BESIDE: Final = frozenset({"cases.json", "wasmplugin.yaml"})
"""Which are read as they are when a plugin is called."""
_NO_PART: Final = frozenset({".md", ".xml", ".txt", ".lock"})
MOST: Final = 10_000
"""Files that are looked at."""


def files(roots: Collection[Path]) -> Iterator[Path]:
    """Those below some folders, and files that are named themselves."""
    for root in roots:
        if root.is_file():
            yield root
        for folder, folders, names in os.walk(root):
            folders[:] = [each for each in folders if each not in _NOT_SOURCES and not each.startswith(".")]
            yield from (Path(folder) / each for each in names if is_source(each))


def is_source(name: str) -> bool:
    """Whether a file is one, by its name."""
    return not name.startswith(".") and not name.endswith("~") and Path(name).suffix not in _MADE


def newer(folder: Path, module: Path) -> Path | None:
    """A source of a project that was changed after its module was built; None where there is none.

    Raises OSError where the module is gone.
    """
    built = module.stat().st_mtime_ns
    for path in itertools.islice(files([folder]), MOST):
        if path.name in _BESIDE or path.suffix in _NO_PART:
            continue
        try:
            if path.lstat().st_mtime_ns > built:
                return path
        except OSError:
            continue  # gone meanwhile
    return None
