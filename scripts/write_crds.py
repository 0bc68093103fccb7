"""Writes the CustomResourceDefinition: ``write_crds.py [FILE]``. ``make crds`` calls it, a test keeps it fresh."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from hookline_api.schema import crd

HEADER = "# Generated from crds/hookline_api by `make crds`; do not edit.\n"
TARGET = Path(__file__).parent.parent / "crds" / "hookline.dev_wasmplugins.yaml"


class _Plain(yaml.SafeDumper):
    """Writes a value that is used twice, twice: Kubernetes' tools have no love for YAML anchors."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - part of PyYAML's shape
        return True


def render() -> str:
    """The file's content."""
    return HEADER + yaml.dump(crd(), Dumper=_Plain, sort_keys=False, width=115, allow_unicode=True)


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET).write_text(render())
