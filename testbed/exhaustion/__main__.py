"""``python -m exhaustion``: run attacks, and keep what they cost.

Without ``--into`` the figures are printed; with it they are put into that JSON file under ``--label``, and with
``--table`` the table of all labels in it is written between the marks of a Markdown file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from cluster.control_plane import ControlPlane
from exhaustion import programs, table
from exhaustion.attacks import Attack, attacks
from exhaustion.measure import Result, measure


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m exhaustion", description=__doc__)
    parser.add_argument("--attack", action="append", metavar="NAME", help="these alone; a beginning of names will do")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each attack (default: 20)")
    parser.add_argument("--into", type=Path, metavar="FILE", help="JSON file to put the figures into")
    parser.add_argument("--label", default="after", help="under which name (default: after)")
    parser.add_argument("--commit", default="", help="of the code that is measured, for the figures")
    parser.add_argument("--table", type=Path, metavar="FILE", help="Markdown file to write the table into")
    parser.add_argument("--list", action="store_true", help="name the attacks, and run none")
    options = parser.parse_args()
    chosen = [each for each in attacks().values() if _is_meant(each, options.attack)]
    if options.list:
        for each in chosen:
            print(f"{each.name:28} entry {each.entry:2}  {each.what}")
        return
    with contextlib.ExitStack() as stack:
        plane = stack.enter_context(ControlPlane()) if any(each.program == "operator" for each in chosen) else None
        for attack in chosen:
            try:
                result = run(attack, options.seconds, plane)
            except Exception as error:  # noqa: BLE001 - the rest of the table is worth having
                print(f"{attack.name}: {type(error).__name__}: {error}"[:2000], flush=True)
                continue
            figures = result.to_json() | {"commit": options.commit}
            print(json.dumps(figures), flush=True)
            if options.into:
                keep(options.into, options.label, figures)
    if options.table and options.into:
        table.write(options.table, json.loads(options.into.read_text()))


def run(attack: Attack, seconds: float, plane: ControlPlane | None) -> Result:
    """One attack on a fresh program."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hookline-exhaustion-")))
        program: programs.Program
        if attack.program == "sidecar":
            program = stack.enter_context(programs.sidecar(folder))
        else:
            assert plane is not None
            program = stack.enter_context(programs.operator(folder, plane))
        return asyncio.run(measure(program, attack, seconds=seconds))


def keep(file: Path, label: str, result: dict[str, Any]) -> None:
    """Put one attack's figures in the place of older ones under the same label."""
    figures: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    figures.setdefault(label, {})[result["attack"]] = result
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")


def _is_meant(attack: Attack, names: list[str] | None) -> bool:
    return not names or any(attack.name.startswith(name) for name in names)


if __name__ == "__main__":
    main()
