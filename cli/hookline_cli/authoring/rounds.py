"""One round of ``hookline dev``: build, let the sidecar take it over, hold it against its cases, and tell of it."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hookline_api.text import readable
from hookline_artifacts.errors import LoadError
from hookline_cli.authoring import building, judged, local_sidecar, shown
from hookline_cli.authoring.project import CASES, MANIFEST, read_project
from hookline_cli.authoring.subject import Wanted, cases_for, entry_for, read_subject
from hookline_cli.frame import say

if TYPE_CHECKING:
    from hookline_cli.authoring.local_sidecar import LocalSidecar
    from hookline_cli.authoring.subject import Subject

_MOST = 2000


class Teller:
    """Says what happens, as text or as one JSON object a line."""

    def __init__(self, *, as_json: bool, verbose: bool) -> None:
        self._as_json = as_json
        self.verbose = verbose

    def say(self, event: str, text: str, **data: Any) -> None:
        """One thing that happened."""
        if self._as_json:
            click.echo(json.dumps({"event": event, **data} if data else {"event": event, "text": text}))
        elif text:
            say(text)

    def line_of_sidecar(self, line: str) -> None:
        """A line of the sidecar's log: decisions and guests always, the rest where it matters."""
        try:
            told = json.loads(line)
        except ValueError:
            told = {"message": line, "level": "warning"}
        if not isinstance(told, dict):
            return
        made = told.get("hookline.decision")
        if isinstance(made, dict):
            text = f"{made['hook']}  {made['us']:,} µs  {shown.decision_line(made['decision'])}"
            if "input" in made:
                text += f"\n  asked {readable(str(made['input']), _MOST)}"
            if made.get("leftOut"):
                text += f"\n  … {made['leftOut']} decisions before it are not shown"
            self.say("decision", text, **made)
            return
        level, logger, message = (str(told.get(key, "")) for key in ("level", "logger", "message"))
        if logger == "hookline.guest":
            self.say("log", f"  log {level}: {readable(message, _MOST)}", level=level, message=message)
        elif self.verbose or level in {"warning", "error", "critical"}:
            self.say("sidecar", f"sidecar: {level}: {readable(message, _MOST)}", level=level, message=message)


class Rounds:
    """Of one project and one folder of manifests."""

    def __init__(self, folder: Path, plugins: Path, teller: Teller) -> None:
        self._folder = folder
        self._plugins = plugins
        self._teller = teller
        self.sha256: str | None = None
        """Of the module that was put in last."""

    async def go(self, sidecar: LocalSidecar | None, begun: float) -> bool:
        """A whole round; whether there is a module for the sidecar. ``begun`` is when a file changed."""
        say = self._teller.say
        try:
            project = read_project(self._folder)
            built = await building.in_thread(functools.partial(building.build, project))
            subject = read_subject(self._folder)
            local_sidecar.write_manifest(self._plugins, project, subject)
            building.write(self._plugins / built.path.name, subject.wasm)
            if sidecar is not None:
                sidecar.read_again()
        except building.ToolFailedError as error:
            say("failed", f"{error.output}\n{_red('not built')}; what ran before goes on", output=error.output)
            return False
        except LoadError as error:
            say("failed", f"{_red('not built')}: {error}", error=str(error))
            return False
        self.sha256 = hashlib.sha256(subject.wasm).hexdigest()
        for note in built.notes:
            say("note", f"note: {note}", note=note)
        say("built", f"built {built.path.name} in {built.seconds:.2f} s", seconds=round(built.seconds, 3))
        if sidecar is not None:
            await self.taken_over(sidecar, project.name, begun)
        await self._judge(subject)
        return True

    async def taken_over(self, sidecar: LocalSidecar, name: str, begun: float) -> None:
        """Wait for the sidecar to run what was put in, and say how long it took from the change."""
        running = await sidecar.runs(name, self.sha256 or "")
        seconds = time.monotonic() - begun
        if running.sha256 == self.sha256:
            text = f"{shown.colored('runs', 'green', bold=True)} {seconds:.2f} s after the change"
            self._teller.say("runs", text, seconds=round(seconds, 3), sha256=self.sha256)
        else:
            self._teller.say("refused", f"{_red('not taken over')}: {running.problem}", error=running.problem)

    async def _judge(self, subject: Subject) -> None:
        """Its cases, where it has some: a line for each that does not hold."""
        project = subject.project
        if project is None or not (project.folder / CASES).exists():
            return
        try:
            cases, _ = cases_for(subject, None)
            entry = await entry_for(subject, Wanted())
            if (project.folder / MANIFEST).exists():
                named = await entry_for(subject, Wanted(manifest=project.folder / MANIFEST, permissions=subject.asks))
                entry = entry.model_copy(update={"limits": named.limits, "isolation": named.isolation})
            tried = await judged.judge(subject, entry, cases)
        except LoadError as error:
            self._teller.say("failed", f"{_red('cases')}: {error}", error=str(error))
            return
        failed = [each for each in tried if not each.result.holds]
        lines = [line for each in failed for line in judged.lines_of(each, verbose=self._teller.verbose)]
        held = len(tried) - len(failed)
        elsewhere = "; with spec.selfTest, a sidecar would not take it over" if failed else ""
        lines.append(f"{held} of {len(tried)} cases hold{elsewhere}")
        problems = {each.result.name: each.result.problem for each in failed}
        self._teller.say("cases", "\n".join(lines), held=held, failed=len(failed), problems=problems)


def _red(text: str) -> str:
    return shown.colored(text, "red", bold=True)
