"""docs/start/cluster.md: its commands do what the page says, by the files that they use.

``tests/e2e/test_quickstart.py`` runs them on a cluster.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "start" / "cluster.md").read_text()
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]


def test_there_are_ten_commands():
    """One a line."""
    assert len(COMMANDS) == 10


def test_every_verb_of_make_exists():
    """As the Makefile has it."""
    verbs = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        verb for line in COMMANDS for verb in re.findall(r"\bmake ((?:[a-z-]+ ?)+)", line) for verb in verb.split()
    }
    assert named == {"plugins", "images", "cluster", "cluster-load"}
    assert named <= verbs


def test_the_chart_is_told_of_the_tag_that_make_images_gives():
    """And of values that exist."""
    (line,) = (line for line in COMMANDS if line.startswith("helm install"))
    options = shlex.split(line)
    given = dict(each.split("=") for each in options[options.index("--set") + 1].split(","))
    (tag,) = re.findall(r'"--tag", default="(\w+)"', (ROOT / "scripts" / "images.py").read_text())
    assert given == {"image.tag": tag, "sidecar.image.tag": tag}
    values = yaml.safe_load((ROOT / "helm" / "values.yaml").read_text())
    for path in given:
        assert path.partition(".")[0] in values
    assert values["image"]["repository"] == "hookline-operator"
    assert values["sidecar"]["image"]["repository"] == "hookline-sidecar"
    assert ROOT.joinpath(options[3], "Chart.yaml").exists()


def test_the_images_have_the_names_that_the_pods_ask_for():
    """That of nginx by the tag in the example's manifest; its archive is called as the loop expects."""
    proxy = list(yaml.safe_load_all((ROOT / "examples" / "kubernetes" / "proxy.yaml").read_text()))
    (image,) = (each["image"] for each in proxy[1]["spec"]["template"]["spec"]["containers"])
    (line,) = (line for line in COMMANDS if "scripts/images.py" in line)
    assert shlex.split(line) == ["python3", "scripts/images.py", "nginx", "--prefix", "", "--tag", image.split(":")[1]]
    assert image.split(":")[0] == "nginx"


def test_the_plugin_is_the_example_with_another_source():
    """A change of examples/kubernetes is made here too."""
    ours, secret = yaml.safe_load_all((ROOT / "examples" / "quickstart" / "wasmplugin.yaml").read_text())
    theirs, other = yaml.safe_load_all((ROOT / "examples" / "kubernetes" / "wasmplugin.yaml").read_text())
    assert ours["spec"].pop("source") == {"configMap": {"name": "api-keys-module"}}
    assert set(theirs["spec"].pop("source")) == {"oci"}
    assert (ours, secret) == (theirs, other)
    assert any("configmap api-keys-module --from-file=plugin.wasm=" in line for line in COMMANDS)
    assert any(f"wasmplugin/{ours['metadata']['name']} " in line for line in COMMANDS)


def test_the_files_that_are_applied_exist():
    """By their path from the root."""
    (line,) = (line for line in COMMANDS if line.startswith("kubectl apply"))
    files = shlex.split(line)[3::2]
    assert len(files) == 2
    assert all((ROOT / each).is_file() for each in files)
