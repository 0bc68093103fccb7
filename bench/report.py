"""What was asked, what was measured, and on what: as a table, as JSON, and as ``RESULTS.md``."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import statistics
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bench import peers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TIMES: Final = "\u00d7"  # the sign, which ruff takes for a letter
_WORDS: Final = {True: "reached", False: "NOT REACHED", None: "for information"}
_IDEA: Final = """\
Each ratio is of two things measured in turn in this one run: the
median of the rounds, and the least and the greatest in brackets. Take the ratios, not absolute figures."""
_HEADS: Final = ("figure", "asked", "measured", "")


Size = TypeVar("Size", int, float)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How thoroughly to measure."""

    quick: bool

    @property
    def rounds(self) -> int:
        """How often a thing and its peer are measured, one after the other."""
        return self.pick(3, 5)

    def pick(self, quick: Size, full: Size) -> Size:
        """One of two sizes."""
        return quick if self.quick else full


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One line of the table. ``reached`` is None where nothing was asked."""

    what: str
    measured: str
    asked: str = ""
    reached: bool | None = None


@dataclass(kw_only=True, slots=True)
class Result:
    """What one benchmark found; ``notes`` say what a reader needs to judge it."""

    name: str
    idea: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    """Calls that were not answered as they had to be, where the figures are about something else."""
    seconds: float = 0.0
    broken: str | None = None
    """Why there are no figures."""


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def spread(values: Sequence[float], *, unit: str = TIMES, digits: int = 2) -> str:
    """The median, and the least and the greatest."""
    middle, least, most = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle}{unit} ({least} to {most}, {len(values)} rounds)"


def load_average() -> str:
    """Of the last minute, five minutes and quarter of an hour: what else runs makes every figure worse."""
    return " ".join(f"{each:.2f}" for each in os.getloadavg())


def at_least(bar: float, what: str, ratios: Sequence[float]) -> Figure:
    """A ratio whose median must not be less."""
    return _barred(f"≥ {bar:g}{TIMES}", what, ratios, lambda middle: middle >= bar)


def at_most(bar: float, what: str, ratios: Sequence[float]) -> Figure:
    """A ratio whose median must not be greater."""
    return _barred(f"≤ {bar:g}{TIMES}", what, ratios, lambda middle: middle <= bar)


def _barred(asked: str, what: str, ratios: Sequence[float], holds: Callable[[float], bool]) -> Figure:
    if not ratios:
        return Figure(what=what, asked=asked, measured="no call was answered", reached=False)
    return Figure(what=what, asked=asked, measured=spread(ratios), reached=holds(statistics.median(ratios)))


def machine() -> dict[str, str]:
    """What this was measured on."""
    from hookline_runtime.guest import accelerator  # noqa: PLC0415 - not in an older tree, which needs no table of facts

    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    # A distribution's build is a tenth quicker than one made by hand without a profile.
    whose = ", the distribution's" if sys.base_prefix == "/usr" else ""
    memory = int(Path("/proc/meminfo").read_text().split(maxsplit=2)[1]) / 2**20
    versions = {name: importlib.metadata.version(name) for name in ("wasmtime", "aiohttp", "uvloop", "hookline")}
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "CPU": cpus[0].partition(":")[2].strip() if cpus else platform.machine(),
        "memory": f"{memory:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}{whose}",
        **versions,
        "accelerator": accelerator.unused or "used",
        **peers.versions(),
        "load average at the start": load_average(),
        "date": dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def as_json(results: Sequence[Result], facts: dict[str, str], command: str) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "command": command,
        "machine": facts,
        "benchmarks": [asdict(result) for result in results],
    }


def as_table(results: Sequence[Result]) -> str:
    """Everything, for a terminal."""
    rows = [(each.what, each.asked, each.measured, _WORDS[each.reached]) for r in results for each in r.figures]
    widths = [max(map(len, column)) for column in zip(_HEADS, *rows, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(_HEADS, widths, strict=True)).rstrip()]
    for result in results:
        lines += ["", f"{result.name} ({result.seconds:.0f} s)"]
        lines += [
            "  ".join(text.ljust(width) for text, width in zip(_row(each), widths, strict=True)).rstrip()
            for each in result.figures
        ]
        lines += [f"  {note}" for note in (*result.notes, *_failed(result))]
        if result.broken:
            lines.append(f"  BROKEN: {result.broken}")
    return "\n".join([*lines, "", summary(results)])


def as_markdown(results: Sequence[Result], facts: dict[str, str], command: str, *, idea: str = _IDEA) -> str:
    """Everything, for the repository."""
    lines = [
        "# What was measured",
        "",
        f"Written by `{command}`. {idea}",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        "",
        f"**{summary(results)}**",
    ]
    for result in results:
        lines += ["", f"## {result.name}", "", result.idea, ""]
        lines += ["| figure | asked | measured | |", "|---|---|---|---|"]
        lines += ["| " + " | ".join(_row(each)) + " |" for each in result.figures]
        lines += ["", *(f"- {note}" for note in (*result.notes, *_failed(result)))]
    return "\n".join(lines) + "\n"


def summary(results: Sequence[Result]) -> str:
    """One sentence."""
    asked = [each for result in results for each in result.figures if each.reached is not None]
    missed = [each.what for each in asked if not each.reached]
    broken = [result.name for result in results if result.broken]
    sentence = f"{len(asked) - len(missed)} of {len(asked)} figures reached."
    if missed:
        sentence += f" Not reached: {'; '.join(missed)}."
    if broken:
        sentence += f" Broken, and not measured: {', '.join(broken)}."
    return sentence


def _failed(result: Result) -> list[str]:
    return [f"FAILED CALLS, {count:,}: {reason}" for reason, count in result.failures.items()]


def _row(figure: Figure) -> tuple[str, str, str, str]:
    return figure.what, figure.asked, figure.measured, _WORDS[figure.reached]
