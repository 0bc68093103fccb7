"""docs/reference/wasmplugin.md is what the resource's definition says."""

from __future__ import annotations

import re

import write_reference
from hookline_api.resources import WasmPluginSpec

PAGE = write_reference.TARGET.read_text()


def test_the_page_is_fresh():
    """``make crds`` writes it."""
    assert write_reference.render() == PAGE, "run: make crds"


def test_every_field_of_the_spec_has_a_section():
    """And says something."""
    found = dict(re.findall(r"^## spec\.(\w+)(?:\[\])?\n\n(.+)$", PAGE, re.MULTILINE))
    assert set(found) == {each.alias or name for name, each in WasmPluginSpec.model_fields.items()}
