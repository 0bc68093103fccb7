"""The pages of docs/reference about resources are what the resources' definitions say."""

from __future__ import annotations

import re

import pytest

import write_reference
from hookline_api.policies import PluginTrustPolicySpec

SPECS = {"plugintrustpolicy.md": PluginTrustPolicySpec}


@pytest.mark.parametrize("page", SPECS)
def test_the_page_is_fresh(page):
    """``make crds`` writes it."""
    assert write_reference.render(page) == (write_reference.FOLDER / page).read_text(), "run: make crds"


@pytest.mark.parametrize("page", SPECS)
def test_every_field_of_the_spec_has_a_section(page):
    """And says something."""
    text = (write_reference.FOLDER / page).read_text()
    found = dict(re.findall(r"^## spec\.(\w+)(?:\[\])?\n\n(.+)$", text, re.MULTILINE))
    assert set(found) == {each.alias or name for name, each in SPECS[page].model_fields.items()}
