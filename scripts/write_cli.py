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

This page lists every command of `hookline`, with its options and examples, for whoever writes, publishes, signs and
runs plugins. `hookline COMMAND --help` says the same. [Compared](cli-compared.md) sets it beside kwctl, spin and
extism.

Install it with `pip install 'hookline[cli]'`; the sidecar's image has it too. `make cli` builds it as one file,
`hookline.pyz`, which needs a Python and no package. Some of what it holds is compiled, so the file is for one version
of CPython (such as 3.13) on one kind of machine (such as Linux on x86-64), and says so on any other. It unpacks itself
once into the user's cache (`XDG_CACHE_HOME`, or `~/.cache`).

As a plugin of kubectl it is `kubectl hookline`: the same program, found as `kubectl-hookline` on the path (a link of
that name to `hookline.pyz` will do). `status` and `why` ask the cluster of the current context unless an option names a
sidecar. `kv` asks a pod there (`--pod`), and as `hookline kv` the sidecar of this machine where nothing else is said.

Each command prints text for people, or with `--json` one object for programs. Errors are one sentence on stderr; with
`--json` they are `{"error": …, "exit": …}` on stdout. Progress is shown on terminals alone. Logins to registries are
those of docker's configuration. Colours are for terminals, and `NO_COLOR` turns them off. A cluster is asked with the
`kubectl` program, whose logins and contexts are what a kubeconfig says.

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
