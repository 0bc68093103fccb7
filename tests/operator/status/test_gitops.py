"""What docs/operate/gitops.md says Argo CD and Flux make of a status, for each status of the table of ``reconcile``."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from hookline_operator.status.observation import Observation
from hookline_operator.status.reconcile import as_json, reconcile
from waiting import PATIENCE_S

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "operate" / "gitops.md").read_text()
CASES = {path.stem: path for path in sorted((Path(__file__).parent / "cases").glob("*.yaml"))}
NOW = "2026-01-02T03:04:05Z"
(CONFIG,) = (
    yaml.safe_load(block)
    for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    if "argocd-cm" in block
)
SCRIPT = CONFIG["data"]["resource.customizations.health.hookline.dev_WasmPlugin"]


def resource(name):
    """A WasmPlugin with the status that a case gives."""
    case = yaml.safe_load(CASES[name].read_text())
    observation = Observation.model_validate({"now": NOW, "generation": 1} | case["given"])
    status = as_json(reconcile(observation).status)
    return {"metadata": {"name": "guard", "generation": observation.generation}, "status": status}


def lua(value):
    """JSON as an expression of Lua, which Argo CD makes of an object too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{lua(key)}] = {lua(each)}" for key, each in value.items() if each is not None) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(lua, value)) + "}"
    if isinstance(value, str):
        return '"' + "".join(f"\\{byte:03d}" for byte in value.encode()) + '"'
    return json.dumps(value)


@pytest.fixture
def argo(need):
    """The health of an object by the page's script: status and message."""
    program = need("lua5.1", "lua5.1")  # Argo CD's is of that version

    def health(given):
        # Without the libraries that Argo CD leaves out.
        source = f"""
            local write = io.write
            io, string, math, debug, require = nil, nil, nil, nil, nil
            local obj = {lua(given)}
            local function health(obj) {SCRIPT} end
            local found = health(obj)
            write(found.status, "\\n", found.message)
        """
        done = subprocess.run(
            [program, "-"], input=source.encode(), capture_output=True, check=False, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stderr
        return tuple(done.stdout.decode().split("\n", 1))

    return health


def conditions(given):
    """By type."""
    return {each["type"]: each for each in given["status"].get("conditions", [])}


def kstatus(given):
    """What kstatus makes of it, https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/status/generic.go."""
    found = conditions(given)
    if given["status"].get("observedGeneration") != given["metadata"]["generation"]:
        return "InProgress"
    if found["Reconciling"]["status"] == "True":
        return "InProgress"
    if found["Stalled"]["status"] == "True":
        return "Failed"
    return {"True": "Current", "False": "InProgress", "Unknown": "InProgress"}[found["Ready"]["status"]]


@pytest.mark.parametrize("name", CASES)
def test_argo_cd_and_flux_agree_with_the_status(argo, name):
    """Green is what is Ready and nothing else; red is what a person has to mend; the sentence is that of Ready."""
    given = resource(name)
    found = conditions(given)
    health, message = argo(given)
    ready = found["Ready"]
    assert message == f"{ready['reason']}: {ready['message']}"
    assert (health == "Healthy") == (ready["status"] == "True")
    if ready["status"] != "True":
        assert (health == "Degraded") == (found["Stalled"]["status"] == "True"), (ready, found)
    same = {"Healthy": {"Current"}, "Degraded": {"Failed"}, "Progressing": {"InProgress"}}
    assert kstatus(given) in same[health] | ({"InProgress"} if health == "Healthy" else set())


@pytest.mark.parametrize(
    ("name", "health"),
    [
        ("ready", "Healthy"), ("config_invalid", "Degraded"), ("pending", "Progressing"), ("loading", "Progressing"),
        ("no_pods", "Progressing"), ("no_pods_needed", "Healthy"), ("failing_calls", "Degraded"),
        ("rolled_back", "Degraded"),
    ],
)  # fmt: skip
def test_the_pages_table_is_true(argo, name, health):
    """Row by row."""
    assert argo(resource(name))[0] == health


def test_what_nobody_observes_is_not_green(argo):
    """No operator is at work: Unknown, with what was true when it ended."""
    given = resource("ready")
    for each in given["status"]["conditions"]:
        if each["type"] == "Ready":
            each |= {"status": "Unknown", "reason": "NotObserved", "message": "no operator is at work; it was True"}
    assert argo(given) == ("Unknown", "NotObserved: no operator is at work; it was True")
    given = resource("ready")
    given["status"]["conditions"].append({"type": "Observed", "status": "False", "reason": "NotObserved"})
    assert argo(given)[0] == "Unknown"


def test_what_is_not_known_yet_is_on_its_way(argo):
    """No status, one of an older generation, a deletion."""
    assert argo({"metadata": {"generation": 1}})[0] == "Progressing"
    assert argo({"metadata": {"generation": 1}, "status": {}})[0] == "Progressing"
    given = resource("ready")
    assert argo({**given, "metadata": {"generation": 2}})[0] == "Progressing"
    deleted = {**given["metadata"], "deletionTimestamp": NOW}
    assert argo({**given, "metadata": deleted}) == ("Progressing", "it is being deleted")
