"""A component of the cache. By itself: with it comes wasmtime-py's model of components, and most plugins are none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from wasmtime.component import Component

if TYPE_CHECKING:
    import wasmtime


@dataclass(frozen=True, slots=True)
class ComponentFacts:
    """What a component's bytes say, and its compiled form does not."""

    memories: int
    pages: int
    """What its memories begin with, in pages of 64 KiB."""


class CompiledComponent(Component):
    """A component of the cache."""

    is_component: ClassVar[Literal[True]] = True
    facts = ComponentFacts(1, 0)


def load(engine: wasmtime.Engine, source: Path | bytes, facts: bytes) -> CompiledComponent:
    """As ``engine.load_compiled``. Raises WasmtimeError, and ValueError and TypeError for facts that are none."""
    if isinstance(source, Path):
        component = CompiledComponent.deserialize_file(engine, str(source))
    else:
        component = CompiledComponent.deserialize(engine, source)
    assert isinstance(component, CompiledComponent)  # noqa: S101 - it makes what it is asked of
    component.facts = ComponentFacts(*map(int, json.loads(facts)))
    return component
