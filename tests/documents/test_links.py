"""Links between the pages lead to a file and to a heading, and the index leads to every page."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_BUILT = {"build", "node_modules", "target", "dist"}
_SHOWN = {".github", ".ci", ".devcontainer"}
_TEXT = {".md", ".py", ".yaml", ".yml", ".txt", ".tpl", ".json", ".sh", ".c", ".h", ".conf", ".toml"}
# A name that stands for each page's, and a page of HeliosDB-Proxy.
_NOT_HERE = {"docs/operate/runbooks/ALERT.md", "docs/admin-api.md"}


def files():
    """All files of the repository, without what was built or installed."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [each for each in folders if each not in _BUILT and (each in _SHOWN or not each.startswith("."))]
        yield from (Path(folder, name) for name in names)


PAGES = sorted(path for path in files() if path.suffix == ".md")


def prose(page):
    """A page without its blocks of code."""
    return re.sub(r"^(```+).*?^\1$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def links(page):
    """The targets of a page's links, without those to other sites."""
    return [each for each in re.findall(r"\]\(([^)\s]+)\)", prose(page)) if not re.match(r"[a-z]+:", each)]


def anchors(page):
    """What a link may have behind ``#``: GitHub's names of the headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        words = re.sub(r"\]\([^)]*\)", "", heading.lower())
        slug = re.sub(r"[^\w -]", "", words).replace(" ", "-")
        same = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", each) is not None for each in found)
        found.add(f"{slug}-{same}" if same else slug)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    """To a file or folder of this repository, and to a heading that it has."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_that_code_and_chart_name_exists():
    """In comments, sentences and commands, such as ``docs/operate/status.md``; the changelog tells of the past."""
    wrong = set()
    for path in files():
        if (path.suffix in _TEXT or path.name == "Makefile") and path != ROOT / "CHANGELOG.md":
            named = set(re.findall(r"(?<![\w./-])docs/[\w/-]+\.md", path.read_text())) - _NOT_HERE
            wrong |= {f"{path.name}: {page}" for page in named if not (ROOT / page).exists()}
    assert wrong == set()


def test_the_index_lists_every_page_once():
    """Runbooks have an index of their own."""
    pages = {page for page in DOCS.rglob("*.md") if page.parent.name != "runbooks"} - {DOCS / "README.md"}
    pages.add(DOCS / "operate" / "runbooks" / "README.md")
    listed = [(DOCS / link.partition("#")[0]).resolve() for link in links(DOCS / "README.md")]
    assert sorted(each for each in listed if each.is_relative_to(DOCS)) == sorted(pages)


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_every_page_begins_with_its_title_and_what_it_is_for(page):
    """A heading, and a sentence before the first table, list or block of code; runbooks say what the alert means."""
    title, rest = page.read_text().split("\n\n", 1)
    assert re.fullmatch(r"# \S.*", title)
    if page.parent.name == "runbooks" and page.name != "README.md":
        assert rest.startswith("## What it means\n")
    else:
        assert re.match(r"[A-Z`]", rest), rest[:80]


def test_the_glossary_has_each_word_once():
    """In the order of the alphabet."""
    words = re.findall(r"^\| \*\*(.+?)\*\*", (DOCS / "glossary.md").read_text(), re.MULTILINE)
    assert len(words) > 20
    assert words == sorted(set(words), key=str.lower)
