"""The first plugin of examples/README.md, as a new author makes it: its source, commands and manifest stand there."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

_ROOT = Path(__file__).parents[3]
_PAGE = (_ROOT / "examples" / "README.md").read_text().partition("## Your own")[2].partition("\n## ")[0]


def _code(language):
    """The one block of that language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", _PAGE, re.DOTALL | re.MULTILINE)
    return block


async def test_the_first_plugin_is_built_and_run_by_what_the_page_says(new_sidecar, tmp_path):
    """With nothing added: the command builds it, the manifest runs it, and it answers as is shown there."""
    (tmp_path / "too-long.c").write_text(_code("c"))
    for command in _code("sh").replace("\\\n", " ").splitlines():
        arguments = shlex.split(command.replace(".venv/bin/python", sys.executable))
        arguments = [str(_ROOT / each) if each == "sdk/hookline_sdk/c" else each for each in arguments]
        await asyncio.to_thread(subprocess.run, arguments, cwd=tmp_path, check=True)
    sidecar = new_sidecar()
    sidecar.folder.write("too-long.wasm", (tmp_path / "my-plugins" / "too-long.wasm").read_bytes())
    sidecar.folder.write("too-long.yaml", _code("yaml"))
    sidecar.start()
    asked, shown = re.findall(r"-d '(.*?)'\n(\{.*?),…$", _PAGE, re.MULTILINE)[0]
    expected = yaml.safe_load(f"{shown}}}")
    answer = await sidecar.ask("pre_query", yaml.safe_load(asked))
    assert {name: answer[name] for name in expected} == expected
    assert (await sidecar.ask("pre_query", {"query": "select 1"}))["action"] == "continue"
    assert sidecar.problems() == []
    sidecar.end()
