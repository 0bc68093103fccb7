"""The CustomResourceDefinition in the repository is the one that the models make."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_crd_file_is_fresh() -> None:
    """`make crds` would change nothing."""
    spec = importlib.util.spec_from_file_location("write_crds", ROOT / "scripts" / "write_crds.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text() == module.render(), "run: make crds"
