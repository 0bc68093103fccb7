"""``hookline test``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hookline_cli.frame import FILE, REFUSED, Answer, RefusedError, UsageError, Waiting, command, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_cli.authoring.judged import Tried

_EXAMPLES = """
hookline test
hookline test ./guard -v --filter DROP
hookline test guard.wasm
hookline test guard.wasm --cases cases.json --junit report.xml
hookline test ./guard --native
hookline test ./guard --watch
"""


@command(
    "test",
    text="""Hold a plugin against its cases.

    TARGET is a project that is built, or a .wasm. The cases are those of --cases, of the project's cases.json, or of
    the module itself. Each is one fresh plugin with settings, keys and permissions of its own, as a sidecar tries it
    with spec.selfTest. A case that names no limits has 1 s, 64 MiB of memory and 16 MiB of input and output; more where
    the project's wasmplugin.yaml, or --manifest, has more.

    With --native, the project's own tests run first, as hookline.toml says: those of its language, without WebAssembly.
    With --watch, a project is built and tested again whenever one of its files changes.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["target"], type=FILE, default=Path()),
        click.Option(["--cases"], type=FILE, metavar="FILE", help="The cases."),
        click.Option(["--manifest"], type=FILE, metavar="FILE", help="A WasmPlugin whose limits count."),
        click.Option(["--filter", "pattern"], metavar="TEXT", help="Only cases with this in their name."),
        click.Option(["-v", "--verbose"], is_flag=True, help="Show what each case asks, and what each call took."),
        click.Option(["--junit"], type=FILE, metavar="FILE", help="Write a report in JUnit's form, too."),
        click.Option(["--native"], is_flag=True, help="Run the project's own tests first."),
        click.Option(["--watch"], is_flag=True, help="Test again whenever a file changes."),
    ],
)
async def TEST(  # noqa: N802 - what the decorator makes of it is a constant
    *,
    target: Path,
    cases: Path | None,
    manifest: Path | None,
    pattern: str | None,
    verbose: bool,
    junit: Path | None,
    native: bool,
    watch: bool,
) -> Answer:
    """Test a plugin."""
    if native:
        await _natively(target)
    if not watch:
        return await _once(target, cases, manifest, pattern, verbose=verbose, junit=junit)
    from hookline_artifacts.errors import LoadError  # noqa: PLC0415
    from hookline_cli.authoring import building  # noqa: PLC0415
    from hookline_cli.authoring.project import is_project, read_project  # noqa: PLC0415
    from hookline_cli.authoring.watching import Sources  # noqa: PLC0415

    async def again() -> None:
        try:
            if is_project(target):
                waiting = Waiting("building")
                try:
                    await building.in_thread(functools.partial(building.build, read_project(target)), waiting.at)
                finally:
                    waiting.end()
            answer = await _once(target, cases, manifest, pattern, verbose=verbose, junit=junit)
            text = answer.lines
        except building.ToolFailedError as error:
            text = [*error.output.splitlines(), "not built"]
        except LoadError as error:
            text = [f"hookline: {error}"]
        say("\n".join(text))

    sources = Sources([target, *(each for each in (cases, manifest) if each is not None)])
    await again()
    click.echo("waiting for changes; Ctrl-C ends this")
    async for _ in sources.changes():
        await again()
    return Answer(lines=[])


async def _natively(target: Path) -> None:
    """The tests of the language. Raises RefusedError with what they said where one fails."""
    from hookline_cli.authoring import building  # noqa: PLC0415
    from hookline_cli.authoring.project import read_project  # noqa: PLC0415

    waiting = Waiting("the project's own tests")
    try:
        await building.in_thread(functools.partial(building.own_tests, read_project(target)), waiting.at)
    except building.ToolFailedError as error:
        raise RefusedError(f"{error.output}\nthe project's own tests fail: {' '.join(error.command)!r:.120}") from None
    finally:
        waiting.end()


async def _once(
    target: Path,
    given: Path | None,
    manifest: Path | None,
    pattern: str | None,
    *,
    verbose: bool,
    junit: Path | None,
) -> Answer:
    from hookline_cli.authoring import building, judged  # noqa: PLC0415 - --help does without
    from hookline_cli.authoring.subject import Wanted, cases_for, entry_for, manifest_for, read_subject  # noqa: PLC0415

    subject = read_subject(target)
    manifest = manifest_for(subject, manifest)
    cases, where = cases_for(subject, given)
    chosen = [each for each in cases if pattern is None or pattern.lower() in each.name.lower()]
    if not chosen:
        what = f"none of the {len(cases)} cases has {pattern!r} in its name" if cases else f"{where} has no cases"
        raise UsageError(what)
    # Of a resource, its limits and its isolation alone: a case says the rest itself.
    entry = await entry_for(subject, Wanted())
    if manifest is not None:
        named = await entry_for(subject, Wanted(manifest=manifest, permissions=subject.asks))
        entry = entry.model_copy(update={"limits": named.limits, "isolation": named.isolation})
    tried = await judged.judge(subject, entry, chosen)
    if junit is not None:
        building.write(junit, judged.junit(subject.name, tried).encode())
    return _answer(tried, where, verbose=verbose)


def _answer(tried: Sequence[Tried], where: str, *, verbose: bool) -> Answer:
    from hookline_cli.authoring import judged  # noqa: PLC0415

    failed = [each for each in tried if not each.result.holds]
    lines = [line for each in tried for line in judged.lines_of(each, verbose=verbose)]
    seconds = sum(each.seconds for each in tried)
    held = len(tried) - len(failed)
    lines.append(f"{held} of {len(tried)} cases hold ({where}), in {seconds:.1f} s")
    return Answer(
        lines=lines,
        data={
            "cases": [judged.data_of(each) for each in tried],
            "held": held,
            "failed": len(failed),
            "where": where,
        },
        code=REFUSED if failed else 0,
    )
