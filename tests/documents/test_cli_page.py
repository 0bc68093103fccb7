"""docs/reference/cli.md is what the commands say of themselves."""

from __future__ import annotations

import write_cli
from hookline_cli import main

PAGE = write_cli.TARGET.read_text()


def test_the_page_is_fresh():
    """``make crds`` writes it."""
    assert write_cli.render() == PAGE, "run: make crds"


def test_each_command_has_a_section():
    """With its options and examples."""
    sections = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
    assert set(sections) == {"Exit codes", *(f"hookline {name}" for name in main.COMMANDS)}
    assert all(f"\nhookline {name} " in sections[f"hookline {name}"] for name in main.COMMANDS)
