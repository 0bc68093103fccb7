"""``hookline dev``."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hookline_cli.frame import FILE, INTERRUPTED, UNAVAILABLE, Answer, command

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from hookline_cli.authoring.local_sidecar import LocalSidecar
    from hookline_cli.authoring.rounds import Rounds, Teller
    from hookline_cli.authoring.watching import Sources

_EXAMPLES = """
hookline dev ./guard
hookline dev ./guard --listen 127.0.0.1:8901 --inputs
hookline dev ./guard --manifests ./plugins
curl -s localhost:9901/v1/hooks/pre_query -H 'content-type: application/json' -d '{"query": "DROP TABLE t"}'
"""


@command(
    "dev",
    text="""Build a project whenever it changes, and run it in a sidecar on this machine.

    The sidecar answers hook calls on --listen, with the settings of the project's wasmplugin.yaml; each decision
    that it makes is printed, and what the guest logs. A change is built, taken over while calls go on, and held
    against the project's cases. What does not build leaves what runs alone. What is built runs, whatever its cases
    say, and without the version before it to stand in: spec.selfTest and rollout.probation are for later.

    With --manifests, the module and its manifest are written into that folder, which a sidecar of your own watches;
    none is started, and its decisions are in its own log (--log-decisions). Ctrl-C ends it.""",
    examples=_EXAMPLES,
    options=[
        click.Argument(["folder"], type=FILE, default=Path()),
        click.Option(["--listen"], default="127.0.0.1:9901", show_default=True, metavar="HOST:PORT",
                     help="Where the sidecar answers."),
        click.Option(["--manifests"], type=FILE, metavar="DIR", help="A folder that a sidecar watches already."),
        click.Option(["--inputs"], is_flag=True, help="Show what was asked with each decision, too."),
        click.Option(["-v", "--verbose"], is_flag=True, help="Show all that the sidecar logs."),
    ],
)  # fmt: skip
async def DEV(  # noqa: N802 - what the decorator makes of it is a constant
    *, folder: Path, listen: str, manifests: Path | None, inputs: bool, verbose: bool
) -> Answer:
    """Work on a project."""
    from hookline_artifacts.errors import FetchError  # noqa: PLC0415
    from hookline_cli.authoring import local_sidecar  # noqa: PLC0415 - --help does without
    from hookline_cli.authoring.project import read_project  # noqa: PLC0415
    from hookline_cli.authoring.rounds import Rounds, Teller  # noqa: PLC0415
    from hookline_cli.authoring.watching import Sources  # noqa: PLC0415

    read_project(folder)
    teller = Teller(as_json=bool(click.get_current_context().params.get("as_json")), verbose=verbose)
    sources = Sources([folder])  # before the first round, which takes a while
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN:  # which nohup ignores
            loop.add_signal_handler(each, stop.set)
    if manifests is not None:
        if not await asyncio.to_thread(manifests.is_dir):
            raise FetchError(f"--manifests: there is no folder {manifests}", transient=False)
        rounds = Rounds(folder, manifests, teller)
        await _until(stop, _watched(rounds, folder, None, teller, sources))
        return Answer(lines=[], data=None)
    with local_sidecar.scratch() as (plugins, state):
        rounds = Rounds(folder, plugins, teller)
        begun = time.monotonic()
        first = False

        async def begin() -> None:
            nonlocal first
            first = await rounds.go(None, begun)

        if not await _until(stop, begin()):
            return Answer(lines=[], data=None, code=INTERRUPTED)
        async with local_sidecar.started(plugins, state, listen=listen, inputs=inputs) as sidecar:
            teller.say("started", f"the sidecar answers on {listen}; Ctrl-C ends it", listen=listen)
            watching = _watched(rounds, folder, sidecar, teller, sources, began=begun if first else None)
            ended = await _until(stop, watching, _printed(sidecar, teller))
            if ended:
                code = await sidecar.ended()
                raise FetchError(
                    f"the sidecar ended by itself, with the code {code}; it says above why", transient=False
                )
    return Answer(lines=[], data=None, code=0 if first or rounds.sha256 else UNAVAILABLE)


async def _watched(
    rounds: Rounds,
    folder: Path,
    sidecar: LocalSidecar | None,
    teller: Teller,
    sources: Sources,
    *,
    began: float | None = None,
) -> None:
    """A round now, where none was, and one after each change."""
    from hookline_cli.authoring.project import read_project  # noqa: PLC0415

    project = read_project(folder)
    if sidecar is None:
        await rounds.go(None, time.monotonic())
    elif began is not None:
        await rounds.taken_over(sidecar, project.name, began)
    teller.say("watching", "waiting for changes")
    async for since in sources.changes():
        await rounds.go(sidecar, since)


async def _printed(sidecar: LocalSidecar, teller: Teller) -> None:
    async for line in sidecar.lines():
        teller.line_of_sidecar(line)


async def _until(stop: asyncio.Event, *work: Coroutine[Any, Any, None]) -> bool:
    """Work until somebody ends it; whether a part of it ended by itself. Raises what that raises."""
    tasks = [asyncio.create_task(each) for each in work]
    waiting = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for each in done - {waiting}:
            each.result()
        return waiting not in done
    finally:
        for each in (waiting, *tasks):
            each.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(waiting, *tasks, return_exceptions=True)
