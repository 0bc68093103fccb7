"""A project: the folder that ``hookline new`` makes, and what its ``hookline.toml`` says of it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hookline_api.text import readable
from hookline_artifacts.errors import ConfigError, FetchError
from hookline_cli.authoring.texts import did_you_mean, read

FILE: Final = "hookline.toml"
PLUGIN: Final = "plugin.json"
CASES: Final = "cases.json"
MANIFEST: Final = "wasmplugin.yaml"
NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MAX_FILE: Final = 64 * 1024
_FIELDS: Final = {"language", "build", "module", "test", "env", "name"}
_MAX_WORDS: Final = 100
_NUL: Final = "\0"
"""No name of a file, no word of a command and no variable can have it."""

Command = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """A folder with a ``hookline.toml``."""

    folder: Path
    name: str
    """Of the plugin."""
    language: str
    build: tuple[Command, ...]
    """What makes the module, in turn."""
    module: Path
    """What ``build`` makes."""
    test: tuple[Command, ...]
    """The language's own tests."""
    env: dict[str, str]
    """For ``build`` alone."""

    @property
    def built(self) -> Path:
        """The module with its description and its cases."""
        return self.folder / f"{self.name}.wasm"


def is_project(folder: Path) -> bool:
    """Whether a folder is one."""
    return (folder / FILE).is_file()


def read_project(folder: Path) -> Project:
    """What a folder says of itself. Raises FetchError where there is none, and ConfigError."""
    if not folder.is_dir():
        what = "is a file, and a project is a folder" if folder.exists() else "is not there"
        raise FetchError(f"the folder {folder} {what}; 'hookline new --lang LANGUAGE DIR' makes one", transient=False)
    path = folder / FILE
    if not path.exists():
        raise ConfigError(
            f"{folder} is not a project: it has no {FILE}; 'hookline new --lang LANGUAGE DIR' makes a project, and a "
            "module that is built already can be named itself: FILE.wasm"
        )
    raw = read(path, most=_MAX_FILE, what=FILE)
    try:
        data = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    for key in data:
        if key not in _FIELDS:
            more = did_you_mean(key, _FIELDS) or f"; there are {', '.join(sorted(_FIELDS))}"
            raise ConfigError(f"{path}: there is no field '{key}'{more}")
    language, module = (_text(path, data, key) for key in ("language", "module"))
    if (folder / module).resolve() != folder.resolve() and folder.resolve() not in (folder / module).resolve().parents:
        raise ConfigError(f"{path}: module: {module} is outside of the project")
    env = data.get("env", {})
    if not isinstance(env, dict) or not all(isinstance(each, str) for each in env.values()):
        raise ConfigError(f"{path}: env has to be a table of texts")
    for key, each in env.items():
        if not key or "=" in key or _NUL in key + each:
            raise ConfigError(
                f"{path}: env: {readable(key, 60)!r} cannot be set: a name has no '=', and none has a NUL"
            )
    return Project(
        folder=folder,
        name=_name(folder, path, data),
        language=language,
        build=_commands(path, data, "build", required=True),
        module=folder / module,
        test=_commands(path, data, "test", required=False),
        env=env,
    )


def named_by(folder: Path, fallback: str) -> str:
    """A name that a plugin may have, made of a folder's."""
    name = folder.resolve().name
    if not name.isascii():
        import unicodedata  # noqa: PLC0415 - few names have letters with marks

        name = "".join(each for each in unicodedata.normalize("NFKD", name) if not unicodedata.combining(each))
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return words[:63].strip("-") or fallback


def _name(folder: Path, path: Path, data: dict[str, Any]) -> str:
    if "name" in data:
        name = _text(path, data, "name")
        if not NAME.fullmatch(name):
            raise ConfigError(f"{path}: name: a plugin's name has lower-case letters, digits and '-' alone")
        return name
    try:
        from hookline_cli.authoring.describing import name_in  # noqa: PLC0415 - it reads the project's description

        name = name_in(folder / PLUGIN) or ""
    except (FetchError, ConfigError):
        name = ""  # it is told where the description is read
    return name if NAME.fullmatch(name) else named_by(folder, "plugin")


def _text(path: Path, data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value or _NUL in value:
        what = "is missing" if key not in data else "has to be a text, without a NUL in it"
        raise ConfigError(f'{path}: {key} {what}: {key} = "…"')
    return value


def _commands(path: Path, data: dict[str, Any], key: str, *, required: bool) -> tuple[Command, ...]:
    """``["make", "all"]``, or several of these."""
    value = data.get(key)
    if value is None and not required:
        return ()
    several: list[Any] = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    for each in several:
        is_words = (
            isinstance(each, list)
            and 0 < len(each) <= _MAX_WORDS
            and all(isinstance(word, str) and _NUL not in word for word in each)
        )
        if not is_words or not each[0]:
            what = "is missing" if key not in data else "has to be the words of a command"
            raise ConfigError(f'{path}: {key} {what}: {key} = ["program", "argument"]')
    return tuple(tuple(each) for each in several)
