"""Files as commands read them: within bounds, and without what reaches registries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hookline_artifacts.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def read_file(path: Path, *, most: int, what: str, missing: str = "") -> bytes:
    """The bytes of a small file. Raises ConfigError, with ``missing`` behind where there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        more = missing if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"{what}: {path} cannot be read: {error.strerror}{more}") from None
    if len(data) > most:
        raise ConfigError(f"{what}: {path} has more than {most} bytes")
    return data
