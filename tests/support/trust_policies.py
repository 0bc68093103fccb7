"""Policies of a sidecar's own, in a folder as kubelet writes it; and what real cosign has signed.

``tests/sidecar/trust/material/make.py`` made the files.
"""

from __future__ import annotations

from pathlib import Path

import yaml

MATERIAL = Path(__file__).parents[1] / "sidecar" / "trust" / "material"
SIGNER, STRANGER = ((MATERIAL / f"{name}.pub").read_text() for name in ("signer", "stranger"))


def policy(name="only-signed", **spec):
    """A document; by default the signer's signature is needed."""
    spec = spec or {"signatures": {"anyOf": [{"name": "us", "key": {"pem": SIGNER}}]}}
    return {
        "apiVersion": "hookline.dev/v1alpha1",
        "kind": "PluginTrustPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


class Policies:
    """The folder of policies, written as kubelet writes a ConfigMap: a folder of its own, and one link that moves."""

    def __init__(self, path):
        self.path = path
        path.mkdir()
        self._number = 0
        self._files = {}

    def write(self, name, content):
        """Put a file there: text, or documents."""
        if not isinstance(content, str):
            content = yaml.safe_dump_all(content if isinstance(content, list) else [content])
        self._files[name] = content
        self._publish()

    def remove(self, name):
        """Take one away."""
        del self._files[name]
        self._publish()

    def _publish(self):
        self._number += 1
        data = self.path / f"..{self._number}"
        data.mkdir()
        for name, content in self._files.items():
            (data / name).write_text(content)
        link = self.path / "..new"
        link.symlink_to(data.name)
        link.replace(self.path / "..data")
        for name in self._files:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        for each in self.path.iterdir():
            if each.is_symlink() and not each.exists():
                each.unlink()
