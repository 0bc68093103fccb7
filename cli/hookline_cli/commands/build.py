"""``hookline build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hookline_cli.frame import FILE, REFUSED, Answer, Waiting, command, sized

if TYPE_CHECKING:
    from hookline_cli.authoring.building import Built, ToolFailedError

_SHOWN = 80
_EXAMPLES = """
hookline build
hookline build ./guard
hookline build ./guard --json
"""


@command(
    "build",
    text="""Build a plugin's project into one module.

    What hookline.toml names as 'build' is run in its folder; what a tool says is shown where it fails. The module
    gets plugin.json and cases.json as sections, is checked as a host would, and is written there as NAME.wasm.""",
    examples=_EXAMPLES,
    options=[click.Argument(["folder"], type=FILE, default=Path())],
)
def BUILD(*, folder: Path) -> Answer:  # noqa: N802 - what the decorator makes of it is a constant
    """Build a project."""
    from hookline_cli.authoring import building  # noqa: PLC0415 - --help does without
    from hookline_cli.authoring.project import read_project  # noqa: PLC0415

    project = read_project(folder)
    waiting = Waiting(f"building {project.name}")
    try:
        built = building.build(project, waiting.at)
    except building.ToolFailedError as error:
        waiting.end()
        return failed(error, f"{project.name} is not built")
    waiting.end()
    return Answer(lines=lines(built), data=data(built))


def failed(error: ToolFailedError, what: str) -> Answer:
    """What a tool said."""
    words = " ".join(error.command)
    shown = words if len(words) <= _SHOWN else f"{words[:_SHOWN]}…"
    sentence = f"{what}: '{shown}' ended with the code {error.code}, and said what stands above"
    return Answer(
        lines=[*error.output.splitlines(), f"hookline: {sentence}"],
        data={"error": sentence, "exit": REFUSED, "command": list(error.command), "output": error.output},
        code=REFUSED,
    )


def lines(built: Built) -> list[str]:
    """For people."""
    cases = f", {built.cases} cases" if built.cases else ""
    return [
        *(f"note: {each}" for each in built.notes),
        f"built {built.path} in {built.seconds:.1f} s: {sized(built.size)}, {', '.join(built.hooks)}{cases}",
    ]


def data(built: Built) -> dict[str, object]:
    """For programs."""
    return {
        "module": str(built.path),
        "size": built.size,
        "seconds": round(built.seconds, 3),
        "hooks": list(built.hooks),
        "cases": built.cases,
        "notes": built.notes,
    }
