"""The code keeps its measures: modules import each other in one direction; files and functions stay small."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
PACKAGES = sorted(path for path in ROOT.glob("*/hookline_*") if (path / "__init__.py").exists())
MODULES = {
    ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted(package.rglob("*.py"))
}
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60
DEEPEST = 4
MOST_EXCEPTIONS = 4
_DEEPER = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match)
_NOT_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING,
    tokenize.ENDMARKER,
}  # fmt: skip


def _docstrings(tree: ast.AST) -> set[int]:
    """The lines of strings that stand alone: descriptions of what is above them, or around them."""
    alone = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]  # fmt: skip
    return {line for node in alone for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def _code(path: Path) -> set[int]:
    """The lines of a file that have code on them."""
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in _NOT_CODE]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    return lines - _docstrings(ast.parse(path.read_text()))


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _depth(node: ast.AST, depth: int = 0) -> int:
    """How deep a function's statements are nested; ``elif`` is not a level, and a function inside counts for itself."""
    deepest = depth
    for name, value in ast.iter_fields(node):
        children = [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, ast.AST)]
        chained = isinstance(node, ast.If) and name == "orelse" and len(children) == 1
        for child in children:
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            below = depth + (isinstance(child, _DEEPER) and not (chained and isinstance(child, ast.If)))
            deepest = max(deepest, _depth(child, below))
    return deepest


def _imports(path: Path) -> Iterator[str]:
    """What a module imports of ours, for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield whole if whole in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def _circles() -> list[list[str]]:
    """The groups of modules that import each other: Tarjan's strongly connected components."""
    arrows = {name: {to for to in _imports(path) if to in MODULES} - {name} for name, path in MODULES.items()}
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for to in sorted(arrows[name]):
            if to not in number:
                visit(to)
            if to in stack:
                lowest[name] = min(lowest[name], lowest[to])
        if lowest[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in MODULES:
        if name not in number:
            visit(name)
    return found


def test_no_modules_import_each_other():
    """Not for types either: what two modules need of each other belongs into a third."""
    assert _circles() == []


def test_large_files_are_named_with_a_reason():
    """In ARCHITECTURE.md, and they are few. What is named there is large."""
    large = {str(path.relative_to(ROOT)): size for path in MODULES.values() if (size := len(_code(path))) > MOST_LINES}
    section = ARCHITECTURE.partition("## Large files")[2].partition("\n## ")[0]
    named = {
        cell.strip(" `") for line in section.splitlines() if line.startswith("| `") for cell in line.split("|")[1:2]
    }
    assert set(large) == named, large
    assert len(large) <= MOST_EXCEPTIONS


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_functions_are_short_and_flat(package):
    """One screen each, with the docstring; and what is nested deeper has a name of its own."""
    wrong = []
    for path in sorted(package.rglob("*.py")):
        for node in _functions(ast.parse(path.read_text())):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION or _depth(node) > DEEPEST:
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines, {_depth(node)} deep")
    assert wrong == []


def test_test_files_are_short():
    """A reader finds one behaviour in each."""
    sizes = {path: len(path.read_text().splitlines()) for path in sorted((ROOT / "tests").rglob("*.py"))}
    assert [f"{path.relative_to(ROOT)}: {size}" for path, size in sizes.items() if size > MOST_LINES] == []
