"""What ARCHITECTURE.md and DECISIONS.md say of the code is so: each path is there, and each stop of a way is a name."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
_STOP = re.compile(r"^\| [^|]+ \| `([\w/.]+\.py)` \| `([\w.]+)`", re.MULTILINE)
_PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)`")
WAYS = {
    title: _STOP.findall(TEXT.partition(f"## {title}")[2].partition("\n## ")[0])
    for title in ("From apply to loaded", "From call to decision")
}


@pytest.mark.parametrize("title", WAYS)
def test_a_way_has_its_stops(title):
    """A table that lost its form would check nothing."""
    assert len(WAYS[title]) >= 8


@pytest.mark.parametrize(("file", "name"), [stop for stops in WAYS.values() for stop in stops])
def test_each_stop_of_a_way_is_there(file, name):
    """The module can be imported, and has that function or method."""
    path = ROOT / file
    assert path.is_file()
    package = next(index for index, part in enumerate(path.parts) if part.startswith("hookline_"))
    module = importlib.import_module(".".join(path.with_suffix("").parts[package:]))
    assert callable(reduce(getattr, name.split("."), module))


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "DECISIONS.md", "CONTRIBUTING.md", "README.md"])
def test_each_path_is_there(page):
    """Folders and files that a page names in code marks, but for what `make` builds."""
    named = {path for path in _PATH.findall((ROOT / page).read_text()) if not path.startswith(("build/", "http"))}
    parts = {path.name for path in ROOT.iterdir()}
    missing = [path for path in sorted(named) if path.split("/")[0] in parts and not (ROOT / path).exists()]
    assert missing == []


def test_each_room_is_on_the_map():
    """A folder of a package that the map does not know has no purpose that a stranger could read."""
    rooms = [
        folder.relative_to(ROOT).as_posix()
        for package in sorted(ROOT.glob("*/hookline_*"))
        for folder in sorted({file.parent for file in package.rglob("*.py")})
    ]
    assert len(rooms) > 20
    assert [room for room in rooms if f"`{room}" not in TEXT] == []


def test_each_dependency_says_why_it_is_here():
    """One line each, and no line for what is not used."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    names = {re.split(r"[^\w-]", each)[0] for each in wanted} - {"hookline"}
    section = TEXT.partition("## What we lean on")[2].partition("\n## ")[0]
    rows = {line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ")} - {"dependency"}
    assert rows == names
