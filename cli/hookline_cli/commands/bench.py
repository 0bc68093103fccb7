"""``hookline bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hookline_cli.frame import FILE, REFUSED, Answer, UsageError, Waiting, command, hooks_like

if TYPE_CHECKING:
    from hookline_cli.authoring.measured import Measured, Question
    from hookline_cli.authoring.subject import Subject

_EXAMPLES = """
hookline bench ./guard
hookline bench guard.wasm --hook pre_query --input 'SELECT 1'
hookline bench ./guard --mode Pooled --seconds 10 --json
"""


@command(
    "bench",
    text="""Measure the hooks of a plugin, beside a guest that does nothing.

    TARGET is a .wasm, or a project that is built. Each hook is asked what the first of its cases asks, or --input, with
    that case's settings; one call after the other, in this process, with fresh memory for each (PerCall) and with
    instances that are used again (Pooled). A guest that does nothing is measured in turns with it, so the ratio holds
    on a busy machine, too. Between a proxy and a sidecar come the connection and HTTP.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["target"], type=FILE, default=Path()),
        click.Option(["--hook"], metavar="HOOK", shell_complete=hooks_like, help="Only this hook."),
        click.Option(["--input", "input_"], metavar="INPUT", help="What --hook is asked, as for 'hookline call'."),
        click.Option(["--cases"], type=FILE, metavar="FILE", help="The cases."),
        click.Option(["--manifest"], type=FILE, metavar="FILE", help="A WasmPlugin whose settings it gets."),
        click.Option(["--mode"], type=click.Choice(["PerCall", "Pooled"]), help="Only this isolation. Default: both."),
        click.Option(["--seconds"], type=click.FloatRange(0.01, 600), default=2.0, show_default=True, metavar="N",
                     help="How long each hook is measured in each mode."),
    ],
)  # fmt: skip
async def BENCH(  # noqa: N802 - what the decorator makes of it is a constant
    *,
    target: Path,
    hook: str | None,
    input_: str | None,
    cases: Path | None,
    manifest: Path | None,
    mode: str | None,
    seconds: float,
) -> Answer:
    """Measure a plugin."""
    from hookline_cli.authoring import measured  # noqa: PLC0415 - --help does without
    from hookline_cli.authoring.subject import Wanted, entry_for, manifest_for, read_subject  # noqa: PLC0415

    if input_ is not None and hook is None:
        raise UsageError("--input is for --hook: say which hook is asked")
    subject = read_subject(target)
    asked = _questions(subject, hook, input_, cases)
    base = await entry_for(subject, Wanted(manifest=manifest_for(subject, manifest)))
    found: list[Measured] = []
    waiting = Waiting("measuring")
    for question in asked:
        for each in measured.MODES:
            if mode in {None, each}:
                waiting.at(seconds * len(found) + 1.1)
                found.append(await measured.measure(subject, base, question, each, seconds))
    waiting.end()
    return _answer(found, asked)


def _questions(subject: Subject, hook: str | None, given: str | None, cases: Path | None) -> list[Question]:
    from hookline_cli.authoring import measured, texts  # noqa: PLC0415
    from hookline_cli.authoring.inputs import read_input  # noqa: PLC0415
    from hookline_cli.authoring.subject import cases_for  # noqa: PLC0415

    named = texts.hook_named(hook) if hook is not None else None
    if named is not None and named not in subject.info.hooks:
        raise UsageError(f"the module does not export {named.value}; it exports {', '.join(subject.info.hooks)}")
    if named is not None and given is not None:
        return [measured.Question(hook=named, data=read_input(given, named), origin="--input")]
    hooks = [named] if named is not None else list(subject.info.hooks)
    read, where = cases_for(subject, cases)
    found = measured.questions(read, hooks)
    if not found:
        raise UsageError(f"{where} asks none of {', '.join(hooks)}; give --hook and --input")
    return found


def _answer(found: list[Measured], asked: list[Question]) -> Answer:
    header = ("hook", "mode", "p50 µs", "p99 µs", "calls/s", "bare p50", "bare p99", "times bare")
    rows = [header]
    notes = []
    for each in found:
        if each.problem is not None:
            notes.append(f"{each.hook.value} {each.mode}: {each.problem}")
            continue
        rows.append((
            each.hook.value, each.mode, f"{each.p50:,.1f}", f"{each.p99:,.1f}", f"{each.rate:,.0f}",
            f"{each.bare_p50:,.1f}", f"{each.bare_p99:,.1f}", f"{each.p50 / each.bare_p50:.2f}",
        ))  # fmt: skip
    widths = [max(len(row[at]) for row in rows) for at in range(len(header))]
    lines = [
        "  ".join(text.ljust(width) if at < 2 else text.rjust(width) for at, (text, width) in enumerate(pairs)).rstrip()  # noqa: PLR2004 - the two names stand left
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    lines += [f"{each.hook.value} is asked what {each.origin} asks" for each in asked if each.origin != "--input"]
    lines += [f"not measured: {each}" for each in notes]
    return Answer(
        lines=lines if len(rows) > 1 else lines[1:],
        data={"hooks": [_data(each) for each in found]},
        code=REFUSED if len(notes) == len(found) else 0,
    )


def _data(each: Measured) -> dict[str, Any]:
    return {
        "hook": each.hook.value,
        "mode": each.mode,
        "calls": each.calls,
        "p50Us": round(each.p50, 2),
        "p99Us": round(each.p99, 2),
        "callsPerSecond": round(each.rate),
        "bareP50Us": round(each.bare_p50, 2),
        "bareP99Us": round(each.bare_p99, 2),
        "problem": each.problem,
    }
