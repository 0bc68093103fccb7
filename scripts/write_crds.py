"""Writes the CustomResourceDefinition: ``write_crds.py [FILE]``. ``make crds`` calls it, a test keeps it fresh.

Without FILE it writes the chart's template of it too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from hookline_api.schema import crd

HEADER = "# Generated from crds/hookline_api by `make crds`; do not edit.\n"
ROOT = Path(__file__).parent.parent
TARGET = ROOT / "crds" / "hookline.dev_wasmplugins.yaml"
CHART_TARGET = ROOT / "helm" / "templates" / "crd.yaml"

# What the chart adds, by the line that it follows. Helm's folder crds/ would never be upgraded.
_CHART_HEAD = "{{- if .Values.crds.install }}\n"
_CHART_METADATA = """\
  labels:
    {{- include "hookline.labels" . | nindent 4 }}
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""


class _Plain(yaml.SafeDumper):
    """Writes a value that is used twice, twice: Kubernetes' tools have no love for YAML anchors."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the library's signature
        return True


def render() -> str:
    """The file's content."""
    return HEADER + yaml.dump(crd(), Dumper=_Plain, sort_keys=False, width=115, allow_unicode=True)


def render_chart() -> str:
    """The chart's template: the same, if the values want it, with the release's labels."""
    # What templates take for their own is written so that it comes out as it is here.
    text = render().removeprefix(HEADER).replace("{{", '{{ "{{" }}')
    head, metadata, rest = text.partition(f"metadata:\n  name: {crd()['metadata']['name']}\n")
    return HEADER + _CHART_HEAD + head + metadata + _CHART_METADATA + rest + "{{- end }}\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(render())
    else:
        TARGET.write_text(render())
        CHART_TARGET.write_text(render_chart())
