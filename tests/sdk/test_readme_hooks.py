"""sdk/README.md, "A hook, in ten lines": what it says for C, Go and Zig is a plugin, and takes ten lines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SDK = "../../../../sdk/hookline_sdk"
"""As seen from build/readme-hooks/LANGUAGE/NAME."""


def said(language: str) -> str:
    """The page's code in one language."""
    section = (ROOT / "sdk" / "README.md").read_text().split("## A hook, in ten lines\n")[1]
    [code] = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return str(code)


def files(language: str, name: str) -> dict[str, str]:
    """A plugin that is the page's hook."""
    code = said(language)
    if language == "c":
        return {f"{name}.c": code}
    if language == "zig":
        return {"main.zig": code}
    module = f"module {name}\n\ngo 1.24\n\nrequire hookline v0.0.0\n\nreplace hookline => {SDK}/go\n"
    return {"main.go": f'package main\n\nimport "hookline"\n\n{code}\nfunc main() {{}}\n', "go.mod": module}


@pytest.mark.parametrize("language", ["c", "go", "zig"])
def test_a_hook_is_built_as_the_page_has_it(language) -> None:
    """Blank lines aside, it has ten lines at the most; the module exports the hook."""
    assert len([line for line in said(language).splitlines() if line.strip()]) <= 10
    name = f"hook-{language}"
    plugins = ROOT / "build" / "readme-hooks" / language
    folder = plugins / name
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in files(language, name).items():
        (folder / path).write_text(text)
    (folder / "plugin.json").write_text(json.dumps({"name": name, "version": "0.0.0"}))
    build = [sys.executable, ROOT / "examples" / "build.py", "--plugins", plugins, "--out", plugins / "out", "--json"]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    [result] = json.loads(done.stdout)
    if result["skipped"]:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(result["error"])
    assert result["error"] is None, result["error"]
    assert b"\x09pre_query\x00" in Path(result["path"]).read_bytes()  # an exported function
