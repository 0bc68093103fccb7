"""Writes docs/reference/cli.md: every command, from what it says of itself. A test keeps it fresh."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from hookline_cli import frame, main

TARGET: Final = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"
_HEAD: Final = """\
# The command line

This page lists every command of `hookline`, with its options and examples, for whoever signs, verifies and moves
plugins. `hookline COMMAND --help` says the same. Install it with `pip install 'hookline[cli]'`; the sidecar's image has
it too.

Each command prints text for people, or with `--json` one object for programs. Errors are one sentence on stderr; with
`--json` they are `{"error": …, "exit": …}` on stdout. Progress is shown on terminals alone. Logins to registries are
those of docker's configuration.

<!-- Generated from cli/hookline_cli by scripts/write_cli.py; do not edit. -->

## Exit codes

| code | when |
|---|---|
"""
_OPTIONS: Final = "| | |\n|---|---|\n"


def commands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by its whole name, in the order in which they are listed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands(found, f"{prefix}{name} ")
        elif found is not None:
            yield f"{prefix}{name}", found


def _text(command: click.Command) -> str:
    """Its help as paragraphs; what may not be wrapped is a block of code."""
    lines = [line.removeprefix("    ") for line in (command.help or "").splitlines()]
    parts = re.split(r"\n\n+", "\n".join(lines))
    return "\n\n".join(
        f"```\n{part.removeprefix(chr(8)).strip()}\n```" if part.startswith("\b") else part for part in parts
    )


def _options(command: click.Command) -> str:
    context = click.Context(command)
    rows = []
    for each in command.params:
        record = each.get_help_record(context)
        if record is not None and record[1]:
            name, text = (part.replace("|", "\\|") for part in record)
            rows.append(f"| `{name}` | {text} |\n")
    return _OPTIONS + "".join(rows)


def _examples(command: click.Command) -> str:
    text = (command.epilog or "").partition("examples:\n")[2].partition("\n\n")[0]
    return "\n".join(line.removeprefix("  ") for line in text.splitlines())


def render() -> str:
    """The whole page."""
    parts = [_HEAD, *(f"| {code} | {what} |\n" for code, what in frame.EXITS.items())]
    for name, command in commands(main.program()):
        usage = " ".join(["hookline", name, *command.collect_usage_pieces(click.Context(command))])
        parts.append(
            f"\n## hookline {name}\n\n{_text(command)}\n\n```\n{usage}\n```\n\n{_options(command)}\n"
            f"```sh\n{_examples(command)}\n```\n"
        )
    return "".join(parts)


if __name__ == "__main__":
    TARGET.write_text(render())
