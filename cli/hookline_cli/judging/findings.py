"""What is found in manifests, and where; for people, for programs and for GitHub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from hookline_artifacts.documents.kubernetes_yaml import Placed

Level = Literal["problem", "warning", "note"]
Judge = Literal["file", "schema", "webhook", "folder", "policy", "objects", "module"]
_PATH: Final = re.compile(r"(?P<path>[A-Za-z][^\s:]*): ")
_PART: Final = re.compile(r"\.?(?P<name>[^.\[\]]+)|\[(?P<index>[0-9]+)\]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is to be said, in one sentence that begins with the field's path where it has one."""

    level: Level
    by: Judge
    """Who would say it: the API server (``schema``), the operator's webhook, a sidecar with a folder, a policy of the
    same files; or what ``check`` alone sees: the file, other objects in it, the module."""
    message: str
    file: Path
    line: int | None = None
    column: int | None = None
    document: str = ""
    """Kind and name."""

    @property
    def where(self) -> str:
        """``file:line:column``."""
        return ":".join(str(each) for each in (self.file, self.line, self.column) if each is not None)

    @property
    def text(self) -> str:
        """The sentence, with the document that it is about."""
        return f"{self.document}: {self.message}" if self.document else self.message

    def data(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "level": self.level,
            "by": self.by,
            "file": str(self.file),
            "line": self.line,
            "column": self.column,
            "document": self.document or None,
            "message": self.message,
        }

    def github(self) -> str:
        """As a line that GitHub Actions makes an annotation of.

        https://docs.github.com/actions/reference/workflow-commands-for-github-actions#setting-an-error-message
        """
        level = {"problem": "error", "warning": "warning", "note": "notice"}[self.level]
        given = [f"file={_escaped(str(self.file), of_value=True)}"]
        given += [f"line={self.line}"] if self.line is not None else []
        given += [f"col={self.column}"] if self.column is not None else []
        return f"::{level} {','.join(given)}::{_escaped(self.text)}"


def _escaped(text: str, *, of_value: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if of_value else text


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One document of a file, perhaps an item of a List."""

    document: dict[str, Any]
    file: Path
    placed: Placed
    within: tuple[str | int, ...] = ()
    """Where in the file's document it stands."""

    @property
    def label(self) -> str:
        """Kind and name, for sentences."""
        metadata = self.document.get("metadata")
        given = metadata if isinstance(metadata, dict) else {}
        name = given.get("name") or given.get("generateName")
        return f"{self.document.get('kind')} '{name}'" if isinstance(name, str) else str(self.document.get("kind"))

    def finding(self, level: Level, by: Judge, sentence: str) -> Finding:
        """Of a sentence that begins with a path."""
        found = _PATH.match(sentence)
        place = self.placed.place((*self.within, *path_of(found["path"] if found is not None else "")))
        line, column = place if place is not None else (None, None)
        return Finding(
            level=level, by=by, message=sentence, file=self.file, line=line, column=column, document=self.label
        )


def path_of(text: str) -> tuple[str | int, ...]:
    """``spec.hooks[0]`` as keys and indices."""
    return tuple(
        each["name"] if each["name"] is not None else int(each["index"]) for each in _PART.finditer(text[:1000])
    )
