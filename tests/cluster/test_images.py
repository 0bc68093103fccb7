"""Images for a node that pulls nothing: what an archive calls its image, and how it gets there."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cluster.archive import name_of, rename_image, write_image
from cluster.errors import ClusterError

ROOT = Path(__file__).parents[2]


def archive(path: Path, **files: Any) -> Path:
    """A tar with these JSON files."""
    with tarfile.open(path, "w") as made:
        for name, content in files.items():
            written = json.dumps(content).encode()
            entry = tarfile.TarInfo(name.replace("_", "."))
            entry.size = len(written)
            made.addfile(entry, io.BytesIO(written))
    return path


def load(*words: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """``python -m cluster load``, on a machine whose clusters are those of ``home``."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "testbed"), "XDG_CACHE_HOME": str(home)}
    command = [sys.executable, "-m", "cluster", "load", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_an_archive_says_what_its_image_is_called(tmp_path: Path) -> None:
    """As Docker, buildah and containerd write it; in full, since that is how a kubelet asks."""
    program = tmp_path / "program"
    program.write_bytes(b"\\x7fELF")
    written = write_image(tmp_path / "docker.tar", name="tools:1", program=program, architecture="amd64")
    assert name_of(written) == "docker.io/library/tools:1"
    assert name_of(rename_image(written, "example.com/tools:2", tmp_path / "renamed.tar")) == "example.com/tools:2"
    standard = {"org.opencontainers.image.ref.name": "docker.io/library/hookline-sidecar:dev"}
    oci = archive(tmp_path / "oci.tar", index_json={"manifests": [{"annotations": standard}]})
    assert name_of(oci) == "docker.io/library/hookline-sidecar:dev"
    both = archive(
        tmp_path / "both.tar",
        index_json={"manifests": [{"annotations": {"io.containerd.image.name": "docker.io/library/a:1"}}]},
        manifest_json=[{"RepoTags": ["a:1"]}],
    )
    assert name_of(both) == "docker.io/library/a:1"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"index_json": {"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "dev"}}]}},
            "does not say",
        ),
        ({"manifest_json": [{"RepoTags": None}]}, "does not say"),
        ({"manifest_json": [{"RepoTags": ["a:1", "b:1"]}]}, "holds docker.io/library/a:1, docker.io/library/b:1"),
        ({"other_json": {}}, "neither an index.json"),
    ],
)
def test_an_archive_that_does_not_say_is_asked_about(tmp_path: Path, files: dict[str, Any], sentence: str) -> None:
    """A tag alone is not a name, and of two names one would be a guess."""
    with pytest.raises(ClusterError, match=sentence):
        name_of(archive(tmp_path / "image.tar", **files))


def test_what_is_no_archive_is_said(tmp_path: Path) -> None:
    """Whatever else it is."""
    (tmp_path / "image.tar").write_text("no tar")
    with pytest.raises(ClusterError, match="is not an image archive"):
        name_of(tmp_path / "image.tar")


def test_loading_without_a_cluster_says_what_to_do(tmp_path: Path) -> None:
    """And so does an archive that is not there."""
    image = archive(tmp_path / "image.tar", manifest_json=[{"RepoTags": ["a:1"]}])
    done = load(image, home=tmp_path)
    assert done.returncode == 1
    assert "there is none with a node; `make cluster` brings one up" in done.stderr
    done = load(tmp_path / "missing.tar", home=tmp_path)
    assert done.returncode == 1
    assert "missing.tar is not there; `make images` writes ours to build/images" in done.stderr


def test_make_says_how_to_load_an_image() -> None:
    """The verb without an image names one; the help has it."""
    done = subprocess.run(["make", "cluster-load"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "make cluster-load IMAGE=build/images/hookline-sidecar.tar" in done.stderr
    assert (
        "cluster-load" in subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )
