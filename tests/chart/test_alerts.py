"""The alerts of the chart fire when they should, ask for what is there, and each has a page that says what to do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster.errors import NotPossibleHereError
from cluster.fixtures import missing
from waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "operate" / "runbooks"
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((ROOT / "helm" / "alerts" / "hookline.yaml").read_text())["groups"]
    for rule in group["rules"]
}
CASES = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text())


@pytest.fixture(scope="session")
def promtool():
    """Runs the real one; what it printed, and its exit code."""
    found = subprocess.run(["sh", ROOT / "scripts" / "promtool.sh"], capture_output=True, text=True, check=False)
    if found.returncode:
        missing(NotPossibleHereError(found.stderr.strip()))

    def run(*words):
        command = [found.stdout.strip(), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)

    return run


@pytest.fixture(scope="session")
def rules(helm, tmp_path_factory):
    """The rules that the chart renders, as a file of Prometheus."""
    spec = helm.render({"prometheusRule": {"enabled": True}}).one("PrometheusRule")["spec"]
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.fixture(scope="session")
def verdicts(promtool, rules):
    """What promtool says of each case, all of them in one run: alert and whether it is to fire → its words."""
    files = {}
    spec = yaml.safe_load(rules.read_text())
    alone = {rule["alert"]: rule for group in spec["groups"] for rule in group["rules"]}
    for alert, cases in CASES.items():
        # Alone, or each case would cost as much as all rules do.
        rule = rules.with_name(f"{alert}.yaml")
        rule.write_text(yaml.safe_dump({"groups": [{"name": "alone", "rules": [alone[alert]]}]}))
        for kind in ("fires", "quiet"):
            path = rules.parent / f"{alert}-{kind}.yaml"
            path.write_text(yaml.safe_dump(unit_test(rule, alert, cases[kind], fires=kind == "fires")))
            files[alert, kind] = path
    said = re.split(r"^Unit Testing:  ", promtool("test", "rules", *files.values()).stdout, flags=re.MULTILINE)
    by_path = {path: words for path, _, words in (each.partition("\n") for each in said)}
    return {case: by_path.get(str(path), "nothing") for case, path in files.items()}


def unit_test(rules, alert, case, *, fires):
    """A case of alerts.yaml in promtool's words: with all that the alert says, where it fires."""
    rule = ALERTS[alert]
    said = {
        "exp_labels": {**rule["labels"], **case.get("labels", {})},
        "exp_annotations": {
            "summary": case.get("summary"),
            "description": rule["annotations"]["description"],
            "runbook_url": f"docs/operate/runbooks/{alert}.md",
        },
    }
    return {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": [{"series": name, "values": str(values)} for name, values in case["series"].items()],
            "alert_rule_test": [
                {"eval_time": case["at"], "alertname": alert, "exp_alerts": [said] if fires else []},
            ],
        }],
    }  # fmt: skip


def test_prometheus_takes_the_rules(promtool, rules):
    """As the chart renders them: expressions, durations and templates."""
    done = promtool("check", "rules", rules)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


@pytest.mark.parametrize("kind", ["fires", "quiet"])
@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_where_it_should_and_nowhere_else(verdicts, alert, kind):
    """On series of its case, with these very labels and words."""
    assert verdicts[alert, kind].strip() == "SUCCESS"


def test_a_case_that_is_wrong_is_noticed(promtool, rules, tmp_path):
    """The measure measures: an alert that fires is not quiet."""
    case = CASES["HooklineSidecarNotReady"]["fires"]
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(unit_test(rules, "HooklineSidecarNotReady", case, fires=False)))
    assert promtool("test", "rules", path).returncode != 0


def test_every_case_is_of_an_alert():
    """And none is left of one that is gone."""
    assert set(CASES) == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_how_bad_it_is_and_what_it_means(alert):
    """In a sentence or two; it waits for a moment that passes, and names nobody's words but labels."""
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert "{{" not in rule["annotations"]["description"]
    assert rule["annotations"]["description"].endswith(".")


def test_every_alert_has_a_page_and_every_page_an_alert():
    """A page says what it means, what to look at, in commands, and what to do; the index names it."""
    pages = {path.stem: path.read_text() for path in RUNBOOKS.glob("*.md") if path.name != "README.md"}
    assert set(pages) == set(ALERTS)
    index = (RUNBOOKS / "README.md").read_text()
    for alert, page in pages.items():
        assert page.startswith(f"# {alert}\n"), alert
        sections = re.findall(r"^## (.*)$", page, re.MULTILINE)
        assert sections == ["What it means", "What to look at", "What to do"], alert
        assert "```" in page, alert
        assert f"| [{alert}]({alert}.md) | {ALERTS[alert]['labels']['severity']} |" in index, alert


def test_the_links_of_the_pages_lead_somewhere():
    """To files of this repository, and to headings that are there."""
    for page in RUNBOOKS.glob("*.md"):
        for link in re.findall(r"\]\(([^):]+)\)", page.read_text()):
            file, _, heading = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), f"{page.name}: {link}"
            if heading:
                headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
                assert heading in slugs, f"{page.name}: {link}"


def test_the_rule_is_there_only_if_asked_for_and_says_where_the_pages_are(helm):
    """Off by default, for a cluster without Prometheus' operator; with the labels and the address that were given."""
    assert not helm.render().all("PrometheusRule")
    address = {"runbookBaseUrl": "https://wiki.example.com/hookline/", "labels": {"release": "prometheus"}}
    rule = helm.render({"prometheusRule": {"enabled": True, **address}}).one("PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    for group in rule["spec"]["groups"]:
        for each in group["rules"]:
            assert each["annotations"]["runbook_url"] == f"https://wiki.example.com/hookline/{each['alert']}.md"
