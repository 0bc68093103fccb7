"""Files that change while somebody works on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from watchfiles import awatch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from watchfiles import Change

_NOT_SOURCES: Final = frozenset(
    {"node_modules", "target", "build", "dist", "__pycache__", "zig-cache", ".zig-cache", "zig-out", ".git", ".venv"}
)
_SETTLED_MS: Final = 50
"""After the last change, how long nothing more may change: editors write a file in several steps."""


async def changes(paths: Collection[Path], *, made: Collection[Path] = ()) -> AsyncIterator[set[Path]]:
    """What has changed below these paths, again and again. ``made`` are files that a build makes itself."""
    ours = {each.resolve() for each in made}
    roots = [each.resolve() for each in paths]

    def counts(_: Change, changed: str) -> bool:
        path = Path(changed)
        root = next((each for each in roots if each == path or each in path.parents), None)
        if root is None or path in ours or path.suffix in {".wasm", ".pyc", ".swp", ".tmp"} or path.name.endswith("~"):
            return False
        parts = path.relative_to(root).parts
        return not _NOT_SOURCES.intersection(parts) and not (parts and parts[-1].startswith("."))

    async for found in awatch(*roots, watch_filter=counts, debounce=400, step=_SETTLED_MS):
        yield {Path(each) for _, each in found}
