"""docs/operate/truth.md, of the figures alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
FIGURES: Final = ROOT / "tests" / "e2e" / "truth" / "figures.json"
DOCUMENT: Final = ROOT / "docs" / "operate" / "truth.md"
BEGIN: Final = "<!-- truth: written by `make truth` -->"
END: Final = "<!-- /truth -->"

Figures = dict[str, dict[str, Any]]
"""By row, what ``row.Figure.as_json`` gives; in the order in which they are shown."""


def write(document: Path, figures: Figures) -> None:
    """Put the table between the marks. Raises ValueError where the document has none."""
    text = document.read_text()
    marks = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"{document} has no line {BEGIN!r} with {END!r} behind it")
    made = f"{BEGIN}\n{markdown(figures)}\n{END}"
    document.write_text(marks.sub(lambda _: made, text))


def read(file: Path = FIGURES) -> Figures:
    """The figures of the last run that was to be written."""
    found: Figures = json.loads(file.read_text())
    return found


def keep(figures: Figures, order: list[str], file: Path = FIGURES) -> Figures:
    """Write these over those of an earlier run, without rows that no longer exist; all that are kept now."""
    known = read(file) if file.exists() else {}
    merged = {name: figures.get(name) or known[name] for name in order if name in figures or name in known}
    file.write_text(json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    return merged


def markdown(figures: Figures) -> str:
    """One line for each row, and the sums."""
    heads = ("what is broken", "what kubectl says", "next step", "asked", "said after", "well again", "lost")
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---|---:|---:|---:|---:|"]
    lines += [_line(each) for each in figures.values()]
    late = sum(each["measured_s"] > each["asked_s"] > 0 for each in figures.values())
    lost = sum(each["lost"] for each in figures.values())
    requests = sum(each["requests"] for each in figures.values())
    lines += ["", f"{len(figures)} rows, {late} of them later than asked; {lost} of {requests} requests lost."]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    quiet = not row["asked_s"]
    said = f"{row['measured_s']:g} s"
    cells = (
        row["what"],
        "<br>".join(_words(row["words"])),
        row["next_step"],
        "never" if quiet else f"{row['asked_s']:g} s",
        "never" if quiet else f"**{said}**" if row["measured_s"] > row["asked_s"] else said,
        "" if quiet else f"{row['mended_s']:g} s",
        f"{row['lost']} of {row['requests']}" + (f" ({row['refused']} refused)" if row["refused"] else ""),
    )
    return "| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |"


def _words(words: list[str]) -> list[str]:
    """As code; of an Event that repeats the first sentence, only which it is."""
    first = words[0].partition(": ")[2]
    shown = []
    for each in words:
        event = re.fullmatch(r"Event of (\S+: \S+ \S+): (.*)", each, re.DOTALL)
        again = event is not None and event[2] == first
        shown.append(f"and the same in an Event of {event[1]}" if event and again else _code(each))
    return shown


def _code(words: str) -> str:
    mark = "``" if "`" in words else "`"
    return f"{mark}{words}{mark}"
