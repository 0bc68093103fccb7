"""Writes the CustomResourceDefinitions: ``write_crds.py [FOLDER]``. ``make crds`` calls it, a test keeps them fresh.

Without FOLDER it writes the chart's templates of them too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from hookline_api.crd import Json, crd, policy_crd, revision_crd

HEADER = "# Generated from crds/hookline_api by `make crds`; do not edit.\n"
ROOT = Path(__file__).parent.parent
CRDS = ROOT / "crds"
TEMPLATES = ROOT / "helm" / "templates"
DEFINITIONS = {
    "hookline.dev_wasmplugins.yaml": ("crd.yaml", crd()),
    "hookline.dev_wasmpluginrevisions.yaml": ("crd-revisions.yaml", revision_crd()),
    "hookline.dev_plugintrustpolicies.yaml": ("crd-policies.yaml", policy_crd()),
}
"""By their file in crds/: the chart's template, and what is in both."""

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


def render(definition: Json) -> str:
    """The file's content."""
    return HEADER + yaml.dump(definition, Dumper=_Plain, sort_keys=False, width=115, allow_unicode=True)


def render_chart(definition: Json) -> str:
    """The chart's template: the same, if the values want it, with the release's labels."""
    # What templates take for their own is written so that it comes out as it is here.
    text = render(definition).removeprefix(HEADER).replace("{{", '{{ "{{" }}')
    head, metadata, rest = text.partition(f"metadata:\n  name: {definition['metadata']['name']}\n")
    return HEADER + _CHART_HEAD + head + metadata + _CHART_METADATA + rest + "{{- end }}\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else CRDS
    for name, (template, definition) in DEFINITIONS.items():
        (folder / name).write_text(render(definition))
        if folder is CRDS:
            (TEMPLATES / template).write_text(render_chart(definition))
