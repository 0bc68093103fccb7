"""The CustomResourceDefinitions in the repository are those that the models make."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_crd_files_are_fresh() -> None:
    """`make crds` would change nothing."""
    spec = importlib.util.spec_from_file_location("write_crds", ROOT / "scripts" / "write_crds.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert {file.name for file in (ROOT / "crds").glob("*.yaml")} == set(module.DEFINITIONS)
    for name, (_, definition) in module.DEFINITIONS.items():
        assert (ROOT / "crds" / name).read_text() == module.render(definition), "run: make crds"
