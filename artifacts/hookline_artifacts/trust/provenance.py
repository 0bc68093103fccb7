"""What SLSA provenance says of an artifact: who built it, and from which repositories. Pure.

Of a predicate this is all that is kept: the rest may be megabytes, and takes many times that once it is read.

https://slsa.dev/spec/v1.0/provenance, https://slsa.dev/spec/v0.2/provenance
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from hookline_api.trust import PROVENANCE
from hookline_artifacts.trust import patterns

_OLD: Final = "https://slsa.dev/provenance/v0.2"
_GIT: Final = "git+"
MAX_SOURCES: Final = 256
"""Repositories that provenance may be of where it does not tell which one it is."""
_MAX_TEXT: Final = patterns.MAX_TEXT
"""Characters of a builder or a repository. A longer one fits no pattern."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Empty where nothing is said."""

    builder: str = ""
    sources: frozenset[str] = frozenset()
    """All of them where it does not tell which is the one."""
    has_more: bool = False
    """Whether it names more sources than are looked at, or one that is too long to be a name."""


def read(kind: str, predicate: Any) -> Provenance | None:
    """Of a statement's predicate; None where it is of another type."""
    if PROVENANCE.fullmatch(kind) is None:
        return None
    if kind == _OLD:
        builder, sources = _at(predicate, "builder", "id"), _old_sources(predicate)
    else:
        builder, sources = _at(predicate, "runDetails", "builder", "id"), _sources(predicate)
    kept = frozenset(each for each in sources if len(each) <= _MAX_TEXT)
    return Provenance(
        builder=builder if isinstance(builder, str) and len(builder) <= _MAX_TEXT else "",
        sources=kept,
        has_more=len(sources) > MAX_SOURCES or len(kept) < len(sources),
    )


def _old_sources(predicate: Any) -> set[str]:
    return {_repository(_at(predicate, "invocation", "configSource", "uri"))} - {""}


def _sources(predicate: Any) -> set[str]:
    definition = _at(predicate, "buildDefinition")
    named = _at(definition, "externalParameters", "workflow", "repository")
    if isinstance(named, str) and named:
        return {_bare(named)}
    found: set[str] = set()
    dependencies = _at(definition, "resolvedDependencies")
    for each in dependencies if isinstance(dependencies, list) else []:
        found |= {_repository(_at(each, "uri"))} - {""}
        if len(found) > MAX_SOURCES:
            break
    return found


def _repository(uri: Any) -> str:
    """Of ``git+https://host/path@ref``; empty for anything else."""
    return _bare(uri.removeprefix(_GIT).partition("@")[0]) if isinstance(uri, str) and uri.startswith(_GIT) else ""


def _bare(url: str) -> str:
    return url.removesuffix("/").removesuffix(".git")


def _at(node: Any, *names: str) -> Any:
    for name in names:
        node = node.get(name) if isinstance(node, dict) else None
    return node
