"""``hookline annotate``."""

from __future__ import annotations

from pathlib import Path

import click

from hookline_cli.frame import FILE, Answer, UsageError, command, sized

_EXAMPLES = """
hookline annotate guard.wasm --plugin plugin.json --cases cases.json
hookline annotate target/guard.wasm --plugin plugin.json --out guard.wasm
"""


@command(
    "annotate",
    text="""Put a plugin's description and its cases into its module.

    They become the sections hookline.plugin and hookline.cases, in place of those that are there. A host reads a
    description leniently; what it would ignore of this one is told. 'hookline build' does the same.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["file"], type=FILE),
        click.Option(["--plugin"], type=FILE, metavar="FILE", help="The description: plugin.json."),
        click.Option(["--cases"], type=FILE, metavar="FILE", help="The cases: cases.json."),
        click.Option(["--out"], type=FILE, metavar="FILE", help="Where to write the module. Default: over itself."),
    ],
)
def ANNOTATE(*, file: Path, plugin: Path | None, cases: Path | None, out: Path | None) -> Answer:  # noqa: N802
    """Annotate a module."""
    from hookline_cli.authoring import building, describing, texts  # noqa: PLC0415 - --help does without
    from hookline_cli.authoring.subject import MAX_MODULE  # noqa: PLC0415

    if plugin is None and cases is None:
        raise UsageError("give --plugin, --cases, or both")
    wasm = texts.read(file, most=MAX_MODULE, what="the module")
    description = describing.document(plugin) if plugin is not None else None
    told = texts.read(cases, most=2**20, what="--cases") if cases is not None else None
    made, notes, hooks = building.annotated(wasm, description=description, cases=told, label=str(file))
    target = out if out is not None else file
    building.write(target, made)
    count = len(texts.cases_of(told, what=str(cases))) if told is not None else None
    what = [f"described by {plugin}"] if plugin is not None else []
    what += [f"{count} cases"] if count is not None else []
    return Answer(
        lines=[*(f"note: {each}" for each in notes), f"wrote {target}: {sized(len(made))}, {', '.join(what)}"],
        data={"module": str(target), "size": len(made), "hooks": list(hooks), "cases": count, "notes": notes},
    )
