"""docs/start/local.md, as a newcomer follows it: its manifest runs the plugin, which answers as the page shows."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

from waiting import until_true

_ROOT = Path(__file__).parents[2]
_PAGE = (_ROOT / "docs" / "start" / "local.md").read_text()


async def test_the_first_start_answers_as_the_page_shows(new_sidecar, tmp_path):
    """The module that ``make plugins`` builds, with the manifest; then other settings, and a mistake in them."""
    build = [sys.executable, _ROOT / "examples" / "build.py", "--out", tmp_path, "--only", "sql-guard"]
    await asyncio.to_thread(subprocess.run, build, check=True, capture_output=True)
    (manifest,) = re.findall(r"^```yaml\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)
    sidecar = new_sidecar()
    sidecar.folder.write("sql-guard.wasm", (tmp_path / "sql-guard.wasm").read_bytes())
    sidecar.folder.write("sql-guard.yaml", manifest)
    sidecar.start()
    ((asked, shown),) = re.findall(r"-d '(.*?)'\n(\{.*?),…$", _PAGE, re.MULTILINE)
    answer = await sidecar.ask("pre_query", json.loads(asked))
    expected = json.loads(shown + "}")
    assert {name: answer[name] for name in expected} == expected
    changed = yaml.safe_load(manifest)
    changed["spec"]["config"]["deny_tables"] = ["wages"]
    sidecar.folder.write("sql-guard.yaml", changed)

    async def passes():
        return (await sidecar.ask("pre_query", json.loads(asked)))["action"] == "continue"

    await until_true(passes, "the new settings")
    changed["spec"]["config"]["deny_tables"] = "wages"
    sidecar.folder.write("sql-guard.yaml", changed)
    sidecar.wait_plugin("sql-guard", state="LastGood", failure=bool)
    assert await passes()
    sidecar.end()
