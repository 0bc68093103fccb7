"""Makes the checkout one of a version: ``make release VERSION=1.2.3``.

The version is pyproject.toml's. What repeats it follows: the chart, and the pages that show how to install it. In the
changelog, what was unreleased is of that version and of this day. The commit is yours: RELEASING.md says how.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from dist import OUT, version_of

ROOT: Final = Path(__file__).resolve().parent.parent
_VERSION: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
_UNRELEASED: Final = re.compile(r"^## Unreleased\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
# How a page names the version: an image's tag, an option, a file of the release, or the tag of a commit.
_SHOWN: Final = r"(hookline-(?:(?:operator|sidecar)[:-])?|--tag[ =]|--version[ =]|\bv)"


class ReleaseError(Exception):
    """Why nothing was changed, and what to do about it."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("version", nargs="?", metavar="VERSION", help="version to release, such as 1.2.3")
    parser.add_argument("--publish", action="store_true", help="draft a release on GitHub from what `make dist` built")
    options = parser.parse_args()
    if (options.version is None) != options.publish:
        parser.error("say either a version or --publish")
    try:
        if options.publish:
            publish(ROOT, OUT)
            return
        version = options.version
        changed = prepare(ROOT, version, datetime.now(UTC).date())
    except ReleaseError as error:
        sys.exit(f"release: {error}")
    print("".join(f"{path.relative_to(ROOT)} now says {version}\n" for path in changed), end="")
    print(f'Read it (`git diff`), then: git commit --all --message "Version {version}" && git tag --sign v{version}')


def prepare(root: Path, version: str, day: date) -> list[Path]:
    """Write the version wherever it stands; the files that changed.

    Raises:
        ReleaseError: Before anything is written.
    """
    now = version_of(root)
    log = (root / "CHANGELOG.md").read_text()
    _check(root, version, now, log)
    texts = {root / "CHANGELOG.md": _UNRELEASED.sub(rf"## Unreleased\n\n## {version} - {day}\n\g<1>", log, count=1)}
    project = root / "pyproject.toml"
    texts[project] = _line(project, r'^version = "[^"]*"$', f'version = "{version}"')
    helm = root / "helm" / "Chart.yaml"
    texts[helm] = _line(helm, r"^(version|appVersion): .*$", rf"\g<1>: {version}", count=2)
    shown = re.compile(rf"{_SHOWN}{re.escape(now)}(?![\w.]*\d)")
    for page in pages(root):
        texts[page] = shown.sub(rf"\g<1>{version}", page.read_text())
    changed = [path for path, text in texts.items() if text != path.read_text()]
    for path in changed:
        path.write_text(texts[path])
    return changed


def publish(root: Path, out: Path) -> None:
    """Make a draft of a release of the files in ``out``, with what the changelog says of the version.

    Raises:
        ReleaseError: There are no files, or the changelog lacks the version, or GitHub's ``gh`` refused.
    """
    version = version_of(root)
    files = sorted(map(str, out.glob("*")))
    if not files:
        raise ReleaseError(f"there is nothing in {out}; `make dist` builds it")
    create = ["gh", "release", "create", f"v{version}", *files, "--draft", "--verify-tag", "--title", f"v{version}"]
    said = notes((root / "CHANGELOG.md").read_text(), version)
    done = subprocess.run([*create, "--notes-file", "-"], input=said, text=True, check=False)
    if done.returncode:
        raise ReleaseError("gh made no release; what it said is above")


def notes(log: str, version: str) -> str:
    """What the changelog says of a version."""
    found = re.search(rf"^## {re.escape(version)}\b[^\n]*\n(.*?)(?=^## |\Z)", log, re.MULTILINE | re.DOTALL)
    if not found:
        raise ReleaseError(f"CHANGELOG.md has nothing of {version}; `make release` puts it there")
    return found[1].strip() + "\n"


def pages(root: Path) -> list[Path]:
    """What people read to install a version."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md")), *sorted((root / "helm").glob("*.md"))]


def _check(root: Path, version: str, now: str, log: str) -> None:
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"{version!r} is not a version; give three numbers, as in VERSION=1.2.3")
    if _numbers(version) < _numbers(now):
        raise ReleaseError(f"{version} is older than {now}, the version of pyproject.toml")
    if re.search(rf"^## {re.escape(version)}\b", log, re.MULTILINE):
        raise ReleaseError(f"CHANGELOG.md has {version} already")
    unreleased = _UNRELEASED.search(log)
    if not unreleased or not re.search(r"^- ", unreleased[1], re.MULTILINE):
        raise ReleaseError('CHANGELOG.md has nothing under "## Unreleased": there is nothing to release')
    status = ["git", "-C", str(root), "status", "--porcelain"]
    done = subprocess.run(status, capture_output=True, text=True, check=False)
    if done.returncode or done.stdout:
        said = done.stdout or done.stderr
        raise ReleaseError(f"the tree has changes that are in no commit; commit or stash them first:\n{said.rstrip()}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _line(path: Path, pattern: str, line: str, *, count: int = 1) -> str:
    text, found = re.subn(pattern, line, path.read_text(), flags=re.MULTILINE)
    if found != count:
        raise ReleaseError(f"{path.name} has {found} lines like {pattern}, where {count} should be")
    return text


if __name__ == "__main__":
    main()
