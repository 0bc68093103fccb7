"""Writes the inputs and answers of the twelve hooks as types, for each SDK. A test keeps them fresh."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Final

import sdk_types
from sdk_types import model

ROOT: Final = Path(__file__).parent.parent


def languages() -> list[ModuleType]:
    """The modules that write a language's types."""
    names = [each.name for each in pkgutil.iter_modules(sdk_types.__path__)]
    found = [importlib.import_module(f"{sdk_types.__name__}.{name}") for name in names]
    return [module for module in found if hasattr(module, "render")]


def main() -> None:
    """Write all of them."""
    contract = model.read()
    for language in languages():
        (ROOT / language.TARGET).write_text(language.render(contract), encoding="utf-8")


if __name__ == "__main__":
    main()
