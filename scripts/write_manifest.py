"""Writes docs/manifest.md: every field of a manifest with type, default, range and example. A test keeps it fresh.

Types, defaults and ranges come from the models, meanings from their docstrings, and examples from
``manifest_examples.yaml``, which a test holds against the models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from hookline_api.described import describe
from hookline_api.quantities import format_duration, format_size
from hookline_api.resources import LocalWasmPluginSpec, WasmPluginSpec

SCRIPTS: Final = Path(__file__).parent
TARGET: Final = SCRIPTS.parent / "docs" / "manifest.md"
Json = dict[str, Any]
_BETWEEN: Final = re.compile(r"is not between (\S+) and (\S+)")
_DEFAULT: Final = re.compile(r" ?Default `?[^ `]+`?\.$")
_HEAD: Final = """\
# The manifest

This page lists every field of a `WasmPlugin`, for whoever writes one: its type, its default, its range, and an example.
`kubectl explain wasmplugin.spec` says the same of a cluster. [Status](operate/status.md) is about what the operator
writes back.

<!-- Generated from crds/hookline_api by scripts/write_manifest.py; do not edit. -->

```yaml
# yaml-language-server: $schema=docs/schemas/wasmplugin.json
apiVersion: hookline.dev/v1alpha1
kind: WasmPlugin
metadata:
  name: sql-guard # also the name of its keys, of its metrics, and in decisions
spec:
  source:
    oci: {reference: "registry.example.com/plugins/sql-guard:1.0.0"}
  hooks: [pre_query]
  permissions: [config.read]
  config: {deny: [drop, truncate]}
  limits: {timeout: 20ms}
```

## Two flavours

| | in a cluster | in a manifest folder (`--plugins`) |
|---|---|---|
| where | an object of the API, in a namespace | a YAML or JSON file; several documents in one file may be |
| `spec.source` | `oci`, `http` or `configMap` | also `file`, and `oci-layout:PATH` as a reference |
| `spec.selector`, `spec.rollout.deadline` | which pods; how long they wait for each other | read, and of no effect |
| Secrets, ConfigMaps | objects of the plugin's namespace | documents of these kinds in the same folder |
| schema | [`wasmplugin.json`](schemas/wasmplugin.json) | [`local-wasmplugin.json`](schemas/local-wasmplugin.json) |

An editor that knows the YAML language server checks a manifest that names its schema in the first line, as the
examples in `examples/plugins` do. A field that is misspelt is an error everywhere: in the editor, at `kubectl apply`,
and in a folder.

## How values are written

| type | |
|---|---|
| duration | text with a unit: `50ms`, `2s`, `5m`, `1h30m` |
| size | a number of bytes, or a quantity: `512`, `16Mi`, `1G` |
| secret | `{name: SECRET, key: KEY}`: one key of a Secret. The value is shown nowhere |
| list, map | of what is named; the range is how many there may be |

`[]` stands for each item of a list. *required* means that the field may not be left out where what is around it is
there.
"""
_SHADOW: Final = """
With `mode: Shadow` a plugin sees the calls that it would decide, and decides nothing: try a new guard on real traffic
with it.

- It runs off the reply's path, as observing hooks do (`spec.observers`). A proxy waits for it only with
  `overflow: Wait`.
- Its calls, failures, latencies and metrics are counted as any other plugin's. What it would have answered is not
  told.
- It is still fetched, verified and limited as always, and its host functions work: what it writes to its keys stays.
- Change it to `Enforce` to let it decide. That is a new revision, which is rolled out without probation.
"""


class Row(NamedTuple):
    """One field, as the table shows it."""

    path: str
    kind: str
    default: str
    range: str
    text: str


def parts() -> dict[str, list[Json]]:
    """The parts of the page by the field of ``spec``, each with its examples."""
    found: dict[str, list[Json]] = yaml.safe_load((SCRIPTS / "manifest_examples.yaml").read_text())
    return found


class Fields:
    """The rows of one part. A definition that stands there twice is written out once."""

    def __init__(self, definitions: dict[str, Json]) -> None:
        self._definitions = definitions
        self._shown: dict[str, str] = {}

    def below(self, node: Json, path: str) -> Iterator[Row]:
        """Each field below a node."""
        name, node = self._resolved(node)
        required = node.get("required", ())
        if name in self._shown and node.get("properties"):
            yield Row(f"{path}.…", "", "", "", f"as `{self._shown[name]}`")
            return
        self._shown[name] = path or "here"
        for field, each in node.get("properties", {}).items():
            here = f"{path}.{field}" if path else field
            yield self._row(each, here, required=field in required)
            yield from self._inside(each, here)

    def _inside(self, each: Json, here: str) -> Iterator[Row]:
        name, inner = self._resolved(each)
        if name == "SecretKeyRef" or set(inner.get("properties", ())) == {"name"}:
            return
        if isinstance(inner.get("items"), dict):
            if len(self._resolved(inner["items"])[1].get("properties", ())) > 1:
                yield from self.below(inner["items"], f"{here}[]")
        elif inner.get("properties"):
            yield from self.below(each, here)

    def row_of(self, node: Json, path: str) -> Row:
        """The row of a part that is a value by itself."""
        return self._row(node, path, required=False)

    def _row(self, each: Json, path: str, *, required: bool) -> Row:
        name, inner = self._resolved(each)
        default = "*required*" if required else _default(each.get("default", inner.get("default")), inner)
        text = _text(each.get("description") or inner.get("description", ""))
        if default and not required:
            text = _DEFAULT.sub("", text)
        kind = "secret" if name == "SecretKeyRef" else self._kind(inner)
        return Row(path, kind, default, _range(inner), text)

    def _resolved(self, node: Json) -> tuple[str, Json]:
        """The name of a node's definition, and the node without references and without null."""
        if "anyOf" in node and {"type": "null"} in node["anyOf"]:
            (only,) = [each for each in node["anyOf"] if each != {"type": "null"}]
            node = {**only, **{key: value for key, value in node.items() if key != "anyOf"}}
        if "$ref" not in node:
            return "", node
        name = node["$ref"].rpartition("/")[2]
        return name, {**self._definitions[name], **{key: value for key, value in node.items() if key != "$ref"}}

    def _kind(self, node: Json) -> str:
        if "enum" in node:
            return " ".join(f"`{value}`" for value in node["enum"])
        if isinstance(node.get("items"), dict):
            return f"list of {self._kind(self._resolved(node['items'])[1])}"
        if set(node.get("properties", ())) == {"name"}:
            return "`{name: NAME}`"
        if "x-kubernetes-int-or-string" in node:
            return "size"
        if "ms)?$" in node.get("pattern", ""):
            return "duration"
        if node.get("type") == "object":
            return "fields" if node.get("properties") else "map"
        return {"string": "text", "integer": "number", "boolean": "true or false"}.get(
            str(node.get("type")), "anything"
        )


def _default(value: Any, node: Json) -> str:
    if value is None or isinstance(value, dict) or value in ([], ""):
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        if "x-kubernetes-int-or-string" in node:
            return f"`{format_size(value)}`"
        if node.get("type") == "string":
            return f"`{format_duration(value)}`"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _range(node: Json) -> str:
    for each in node.get("x-kubernetes-validations", ()):
        if (found := _BETWEEN.search(each.get("message", ""))) is not None:
            return f"{found[1]} to {found[2]}"
    if "minimum" in node or "maximum" in node:
        low, high = node.get("minimum"), node.get("maximum")
        return f"{low:,} to {high:,}" if low is not None and high is not None else f"from {low or 0:,}"
    if "maxItems" in node or "maxProperties" in node:
        most, least = node.get("maxItems", node.get("maxProperties")), node.get("minItems", 0)
        return f"{least} to {most}" if least else f"up to {most}"
    if "maxLength" in node and "ms)?$" not in node.get("pattern", "") and "enum" not in node:
        return f"up to {node['maxLength']} characters"
    return ""


def _text(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("``", "`").replace("|", "\\|").strip()


def render() -> str:
    """The whole page."""
    describe(LocalWasmPluginSpec)
    schema = LocalWasmPluginSpec.model_json_schema(by_alias=True)
    written = [_HEAD]
    for part, examples in parts().items():
        node, fields = schema["properties"][part], Fields(schema["$defs"])
        itself = fields.row_of(node, part)
        rows = list(_rows(fields, node))
        suffix = "[]" if itself.kind.startswith("list of fields") else ""
        written.append(f"\n## spec.{part}{suffix}\n\n{itself.text}\n")
        if not rows:
            facts = [f"Type: {itself.kind}.", f"Default: {itself.default}." if itself.default else ""]
            facts.append(f"Range: {itself.range}." if itself.range else "")
            written.append(f"\n{' '.join(filter(None, facts))}\n")
        else:
            written.append("\n| field | type | default | range | |\n|---|---|---|---|---|\n")
            written += [f"| `{row.path}` | {row.kind} | {row.default} | {row.range} | {row.text} |\n" for row in rows]
        if part == "mode":
            written.append(_SHADOW)
        for each in examples:
            flow = None if any(isinstance(value, dict | list) for value in each.values()) else False
            text = yaml.safe_dump(each, sort_keys=False, default_flow_style=flow, width=110, allow_unicode=True)
            written.append(f"\n```yaml\n{text}```\n")
    return "".join(written)


def _rows(fields: Fields, node: Json) -> Iterator[Row]:
    items = node.get("items")
    yield from fields.below(items if isinstance(items, dict) else node, "")


assert set(WasmPluginSpec.model_fields) == set(LocalWasmPluginSpec.model_fields)

if __name__ == "__main__":
    TARGET.write_text(render())
