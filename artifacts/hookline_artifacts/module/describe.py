"""Descriptions: what a plugin says of itself. For people and for defaults; it never grants anything.

A plugin may describe itself in a custom section ``hookline.plugin`` (JSON), in OCI annotations, or in HeliosDB's
``plugin.yaml``, ``plugin.toml`` or ``manifest.json`` beside it in an archive. All say the same, so there is one
model, read leniently: a field that makes no sense is left out, a document that makes no sense is left out with a
note, and neither keeps a plugin from running.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, model_validator

from hookline_api.hooks import Hook, parse_hook
from hookline_api.permissions import Permission
from hookline_api.quantities import parse_size
from hookline_api.text import listed

MAX_DOCUMENT: Final = 1 << 16
"""Bytes of a description; longer ones are ignored."""
PACKED_MANIFESTS: Final = ("plugin.yaml", "plugin.toml", "manifest.json")
"""Where a description is in an archive; the first says more than the last."""
ANNOTATION: Final = "hookline.plugin"
"""An annotation that holds what the custom section of that name would."""

_MAX_DEPTH: Final = 32
"""Of a schema, and of a YAML or TOML document: PyYAML takes quadratic time in open brackets, and tomllib recurses."""
_MAX_EVENTS: Final = 20_000
"""What PyYAML may read from one document: its scalars, and the beginnings and ends of what they stand in."""
_MAX_DIGITS: Final = 64
"""Of a number with colons, which YAML 1.1 reads to the base of 60, and PyYAML in quadratic time."""
_MAX_KEY_PARTS: Final = 32
"""Of a dotted TOML key. tomllib takes quadratic time in them."""
_TEXTS: Final = {"name": 253, "version": 64, "description": 1024, "author": 253, "license": 128}
_AS_WRITTEN: Final = {*_TEXTS, "hooks", "permissions"}
_MAX_PERMISSIONS: Final = 32
# https://github.com/opencontainers/image-spec/blob/main/annotations.md
OCI_ANNOTATIONS: Final = {
    "name": "org.opencontainers.image.title",
    "version": "org.opencontainers.image.version",
    "description": "org.opencontainers.image.description",
    "author": "org.opencontainers.image.authors",
    "license": "org.opencontainers.image.licenses",
}
_HELIOSDB_SIZE: Final = re.compile(r"(\d{1,9})\s*([KMG])B", re.IGNORECASE)
_SEPARATORS: Final = re.compile(r"[\s_-]+")
_RUN_TOGETHER: Final = {hook.value.replace("_", ""): hook.value for hook in Hook}
# Each alternative takes what it has read for good, and what has no end goes to the end: so every byte is read once.
_TOML_TOKEN: Final = re.compile(
    r'''(?P<part>"""(?:[^"\\]|\\.|"(?!""))*+(?:""")?|"(?:[^"\\\n]|\\.)*+"?|[A-Za-z0-9_-]++'''
    r"""|'''(?:[^']|'(?!''))*+(?:''')?|'[^'\n]*+'?)"""
    r"|(?P<dot>\.)|(?P<open>[\[{])|(?P<close>[\]}])|(?P<space>[ \t]++)|#[^\n]*+|.",
    re.DOTALL,
)
_SEXAGESIMAL: Final = frozenset("0123456789:_+-.")
_PERMISSIONS: Final = {permission.value.replace(".", "_"): permission.value for permission in Permission}


class PluginResources(BaseModel):
    """How much memory the plugin says it wants, in bytes."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    min_memory: int | None = None
    max_memory: int | None = None


class PluginDescription(BaseModel):
    """What a plugin says of itself. ``model_validate`` takes any mapping and keeps what it understands."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    name: str | None = None
    version: str | None = None
    description: str | None = None
    author: str | None = None
    license: str | None = None
    hooks: tuple[Hook, ...] = ()
    permissions: tuple[str, ...] = ()
    """What it asks for, in Hookline's spelling where there is one (``kv_read`` is ``kv.read``)."""
    resources: PluginResources = PluginResources()
    config_schema: dict[str, Any] | None = None
    """A JSON Schema, not checked for being a good one."""
    notes: tuple[str, ...] = ()
    """What was left out and why, one sentence each."""

    @model_validator(mode="before")
    @classmethod
    def _lenient(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return {}
        resources = data.get("resources")
        if isinstance(resources, PluginResources):
            resources = resources.model_dump()
        if not isinstance(resources, Mapping):
            resources = data  # HeliosDB's plugin.toml has the sizes at the top
        kept: dict[str, Any] = {field: text for field, cap in _TEXTS.items() if (text := _text(data.get(field), cap))}
        kept["hooks"] = tuple(dict.fromkeys(_hooks(data.get("hooks"))))
        kept["permissions"] = tuple(dict.fromkeys(_permissions(data.get("permissions"))))[:_MAX_PERMISSIONS]
        kept["resources"] = {key: _size(resources.get(key)) for key in ("min_memory", "max_memory")}
        if isinstance(schema := data.get("config_schema"), Mapping) and not _deeper(schema, _MAX_DEPTH):
            kept["config_schema"] = dict(schema)
        kept["notes"] = tuple(note[:300] for note in _items(data.get("notes")))[:8]
        return kept

    @classmethod
    def from_json(cls, document: bytes, *, origin: str = "the section hookline.plugin") -> PluginDescription:
        """Of a JSON document; ``origin`` is for the note where it is none."""
        return cls._read(origin, document, orjson.loads)

    @classmethod
    def from_annotations(cls, annotations: Mapping[str, Any]) -> PluginDescription | None:
        """Of a manifest's annotations; None where they say nothing."""
        read = _that_describe(annotations)
        standard = cls.model_validate({field: read.get(key) for field, key in OCI_ANNOTATIONS.items()})
        own = read.get(ANNOTATION)
        if own is not None:
            standard = cls.from_json(own.encode(errors="replace"), origin=f"the annotation {ANNOTATION}").over(standard)
        return standard if standard != cls() else None

    @classmethod
    def from_packed(cls, documents: Mapping[str, bytes]) -> PluginDescription | None:
        """Of the files among ``PACKED_MANIFESTS`` that an archive holds; None where there is none."""
        readers = {"plugin.yaml": _load_yaml, "plugin.toml": _load_toml, "manifest.json": orjson.loads}
        found = None
        for name in reversed(PACKED_MANIFESTS):
            if name in documents:
                found = cls._read(name, documents[name], readers[name]).over(found)
        return found

    def over(self, other: PluginDescription | None) -> PluginDescription:
        """This, with what it does not say taken from ``other``; the notes of both."""
        if other is None:
            return self
        mine = {field: value for field, value in self if value != type(self).model_fields[field].default}
        return other.model_copy(update={**mine, "notes": self.notes + other.notes})

    @classmethod
    def _read(cls, origin: str, document: bytes, load: Any) -> PluginDescription:
        if len(document) > MAX_DOCUMENT:
            return cls(notes=(f"{origin} is ignored: it is longer than {MAX_DOCUMENT} bytes",))
        try:
            # through JSON, so that what YAML and TOML have and JSON has not (dates, keys of any type) ends here
            data = orjson.loads(orjson.dumps(load(document)))
        except ImportError:
            return cls(notes=(f"{origin} is ignored: PyYAML is not installed (pip install hookline[sidecar])",))
        except (ValueError, TypeError, RecursionError) as error:
            why = "".join(filter(str.isprintable, " ".join(str(error).split())))
            return cls(notes=(f"{origin} is ignored: it cannot be read ({why:.120})",))
        if not isinstance(data, dict):
            return cls(notes=(f"{origin} is ignored: it is not a mapping",))
        data.pop("notes", None)  # those are ours
        made = cls.model_validate(data)
        return made.model_copy(update={"notes": made.notes + _left_out(origin, data, made)})


def described_by(documents: Mapping[str, bytes], annotations: Mapping[str, Any]) -> dict[str, str]:
    """All that a description is read from, outside of the module: what a signature of the plugin has to cover.

    The SHA-256 in hexadecimal of each of ``documents`` by its name, and of each annotation by ``annotation:KEY``.
    """
    parts = {name: documents[name] for name in PACKED_MANIFESTS if name in documents}
    for key, value in sorted(_that_describe(annotations).items()):
        parts[f"annotation:{key}"] = value.encode(errors="surrogatepass")
    return {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}


def _that_describe(annotations: Mapping[str, Any]) -> dict[str, str]:
    """The annotations that are read. The values of annotations are texts (OCI): anything else is none."""
    keys = (*OCI_ANNOTATIONS.values(), ANNOTATION)
    return {key: value for key in keys if isinstance(value := annotations.get(key), str)}


def _left_out(origin: str, data: Mapping[str, Any], made: PluginDescription) -> tuple[str, ...]:
    """A note for what it says and nobody understands."""
    told = (*_TEXTS, "hooks", "permissions", "config_schema")
    lost = [name for name in told if data.get(name) and not getattr(made, name)]
    notes = [f"{origin}: its {' and '.join(lost)} cannot be read: what it says there does not count"] if lost else []
    strange = [] if "hooks" in lost else [each for each in _items(data.get("hooks")) if not _hooks([each])]
    if strange:
        notes.append(f"{origin} declares {listed(strange)}, which Hookline has not as hooks")
    return tuple(notes)


def _load_toml(document: bytes) -> object:
    text = document.decode()
    depth = parts = 0
    for token in _TOML_TOKEN.finditer(text):
        kind = token.lastgroup
        parts += kind == "dot"
        if kind not in {"part", "dot", "space"}:
            parts = 0
        depth += (kind == "open") - (kind == "close")
        if parts >= _MAX_KEY_PARTS:
            raise ValueError(f"it has a key of more than {_MAX_KEY_PARTS} parts")
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {_MAX_DEPTH}")
    return tomllib.loads(text)


def _load_yaml(document: bytes) -> object:
    yaml: Any = importlib.import_module("yaml")
    text = document.decode()
    try:
        # libyaml where PyYAML has it. Its composer recurses without a limit, so the events are counted first.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        _check_events(yaml, text, loader)
        data = yaml.load(text, loader)
        if isinstance(data, dict):  # HeliosDB reads these as they are written: 1.10 is a version, and `no` a name
            written = yaml.load(text, getattr(yaml, "CBaseLoader", yaml.BaseLoader))
            data |= {name: written[name] for name in _AS_WRITTEN & written.keys() if data.get(name) is not None}
        return data
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except (AttributeError, LookupError):
        # PyYAML's own, for a tag that its value does not fit: `!!timestamp x`, `!!bool maybe`, `!!int ""`
        raise ValueError("it has a tag that its value does not fit") from None


def _check_events(yaml: Any, text: str, loader: Any) -> None:
    """Raise ValueError for what PyYAML takes too long for. It reads no further than what is too much."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=loader)):
        if isinstance(event, yaml.AliasEvent):
            # An alias makes a few bytes mean gigabytes; no description needs one.
            raise ValueError("it has a YAML alias")  # noqa: TRY004 - of the document
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {_MAX_DEPTH}")
        if count >= _MAX_EVENTS:
            raise ValueError(f"it holds more than {_MAX_EVENTS} things")
        digits = isinstance(event, yaml.ScalarEvent) and len(event.value) > _MAX_DIGITS and ":" in event.value
        if digits and _SEXAGESIMAL.issuperset(event.value):
            raise ValueError(f"it has a number of more than {_MAX_DIGITS} digits")


def _text(value: object, cap: int) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)  # version: 1.0
    if not isinstance(value, str):
        return None
    return "".join(char for char in value.strip()[:MAX_DOCUMENT] if char.isprintable())[:cap] or None


def _items(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []


def _hooks(value: object) -> list[Hook]:
    """The hooks, however their words are put together: one that is not understood is not called."""
    found = []
    for name in _items(value):
        word = _SEPARATORS.sub("", name).lower()
        try:
            found.append(parse_hook(_RUN_TOGETHER.get(word, word)))
        except ValueError:
            continue  # a hook of some other host
    return found


def _permissions(value: object) -> list[str]:
    found = []
    for name in _items(value):
        text = _text(name, 64)
        if text:
            found.append("metrics" if text.startswith("metric_") else _PERMISSIONS.get(text, text))
    return found


def _size(value: object) -> int | None:
    if isinstance(value, str) and (match := _HELIOSDB_SIZE.fullmatch(value.strip())):
        return int(match[1]) << {"K": 10, "M": 20, "G": 30}[match[2].upper()]
    try:
        return parse_size(value)
    except ValueError:
        return None


def _deeper(value: object, levels: int) -> bool:
    if levels == 0:
        return True
    children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(_deeper(child, levels - 1) for child in children)
