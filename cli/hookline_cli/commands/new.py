"""``hookline new``."""

from __future__ import annotations

from pathlib import Path

import click

from hookline_cli.frame import FILE, Answer, UsageError, command, words

_EXAMPLES = """
hookline new --list
hookline new --lang c ./guard
hookline new --lang rust ./plugins/guard --name sql-guard
"""


def _languages_like(context: click.Context, option: click.Parameter, begun: str) -> list[str]:  # noqa: ARG001 - click's
    from hookline_cli.authoring.templates import templates  # noqa: PLC0415 - a shell asks for it

    return [each.language for each in templates() if each.language.startswith(begun)]


@command(
    "new",
    text="""Make a plugin's project in a new folder.

    It has a guard of ten lines for the hook pre_query, tests in its own language, cases, a description, a manifest, and
    the SDK that it is built with, so it needs nothing outside of its folder. Nothing is ever overwritten.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["folder"], type=FILE, required=False),
        click.Option(
            ["--lang"],
            metavar="LANGUAGE",
            shell_complete=_languages_like,
            help="What it is written in; --list names what there is.",
        ),
        click.Option(["--name"], metavar="NAME", help="The plugin's name. Default: the folder's."),
        click.Option(["--list", "lists"], is_flag=True, help="List the languages."),
    ],
)
def NEW(*, folder: Path | None, lang: str | None, name: str | None, lists: bool) -> Answer:  # noqa: N802 - a constant
    """Make a project."""
    from hookline_cli.authoring import templates  # noqa: PLC0415 - --help does without

    if lists:
        languages = [each.language for each in templates.templates()]
        return Answer(lines=languages, data={"languages": languages})
    if folder is None or lang is None:
        raise UsageError("give a language and a folder: hookline new --lang LANGUAGE DIR; --list names the languages")
    made_of = templates.template(lang)
    plugin, files = templates.make(made_of, folder, name)
    own = [str(each) for each in files if each.parts[0] != templates.SDK]
    lines = [
        f"made {folder}: the plugin {plugin}, in {made_of.language}",
        f"  {', '.join(own)}",
        "next:",
        f"  {words('build', folder)}",
        f"  {words('test', folder)}",
        f"  {words('call', folder, 'pre_query', 'DROP TABLE users')}",
        f"  {words('dev', folder)}",
    ]
    data = {"folder": str(folder), "name": plugin, "language": made_of.language, "files": [str(each) for each in files]}
    return Answer(lines=lines, data=data)
