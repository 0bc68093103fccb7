"""What stands under a field in the source, as its description: for whoever writes schemas and pages of models.

pydantic can read that itself (``use_attribute_docstrings``), and does so in each program that imports a model, which is
a quarter of the time in which a command line starts. So it is read here, of the models that are written.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import typing
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Mapping

_DESCRIBED: Final[set[type[BaseModel]]] = set()


def describe(*models: type[BaseModel]) -> None:
    """Give the fields of models, and of all models in them, their descriptions."""
    found: dict[type[BaseModel], None] = {}
    for each in models:
        _find(each, found)
    new = [each for each in found if each not in _DESCRIBED]
    for each in new:
        for name, field in each.model_fields.items():
            if field.description is None:
                field.description = _text(each, name)
    for each in new:  # parts come before their whole, which has them built in
        each.model_rebuild(force=True)
    _DESCRIBED.update(new)


def _find(annotation: Any, found: dict[type[BaseModel], None], within: tuple[type[BaseModel], ...] = ()) -> None:
    """The models of an annotation, the parts before the whole."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation not in found and annotation not in within:
            for field in annotation.model_fields.values():
                _find(field.annotation, found, (*within, annotation))
            found[annotation] = None
        return
    for each in typing.get_args(annotation):
        _find(each, found, within)


def _text(model: type[BaseModel], name: str) -> str | None:
    """What stands under a field where it is declared."""
    for each in model.__mro__:
        if name in inspect.get_annotations(each):
            return _texts(each.__module__).get((each.__name__, name))
    return None


@functools.cache
def _texts(module: str) -> Mapping[tuple[str, str], str]:
    """By class and field."""
    found = {}
    for part in ast.parse(inspect.getsource(sys.modules[module])).body:
        if not isinstance(part, ast.ClassDef):
            continue
        for field, text in zip(part.body, part.body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[part.name, name] = inspect.cleandoc(words)
    return found
