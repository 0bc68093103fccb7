"""Files that change while somebody works on them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from watchfiles import awatch

from hookline_cli.authoring.sources import MOST, files, is_source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from watchfiles import Change

_SETTLED_MS: Final = 50
"""After the last change, how long nothing more may change: editors write a file in several steps."""
_PATIENCE_MS: Final = 400
"""… and how long that may go on."""

_EACH_MS: Final = 1000
_MAX_AGE_S: Final = 10.0

_State = dict[str, tuple[int, int]]


class Sources:
    """Those below some paths, as they are when this is made: whatever changes from then on is noticed."""

    def __init__(self, paths: Collection[Path]) -> None:
        self._roots = [each.resolve() for each in paths]
        self._seen = _state(self._roots)

    async def changes(self) -> AsyncIterator[float]:
        """Whenever a source is another than before: when that was, by the monotonic clock.

        What a build makes, and takes away again, is no source. Files are looked at each second, too: before there is
        somebody who watches, and on a disk that tells nobody, a change is as good.
        """
        events = awatch(
            *self._roots, watch_filter=_counts, debounce=_PATIENCE_MS, step=_SETTLED_MS, rust_timeout=_EACH_MS,
            yield_on_timeout=True,
        )  # fmt: skip
        async for _ in events:
            now = _state(self._roots)
            if now != self._seen:
                since, self._seen = _since(now, self._seen), now
                yield since


def _counts(_: Change, changed: str) -> bool:
    return is_source(Path(changed).name)


def _since(now: _State, before: _State) -> float:
    """When the last of the changed files was written, as its time says; now where that makes no sense."""
    newest = max((state[1] for path, state in now.items() if before.get(path) != state), default=0)
    age = time.time() - newest / 1e9
    return time.monotonic() - (age if 0 <= age < _MAX_AGE_S else 0.0)


def _state(roots: Collection[Path]) -> _State:
    """Size and time of each source."""
    found: _State = {}
    for path in files(roots):
        try:
            state = path.stat()
        except OSError:
            continue  # gone meanwhile
        found[str(path)] = (state.st_size, state.st_mtime_ns)
        if len(found) >= MOST:
            break
    return found
