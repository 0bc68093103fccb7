"""The table in docs/operate/security.md: each attack with memory, longest gap and honest p99, before and after."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from exhaustion.attacks import attacks
from exhaustion.measure import DEPLOY_MORE_S

BEGIN: Final = "<!-- exhaustion: written by `make exhaust` -->"
END: Final = "<!-- /exhaustion -->"

_CALLS: Final = ("hook calls", "webhook calls")
"""Whose p99 is shown: what honest callers wait for. The longest gap is of any kind of call."""

Figures = dict[str, dict[str, dict[str, Any]]]


def write(file: Path, figures: Figures) -> None:
    """Put the table between the marks. Raises ValueError where the file has none."""
    text = file.read_text()
    marks = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"{file} has no line {BEGIN!r} with {END!r} behind it")
    made = f"{BEGIN}\n{markdown(figures)}\n{END}"
    file.write_text(marks.sub(lambda _: made, text))


def markdown(figures: Figures) -> str:
    """Of all attacks that were measured under any label, in the order of the table of attacks."""
    labels: list[str] = [label for label in ("before", "after") if label in figures]
    labels += sorted(set(figures) - set(labels))
    heads = ["attack", "entry"]
    for what in ("memory, MiB", "longest gap, ms", "honest p99, ms", "lost / died"):
        heads += [f"{what}: {label}" for label in labels]
    heads += [f"a new plugin runs after: {label}" for label in labels]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for attack in attacks().values():
        if not any(attack.name in figures[label] for label in labels):
            continue
        found = [figures[label].get(attack.name) for label in labels]
        cells = [f"{attack.what} (`{attack.name}`)", str(attack.entry)]
        for show in (_memory, _gap, _p99, _losses, _deploy):
            cells += [show(each) if each else "" for each in found]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _memory(result: dict[str, Any]) -> str:
    return f"{result['quiet_mib']} → {max(result['held_mib'], result['quiet_mib'])}"


def _gap(result: dict[str, Any]) -> str:
    name, gap = max(result["gap_ms"].items(), key=lambda item: item[1])
    return f"{gap:.0f} ({name})"


def _p99(result: dict[str, Any]) -> str:
    name = next(name for name in _CALLS if name in result["p99_ms"])
    return f"{result['quiet_p99_ms'][name]:.1f} → {result['p99_ms'][name]:.1f}"


def _losses(result: dict[str, Any]) -> str:
    lost = sum(result["lost"].values())
    return f"{lost} of {sum(result['calls'].values())} / {result['died']}"


def _deploy(result: dict[str, Any]) -> str:
    if result["deploy_s"] is None:
        return ""
    return (
        f"{result['deploy_s']:g} s"
        if result["deploy_s"] >= 0
        else f"not within {result['seconds'] / 2 + DEPLOY_MORE_S:g} s"
    )
