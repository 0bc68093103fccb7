"""Documents and words that authors write: read within bounds, and told where they are wrong, and what to do."""

from __future__ import annotations

import difflib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hookline_api.cases import MAX_DOCUMENT, Case, CasesError, HostAnswer, Step, read_cases
from hookline_api.hooks import Hook, hook_spellings, parse_hook
from hookline_api.permissions import Permission, is_permission
from hookline_api.sentences import problems
from hookline_api.text import readable
from hookline_artifacts.errors import ConfigError, FetchError
from hookline_cli.bounded import opened

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_INPUT: Final = 64 * 2**20
"""Bytes of an input: no ``limits.input`` is larger."""
MAX_SETTINGS: Final = 2**20
_SHOWN: Final = 3
"""Problems of one document that are told."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'pre_query'?``, or nothing where nothing is near."""
    near = difflib.get_close_matches(word[:100].lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def read(path: Path, *, most: int, what: str) -> bytes:
    """The bytes of a file. Raises FetchError where it cannot be read, ConfigError where it is too long."""
    if path.is_dir():
        raise FetchError(f"{what}: {path} is a folder, and a file is wanted", transient=False)
    try:
        with opened(path) as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise FetchError(f"{what}: there is no file {path}", transient=False) from None
    except OSError as error:
        raise FetchError(f"{what}: {path} cannot be read: {error.strerror}", transient=False) from None
    if len(data) > most:
        raise ConfigError(f"{what}: {path} has more than {most} bytes, which is the most that is read")
    return data


def parsed(raw: bytes | str, *, what: str) -> Any:
    """JSON. Raises ConfigError with line and column."""
    try:
        return json.loads(raw)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(f"{what} is not JSON: {where}: {error.msg[:1].lower()}{error.msg[1:]}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} is not JSON: byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise ConfigError(f"{what} is not JSON that can be read: it is nested too deep") from None
    except ValueError:  # Python's own bound of digits
        raise ConfigError(f"{what} is not JSON that can be read: a number has thousands of digits") from None


def an_object(raw: bytes | str, *, what: str) -> dict[str, Any]:
    """A JSON object. Raises ConfigError."""
    found = parsed(raw, what=what)
    if not isinstance(found, dict):
        raise ConfigError(f"{what} is {_kind(found)}, and has to be an object: {{…}}")
    return found


def settings_of(path: Path) -> dict[str, Any]:
    """An object in JSON or YAML. Raises FetchError and ConfigError."""
    raw = read(path, most=MAX_SETTINGS, what="--config-file")
    if path.suffix not in {".yaml", ".yml"}:
        return an_object(raw, what=str(path))
    from hookline_artifacts.documents import kubernetes_yaml  # noqa: PLC0415 - few calls need it

    try:
        documents = list(kubernetes_yaml.read(raw))
    except ValueError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise ConfigError(f"{path} has to hold one mapping")
    return dict(documents[0])


def hook_named(word: str) -> Hook:
    """A hook, in any spelling that manifests may have. Raises ConfigError."""
    try:
        return parse_hook(word.strip().replace("-", "_"))
    except ValueError:
        raise ConfigError(_no_hook(word)) from None


def _no_hook(word: str) -> str:
    more = did_you_mean(word, Hook) or f"; the hooks are {', '.join(Hook)}"
    return f"{readable(word, 60)!r} is no hook{more}"


def check_permissions(words: Iterable[str]) -> list[str]:
    """Permissions that a resource could grant. Raises ConfigError."""
    found = list(dict.fromkeys(words))
    for each in found:
        if not is_permission(each):
            near = did_you_mean(each.replace("_", "."), Permission)
            known = f"; the permissions are {', '.join(Permission)}, query.execute:SOURCE and custom.NAME"
            raise ConfigError(f"{readable(each, 60)!r} is no permission{near or known}")
    return found


def cases_of(raw: bytes, *, what: str) -> list[Case]:
    """The cases of a document. Raises ConfigError, which says of which case and which field."""
    if len(raw) <= MAX_DOCUMENT:
        _check_spelling(parsed(raw, what=what), what)
    try:
        return read_cases(raw)
    except CasesError as error:
        raise ConfigError(f"{what}: {error}") from None


def _check_spelling(document: Any, what: str) -> None:
    """Raises ConfigError for a field or a hook that is misspelt, with the one that may be meant."""
    for number, case in enumerate(document if isinstance(document, list) else (), 1):
        if not isinstance(case, dict):
            continue
        name = case.get("name")
        label = f"{what}: case {number}" + (f" ({readable(name, 60)!r})" if isinstance(name, str) else "")
        steps = case.get("steps")
        parts = [(case, {*Case.model_fields, *({} if "steps" in case else Step.model_fields)})]
        parts += [(each, {*Step.model_fields}) for each in (steps if isinstance(steps, list) else ())]
        for part, fields in parts:
            for key, value in part.items() if isinstance(part, dict) else ():
                if key not in fields and (near := did_you_mean(key, fields)):
                    raise ConfigError(f"{label}: there is no field {readable(key, 60)!r}{near}")
                if key == "hook" and isinstance(value, str) and value.lower() not in hook_spellings():
                    raise ConfigError(f"{label}: {_no_hook(value)}")


def answers_of(raw: bytes, *, what: str) -> list[HostAnswer]:
    """What stands for databases and servers. Raises ConfigError."""
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - few calls have any

    try:
        return TypeAdapter(list[HostAnswer]).validate_python(parsed(raw, what=what))
    except ValidationError as error:
        raise ConfigError(f"{what}: {'; '.join(map(str, problems(error, most=_SHOWN)))}") from None


def from_argument(text: str, *, what: str) -> bytes:
    """``@FILE``, ``-`` for stdin, or the text itself. Raises FetchError and ConfigError."""
    if text == "-":
        data = sys.stdin.buffer.read(MAX_INPUT + 1)
        if len(data) > MAX_INPUT:
            raise ConfigError(f"{what}: stdin has more than {MAX_INPUT} bytes, which is the most that is read")
        return data
    if text.startswith("@"):
        return read(Path(text[1:]), most=MAX_INPUT, what=what)
    return text.encode(errors="surrogateescape")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
