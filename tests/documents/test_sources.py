"""docs/operate/sources.md: its resource is one, and its figures are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import yaml

from hookline_api.outbound import DEFAULT_CACHE, EgressRule, PostgresSource, PostgresTls
from hookline_api.resources import WasmPlugin
from hookline_runtime.host.cache_store import DEFAULT_LIMIT

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operate" / "sources.md").read_text()


def test_the_resource_is_one():
    """With all that the page is about, and no permission or source without use."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    spec = WasmPlugin.model_validate(yaml.safe_load(block)).spec
    assert spec.data_sources[0].postgres.statement_timeout < spec.limits.wait / 2
    assert (spec.caches[0].name, spec.egress[0].credential is None) == ("roles", False)


def first_cells(heading: str) -> set[str]:
    """What stands as code in the first column of a section's table."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| ([^|]*) \|", section, re.MULTILINE))))


def test_the_table_of_egress_has_every_field_of_a_rule():
    """And no other."""
    assert first_cells("Egress") == {each.alias or name for name, each in EgressRule.model_fields.items()}


def test_the_table_of_tls_has_every_mode():
    """Of PostgreSQL."""
    assert first_cells("TLS") >= set(get_args(PostgresTls.model_fields["mode"].annotation))


def test_its_defaults_are_the_code_s():
    """Said in the page in numbers."""
    assert DEFAULT_CACHE.memory is not None
    assert DEFAULT_CACHE.memory.size == 16 * 2**20
    assert "One of the default size (16Mi) fits." in PAGE
    assert DEFAULT_LIMIT == 64 * 2**20
    assert "`--cache-memory` (64Mi by default), of which a third holds entries: 20Mi" in PAGE
    assert DEFAULT_LIMIT // 16 * 5 == 20 * 2**20
    assert PostgresSource.model_fields["access"].default == "ReadOnly"
    assert "`access: ReadOnly`, the default" in PAGE
