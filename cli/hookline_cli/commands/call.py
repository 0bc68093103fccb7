"""``hookline call``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hookline_cli.frame import FILE, REFUSED, Answer, UsageError, command, hooks_like, permissions_like

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hookline_api.cases import HostAnswer
    from hookline_api.hooks import Hook
    from hookline_cli.authoring.subject import Subject, Wanted
    from hookline_runtime.trial.trial import Called

_EXAMPLES = """
hookline call guard.wasm pre_query 'DROP TABLE users'
hookline call guard.wasm pre_query '{"query": "SELECT 1", "is_read_only": true}'
hookline call guard.wasm pre_query @input.json --config '{"block": ["drop"]}' --limit timeout=20ms
hookline call ./guard pre_query 'SELECT 1' --fuel --repeat 100
hookline call guard.wasm pre_query 'SELECT 1' --permission config.read --kv limit=10
hookline call guard.wasm pre_query 'SELECT 1' --no-permissions --json
"""


@command(
    "call",
    text="""Call a hook of a plugin, and show what it decides.

    TARGET is a .wasm, or a project that is built. INPUT is what a proxy would send: JSON, @FILE, or - for stdin;
    where a hook is asked about a query, SQL alone will do. Without one, a hook that needs nothing is asked with {}.

    The plugin runs as it does in a sidecar, within the same limits, and reaches nobody: what it would ask a database or
    a server is answered by --answers, and its keys are those of --kv. It has the settings of the project's
    wasmplugin.yaml, or of --manifest; other options count before them.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["target"], type=FILE),
        click.Argument(["hook"], shell_complete=hooks_like),
        click.Argument(["input_"], metavar="[INPUT]", required=False),
        click.Option(["--config"], metavar="JSON", help="Its settings, as one object."),
        click.Option(["--config-file"], type=FILE, metavar="FILE", help="The same, from a file of JSON or YAML."),
        click.Option(["--permission", "permissions"], multiple=True, metavar="NAME", shell_complete=permissions_like,
                     help="A permission to grant. May be repeated. Default: all that it asks for."),
        click.Option(["--no-permissions"], is_flag=True, help="Grant none."),
        click.Option(["--kv"], multiple=True, metavar="KEY=VALUE", help="A key in its store. May be repeated."),
        click.Option(["--answers"], type=FILE, metavar="FILE",
                     help="What http_* and query_* answer: a list as a case's 'answers'."),
        click.Option(["--manifest"], type=FILE, metavar="FILE", help="A WasmPlugin whose settings it gets."),
        click.Option(["--limit", "limits"], multiple=True, metavar="NAME=VALUE",
                     help="A limit, as in spec.limits. May be repeated."),
        click.Option(["--fuel"], is_flag=True, help="Count its instructions."),
        click.Option(["--repeat"], type=click.IntRange(1, 100_000), default=1, metavar="N",
                     help="Ask so often, and show the last answer."),
    ],
)  # fmt: skip
async def CALL(  # noqa: N802 - what the decorator makes of it is a constant
    *, target: Path, hook: str, input_: str | None, answers: Path | None, repeat: int, kv: Sequence[str], **given: Any
) -> Answer:
    """Call a hook."""
    from hookline_cli.authoring import texts  # noqa: PLC0415 - --help does without
    from hookline_cli.authoring.inputs import read_input  # noqa: PLC0415
    from hookline_cli.authoring.subject import manifest_for, read_subject  # noqa: PLC0415

    name = texts.hook_named(hook)
    subject = read_subject(target)
    data = read_input(input_, name)
    given["manifest"] = manifest_for(subject, given["manifest"])
    wanted = _wanted(**given)
    keys = _pairs(kv, "--kv")
    stand_ins = []
    if answers is not None:
        stand_ins = texts.answers_of(texts.read(answers, most=texts.MAX_SETTINGS, what="--answers"), what=str(answers))
    calls = await _calls(subject, name, data, wanted, keys=keys, answers=stand_ins, repeat=repeat)
    return _answer(calls)


def _wanted(
    *,
    config: str | None,
    config_file: Path | None,
    permissions: Sequence[str],
    no_permissions: bool,
    manifest: Path | None,
    limits: Sequence[str],
    fuel: bool,
) -> Wanted:
    from hookline_cli.authoring import texts  # noqa: PLC0415
    from hookline_cli.authoring.subject import Wanted  # noqa: PLC0415

    if config is not None and config_file is not None:
        raise UsageError("--config and --config-file say the same: give one of them")
    if permissions and no_permissions:
        raise UsageError("--permission and --no-permissions contradict each other: give one of them")
    settings = None
    if config is not None:
        settings = texts.an_object(config, what="--config")
    elif config_file is not None:
        settings = texts.settings_of(config_file)
    granted: list[str] | None = texts.check_permissions(permissions) if permissions else None
    return Wanted(
        config=settings,
        permissions=[] if no_permissions else granted,
        limits=_pairs(limits, "--limit"),
        manifest=manifest,
        fuel=fuel,
    )


def _pairs(given: Sequence[str], what: str) -> dict[str, str]:
    found = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise UsageError(f"{what} {each!r:.80}: write NAME=VALUE")
        found[key] = value
    return found


async def _calls(
    subject: Subject,
    hook: Hook,
    data: bytes,
    wanted: Wanted,
    *,
    keys: dict[str, str],
    answers: Sequence[HostAnswer],
    repeat: int,
) -> list[Called]:
    from hookline_cli.authoring.desk import at_desk  # noqa: PLC0415

    async with at_desk(subject, wanted, hook, keys=keys, answers=answers) as desk:
        return [await desk.call(hook, data) for _ in range(repeat)]


def _answer(calls: Sequence[Called]) -> Answer:
    from hookline_cli.authoring import shown  # noqa: PLC0415

    last = calls[-1]
    failed = sum(each.cause is not None for each in calls)
    lines, data = shown.called_lines(last), shown.called_data(last)
    if len(calls) > 1:
        times = sorted(each.us for each in calls)
        middle, late = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
        different = len({repr(sorted(_said(each).items())) for each in calls})
        lines.append(
            f"  {len(calls)} calls: p50 {middle:,.0f} µs, p99 {late:,.0f} µs, {failed} failed"
            + (f", {different} different decisions" if different > 1 else "")
        )
        data |= {"calls": len(calls), "failed": failed, "decisions": different, "p50Us": middle, "p99Us": late}
    return Answer(lines=lines, data=data, code=REFUSED if failed else 0)


def _said(called: Called) -> dict[str, Any]:
    return {key: value for key, value in called.decision.items() if key != "request_id"}
