"""Projects as ``hookline new`` writes them: a language's template, with the SDK that it is built with."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hookline_api.manifest_schema import schema
from hookline_artifacts.errors import ConfigError, FetchError
from hookline_cli.authoring.project import NAME, named_by
from hookline_cli.authoring.texts import did_you_mean
from hookline_sdk import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

SDK: Final = "hookline-sdk"
SCHEMA: Final = "wasmplugin.schema.json"
"""In there: what editors check the manifest by; its first line names it."""
_WORDS: Final = ("my-plugin", "my_plugin")
_SPELLINGS: Final = {"js": "javascript", "py": "python", "ts": "assemblyscript", "as": "assemblyscript", "golang": "go"}
_NEVER: Final = frozenset({"node_modules", "target", "__pycache__", "zig-cache", ".zig-cache", "zig-out"})
_LEFT_OUT: Final = (".wasm", ".pyc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """What a project of one language begins as."""

    language: str
    folder: Path
    sdk: Path


def templates(folder: Path | None = None) -> list[Template]:
    """Those that there are, by language."""
    folder = folder or FOLDER
    projects = sorted((folder / "templates").glob("*/hookline.toml"))
    return [Template(language=each.name, folder=each, sdk=folder / each.name) for each in (p.parent for p in projects)]


def template(language: str, folder: Path | None = None) -> Template:
    """That of a language. Raises ConfigError."""
    found = {each.language: each for each in templates(folder)}
    asked = language.lower()
    for name in (asked, _SPELLINGS.get(asked, asked), *(short for short, long in _SPELLINGS.items() if long == asked)):
        if name in found:
            return found[name]
    more = did_you_mean(asked, found) or f"; there are {', '.join(found) or 'none in this installation'}"
    raise ConfigError(f"there is no template for the language {language!r:.40}{more}")


def make(made_of: Template, target: Path, name: str | None) -> tuple[str, list[Path]]:
    """Write a project; its name and its files. All of it or nothing: what is there is never touched.

    Raises ConfigError and FetchError.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        what = "is not empty" if target.is_dir() else "is a file"
        raise ConfigError(f"{target} {what}, and nothing is ever overwritten: name a folder that is not there")
    plugin = name or named_by(target, "my-plugin")
    if not NAME.fullmatch(plugin):
        raise ConfigError(
            f"{plugin!r:.80} cannot be a plugin's name: it has lower-case letters, digits and '-', and begins and ends "
            "without '-', at most 63"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            whole = Path(scratch) / "project"
            _fill(made_of, whole, plugin)
            written = sorted(each.relative_to(whole) for each in whole.rglob("*") if each.is_file())
            whole.replace(target)  # an empty folder gives way, a full one does not
    except OSError as error:
        raise FetchError(f"{error.filename or target} cannot be written: {error.strerror}", transient=False) from None
    return plugin, written


def _fill(made_of: Template, whole: Path, plugin: str) -> None:
    for source, relative in _files(made_of.folder):
        place = whole / _renamed(str(relative), plugin)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(_renamed(source.read_bytes().decode("latin-1"), plugin).encode("latin-1"))  # any bytes
        place.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
    sdk = _files(made_of.sdk) if made_of.sdk.is_dir() else ()
    for source, relative in sdk:
        place = whole / SDK / relative
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
    (whole / SDK).mkdir(exist_ok=True)
    (whole / SDK / SCHEMA).write_text(f"{json.dumps(schema('wasmplugin'), indent=1)}\n")


def _files(folder: Path) -> Iterator[tuple[Path, Path]]:
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not _NEVER.intersection(relative.parts) and path.suffix not in _LEFT_OUT:
            yield path, relative


def _renamed(text: str, plugin: str) -> str:
    hyphens, underscores = _WORDS
    return text.replace(hyphens, plugin).replace(underscores, plugin.replace("-", "_"))
