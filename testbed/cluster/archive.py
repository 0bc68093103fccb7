"""Container images: one of a static program, as an archive that any engine loads, and what images are called."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError

_INDEXES = ("index.json", "manifest.json")
_NO_ARCHIVE = "{} is not an image archive: it has neither an index.json (OCI) nor a manifest.json (Docker)"


def machine() -> str:
    """This machine's architecture, in the words of images."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def full_name(name: str) -> str:
    """What a kubelet makes of an image's name: ``nginx:1`` is ``docker.io/library/nginx:1``."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def name_of(archive: Path) -> str:
    """What an archive calls its one image, in full: ``docker.io/library/nginx:1``.

    Raises:
        ClusterError: It is not an image archive, holds several images, or none with a name.
    """
    described: dict[str, Any] = {}
    try:
        with tarfile.open(archive) as source:
            for entry in source:
                file = entry.name.removeprefix("./")
                if file in _INDEXES and (content := source.extractfile(entry)):
                    described[file] = json.load(content)
    except (OSError, tarfile.TarError, ValueError) as error:
        raise ClusterError(f"{archive} is not an image archive: {error}") from error
    if not described:
        raise ClusterError(_NO_ARCHIVE.format(archive))
    names = [name for image in described.get("manifest.json") or () for name in image.get("RepoTags") or ()]
    for image in described.get("index.json", {}).get("manifests", ()):
        notes = image.get("annotations") or {}
        # Engines other than containerd write a name, or a tag alone, into the annotation of the standard.
        given = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name", "")
        names += [given] if ":" in given else []
    found = sorted({full_name(name) for name in names})
    if len(found) != 1:
        what = f"holds {', '.join(found)}" if found else "does not say what its image is called"
        raise ClusterError(f"{archive} {what}; say which name it is to have")
    return found[0]


def rename_image(archive: Path, name: str, target: Path) -> Path:
    """Write a copy whose one image is called ``name`` and nothing else.

    ``ctr images import`` can only add a name. It keeps what the archive says, or makes one up (``import-DATE:latest``)
    that the kubelet's side of containerd then fails to find again, and the pod with it.

    Raises:
        ClusterError: It is not an image archive, or holds several images.
    """
    renamed = False
    with tarfile.open(archive) as source, tarfile.open(target, "w") as copy:
        for entry in source:
            content = source.extractfile(entry) if entry.isreg() else None
            file = entry.name.removeprefix("./")
            if content and file in _INDEXES:
                described = json.load(content)
                images = described["manifests"] if file == "index.json" else described
                if len(images) != 1:
                    raise ClusterError(f"{archive} holds {len(images)} images; {name} can only be one of them")
                if file == "index.json":  # an OCI image layout; containerd reads its own annotation before all others
                    images[0]["annotations"] = {"io.containerd.image.name": full_name(name)}
                else:  # docker save
                    images[0]["RepoTags"] = [full_name(name)]
                written = json.dumps(described).encode()
                entry.size, content, renamed = len(written), io.BytesIO(written), True
            copy.addfile(entry, content)
    if not renamed:
        raise ClusterError(_NO_ARCHIVE.format(archive))
    return target


def write_image(archive: Path, *, name: str, program: Path, architecture: str) -> Path:
    """Write the image ``name`` (with a tag) whose whole root is ``/program``; the same input gives the same bytes.

    The format is that of ``docker save``, version 1.2: a manifest.json that names the configuration and the layers.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as root:
        entry = tarfile.TarInfo(program.name)
        entry.size, entry.mode = program.stat().st_size, 0o755
        with program.open("rb") as source:
            root.addfile(entry, source)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": "65534:65534"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created_by": "hookline"}],
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as image:
        for file, content in (
            ("config.json", json.dumps(config).encode()),
            ("layer.tar", layer.getvalue()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(file)
            entry.size = len(content)
            image.addfile(entry, io.BytesIO(content))
    return archive
