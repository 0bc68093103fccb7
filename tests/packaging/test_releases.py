"""A release: the version in all places, files that anybody can build again, and what is said of them."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tomllib
import urllib.request
import zipfile
from pathlib import Path

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import dist
import provenance
import release
import sbom
from cluster.archive import write_image
from cluster.binaries import binary
from cluster.errors import NotPossibleHereError
from cluster.fixtures import missing
from local_registry import LocalRegistry

ROOT = Path(__file__).parent.parent.parent
DAY = dt.date(2031, 2, 3)
NOW = dist.version_of(ROOT)


def git(where, *words):
    """Runs git there, whoever the user is."""
    who = ["-c", "user.name=A Person", "-c", "user.email=person@example.com", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", where, *who, *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path):
    """A repository with the files that name the version, and a changelog with one line."""
    root = tmp_path / "checkout"
    for name in git(ROOT, "ls-files", "pyproject.toml", "README.md", "docs", "helm").splitlines():
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    (root / "CHANGELOG.md").write_text(
        "# Changelog\n\n## Unreleased\n\n### Added\n\n- A thing.\n\n## 0.0.9 - 2030-01-01\n"
    )
    git(root.parent, "init", "--quiet", root)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "All")
    return root


@pytest.fixture
def tool():
    """Gives the path of a program that is built from its Go module."""

    def tool(program):
        try:
            return binary(program)
        except NotPossibleHereError as error:
            missing(error)

    return tool


@pytest.fixture
def registry(tmp_path, need):
    """A real registry, which holds nothing yet."""
    registry = LocalRegistry(need("docker-registry", "docker-registry"), tmp_path / "registry")
    registry.start()
    yield registry
    registry.stop()


# ---- the version


def test_a_release_sets_the_version_wherever_it_stands(checkout):
    """In pyproject.toml, twice in the chart, and in each page that shows how to install it."""
    before = "".join(page.read_text() for page in release.pages(checkout))
    changed = release.prepare(checkout, "7.8.9", DAY)
    assert dist.version_of(checkout) == "7.8.9"
    said = yaml.safe_load((checkout / "helm" / "Chart.yaml").read_text())
    assert (said["version"], said["appVersion"]) == ("7.8.9", "7.8.9")
    after = "".join(page.read_text() for page in release.pages(checkout))
    assert NOW in before
    assert NOW not in after
    assert after.count("7.8.9") - before.count("7.8.9") == before.count(NOW)
    assert {path for path in changed if path.suffix != ".md"} == {
        checkout / "pyproject.toml",
        checkout / "helm/Chart.yaml",
    }
    assert git(checkout, "status", "--porcelain").count("\n") == len(changed)


def test_the_changelogs_unreleased_lines_become_those_of_the_version(checkout):
    """With the day; and a new, empty "Unreleased" stands above. These words are the release's notes."""
    release.prepare(checkout, "7.8.9", DAY)
    log = (checkout / "CHANGELOG.md").read_text()
    assert "## Unreleased\n\n## 7.8.9 - 2031-02-03\n\n### Added\n\n- A thing.\n\n## 0.0.9 - 2030-01-01\n" in log
    assert release.notes(log, "7.8.9") == "### Added\n\n- A thing.\n"
    git(checkout, "commit", "--quiet", "--all", "--message", "Version 7.8.9")
    with pytest.raises(release.ReleaseError, match='nothing under "## Unreleased"'):
        release.prepare(checkout, "7.9.0", DAY)


@pytest.mark.parametrize(
    ("version", "sentence"),
    [("7.8", "three numbers"), ("v7.8.9", "three numbers"), ("0.0.8", "older than"), ("0.0.9", "older than")],
)
def test_what_is_no_newer_version_is_refused(checkout, version, sentence):
    """Before anything is written."""
    with pytest.raises(release.ReleaseError, match=sentence):
        release.prepare(checkout, version, DAY)
    assert git(checkout, "status", "--porcelain") == ""


def test_a_tree_with_changes_is_not_released(checkout):
    """Nor one with a file that nobody added; what is there is named."""
    (checkout / "docs" / "stray.md").write_text("A page.\n")
    with pytest.raises(release.ReleaseError, match=r"stray\.md"):
        release.prepare(checkout, "7.8.9", DAY)
    assert dist.version_of(checkout) == NOW


def test_chart_and_project_have_one_version():
    """Between releases too; and the checkout's own changelog has something to release."""
    said = yaml.safe_load((ROOT / "helm" / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {said["version"], said["appVersion"]} == {project}


def test_a_draft_is_made_of_the_files_and_the_changelogs_words(checkout, tmp_path, monkeypatch):
    """By GitHub's command, which gets both."""
    program, out = tmp_path / "bin" / "gh", tmp_path / "dist"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/words\ncat >{tmp_path}/notes\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    release.prepare(checkout, "7.8.9", DAY)
    with pytest.raises(release.ReleaseError, match="`make dist` builds it"):
        release.publish(checkout, out)
    out.mkdir()
    (out / "SHA256SUMS").touch()
    release.publish(checkout, out)
    words = (tmp_path / "words").read_text().split()
    assert words[:4] == ["release", "create", "v7.8.9", str(out / "SHA256SUMS")]
    assert "--draft" in words
    assert (tmp_path / "notes").read_text() == "### Added\n\n- A thing.\n"


# ---- what is built


def test_the_same_files_give_the_same_packages(tmp_path):
    """In another folder, and written at another time: byte by byte."""
    copy = tmp_path / "copy"
    for name in git(ROOT, "ls-files").splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    built = []
    for folder, written in (("one", 1_000_000_000), ("two", 1_500_000_000)):
        copy = copy.rename(tmp_path / f"checkout-{folder}")
        for file in copy.rglob("*"):
            os.utime(file, (written, written))
        out = tmp_path / folder
        out.mkdir()
        dist.packages(copy, out, epoch=1_700_000_000)
        built.append({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in out.iterdir()})
    assert {Path(name).suffix for name in built[0]} == {".whl", ".gz"}
    assert built[0] == built[1]
    (wheel,) = (tmp_path / "one").glob("*.whl")
    held = {Path(name).name for name in zipfile.ZipFile(wheel).namelist()}
    assert {"__init__.py", "accelerator.c", "py.typed"} <= held


def test_the_chart_is_packed_the_same_each_time_and_helm_reads_it(tmp_path, tool, monkeypatch):
    """As helm packs it, but for times and order."""
    monkeypatch.setattr(dist, "binary", tool)
    built = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        dist.chart(ROOT / "helm", tmp_path / folder, epoch=1_700_000_000)
        (chart,) = (tmp_path / folder).iterdir()
        built.append(chart.read_bytes())
    assert chart.name == f"hookline-{NOW}.tgz"
    assert built[0] == built[1]
    shown = subprocess.run([tool("helm"), "show", "chart", chart], check=True, capture_output=True, text=True).stdout
    assert yaml.safe_load(shown)["appVersion"] == NOW


# ---- what is said of it


def layer(**files):
    """A tar of text files, their names written with ``__`` for a slash."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as made:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            made.addfile(member, io.BytesIO(text.encode()))
    return raw.getvalue()


def image(path, python, debian="Package: libc6\nStatus: install ok installed\nVersion: 2.36-9\n"):
    """An archive of an image with these Python packages, in two layers."""
    site = "opt/hookline/lib/python3.11/site-packages"
    held = {f"{site}/{name}.dist-info/METADATA": f"Name: {name}\nVersion: {version}\n" for name, version in python}
    layers = {"a.tar": layer(**{"./var/lib/dpkg/status": debian} if debian else {}), "b.tar": layer(**held)}
    with tarfile.open(path, "w") as made:
        for name, raw in {**layers, "manifest.json": json.dumps([{"Layers": [*layers]}]).encode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            made.addfile(member, io.BytesIO(raw))
    return path


def bill(name, found=None, lock=None):
    """The bill of materials of an image, which the schema of CycloneDX accepts."""
    lock = lock or ROOT / "requirements" / f"{name}.txt"
    text = sbom.describe(name=name, version=NOW, lock=lock, image=found, made=1_700_000_000)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    return json.loads(text)


@pytest.mark.parametrize("name", dist.IMAGES)
def test_each_locked_package_is_named_with_its_version_and_its_hashes(name):
    """None is left out, and no hash of any."""
    lock = (ROOT / "requirements" / f"{name}.txt").read_text()
    pins = {line.split()[0] for line in lock.splitlines() if "==" in line and not line.startswith("#")}
    parts = {each["bom-ref"]: each for each in bill(name)["components"]}
    assert {f"{each['name']}=={each['version']}" for each in parts.values()} - pins == {f"hookline=={NOW}"}
    assert len(parts) == len(pins) + 1
    hashes = [
        digest["content"] for each in parts.values() for files in each.get("externalReferences", ())
        for digest in files["hashes"]
    ]  # fmt: skip
    locked = [word.removeprefix("--hash=sha256:") for word in lock.split() if word.startswith("--hash=sha256:")]
    assert sorted(hashes) == sorted(locked)


def test_of_an_image_only_what_it_holds_is_named_debians_packages_too(tmp_path):
    """What the lock has for other platforms is left out. The bill names the archive that it is of."""
    held = {(each.name, each.version) for each in sbom.read_lock((ROOT / "requirements/sidecar.txt").read_text())[:3]}
    archive = image(tmp_path / "image.tar", {*held, ("hookline", NOW)})
    said = bill("sidecar", archive)
    found = {(each["name"], each["version"]) for each in said["components"]}
    assert found == {*held, ("hookline", NOW), ("libc6", "2.36-9")}
    assert said["metadata"]["component"]["hashes"][0]["content"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    (root,) = (each for each in said["dependencies"] if each["ref"] == "hookline-sidecar")
    assert {*root["dependsOn"]} == {each["bom-ref"] for each in said["components"]}
    assert bill("sidecar", archive) == said


def test_an_image_that_holds_something_else_than_its_lock_is_not_described(tmp_path):
    """Another version, or a package that nobody locked; nor is one that is of something else than Debian."""
    archive = image(tmp_path / "image.tar", {("aiohttp", "0.0.1"), ("stranger", "1.0")})
    with pytest.raises(sbom.SbomError, match=r"holds what its lock does not: aiohttp 0\.0\.1, stranger 1\.0"):
        bill("sidecar", archive)
    with pytest.raises(sbom.SbomError, match="has no var/lib/dpkg/status"):
        bill("sidecar", image(tmp_path / "other.tar", set(), debian=""))


def test_checksums_and_provenance_name_each_file_by_its_digest(tmp_path):
    """The statement of all that was built, the sums of that and of the statement, as sha256sum reads them."""
    dist.packages(ROOT, tmp_path, epoch=1_700_000_000)
    built = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()}
    dist.described(tmp_path, version=NOW, parts=["packages"])
    said = json.loads((tmp_path / f"hookline-{NOW}.provenance.json").read_text())
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    assert {each["name"]: each["digest"]["sha256"] for each in said["subject"]} == built
    definition = said["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {"version": NOW, "parts": ["packages"]}
    source, *locks = definition["resolvedDependencies"]
    assert source["digest"]["gitCommit"] == git(ROOT, "rev-parse", "HEAD").strip()
    for lock in locks:
        assert lock["digest"]["sha256"] == hashlib.sha256((ROOT / lock["name"]).read_bytes()).hexdigest()
    assert {"requirements/operator.txt", "requirements/sidecar.txt"} <= {lock["name"] for lock in locks}
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, check=True, capture_output=True)
    assert len((tmp_path / "SHA256SUMS").read_text().splitlines()) == len(built) + 1


def test_in_a_workflow_the_provenance_names_builder_source_and_run(tmp_path):
    """As GitHub tells it. Elsewhere only the commit is known."""
    (tmp_path / "file").write_text("x")
    variables = {
        "GITHUB_SERVER_URL": "https://github.example", "GITHUB_REPOSITORY": "owner/hookline",
        "GITHUB_REF": "refs/tags/v1.2.3", "GITHUB_RUN_ID": "17", "GITHUB_RUN_ATTEMPT": "2",
        "GITHUB_WORKFLOW_REF": "owner/hookline/.github/workflows/release.yaml@refs/tags/v1.2.3",
    }  # fmt: skip
    text = provenance.state(
        [tmp_path / "file"], version="1.2.3", parts=["packages"], commit="c" * 40, inputs={}, environment=variables
    )
    predicate = json.loads(text)["predicate"]
    source = predicate["buildDefinition"]["resolvedDependencies"][0]
    assert source["uri"] == "git+https://github.example/owner/hookline@refs/tags/v1.2.3"
    assert predicate["runDetails"] == {
        "builder": {"id": f"https://github.example/{variables['GITHUB_WORKFLOW_REF']}"},
        "metadata": {"invocationId": "https://github.example/owner/hookline/actions/runs/17/attempts/2"},
    }


def test_images_are_pushed_under_the_names_that_the_prefix_gives(tmp_path, registry, tool, monkeypatch):
    """To a real registry, with the version as their tag; what was not built is asked for."""
    monkeypatch.setattr(dist, "binary", tool)
    with pytest.raises(dist.DistError, match="say which registry"):
        dist.push(tmp_path, prefix="hookline-", version="7.8.9")
    with pytest.raises(dist.DistError, match="`make dist` builds it"):
        dist.push(tmp_path, prefix="registry.example.com/hookline-", version="7.8.9")
    for name in dist.IMAGES:
        program = tmp_path / f"hookline-{name}"
        program.write_text(name)
        archive = dist.archive(tmp_path, name, "7.8.9")
        write_image(archive, name=f"hookline-{name}:7.8.9", program=program, architecture="amd64")
    # Plain HTTP is for registries that are called localhost.
    dist.push(tmp_path, prefix=f"{registry.host.replace('127.0.0.1', 'localhost')}/shop/hookline-", version="7.8.9")
    for name in dist.IMAGES:
        with urllib.request.urlopen(f"http://{registry.host}/v2/shop/hookline-{name}/tags/list") as answer:
            assert json.load(answer)["tags"] == ["7.8.9"]
