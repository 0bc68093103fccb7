"""What a plugin says of itself is read as far as it makes sense, and never keeps it from running."""

from __future__ import annotations

import json
import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hookline_api.hooks import Hook
from hookline_artifacts.module.describe import MAX_DOCUMENT, PluginDescription, PluginResources

FUZZ = max(100, int(os.environ.get("HOOKLINE_FUZZ", "0")) // 10)
WHOLE = PluginDescription(
    name="guard",
    version="1.0",
    description="Guards.",
    author="A. Author",
    license="Apache-2.0",
    hooks=(Hook.PRE_QUERY, Hook.AUTHENTICATE),
    permissions=("kv.read", "metrics", "custom.x"),
    resources=PluginResources(min_memory=1 << 20, max_memory=64 << 20),
    config_schema={"type": "object"},
)
AS_JSON = {
    "name": "guard",
    "version": 1.0,
    "description": "Guards.",
    "author": "A. Author",
    "license": "Apache-2.0",
    "hooks": ["PreQuery", "pre_query", "auth", "unheard_of", 7],
    "permissions": ["kv_read", "metric_inc", "custom.x"],
    "resources": {"min_memory": 1048576, "max_memory": "64MB"},
    "config_schema": {"type": "object"},
    "unknown": True,
}
AS_YAML = """\
name: guard
version: 1.0
description: Guards.
author: A. Author
license: Apache-2.0
hooks: [PreQuery, auth]
permissions:
  - kv_read
  - metric_inc
  - custom.x
resources: {min_memory: 1Mi, max_memory: 64MB}
config_schema: {type: object}
"""
AS_TOML = """\
name = "guard"
version = "1.0"
description = "Guards."
author = "A. Author"
license = "Apache-2.0"
hooks = ["pre_query", "authenticate"]
permissions = ["kv_read", "metric_inc", "custom.x"]
min_memory = 1048576
max_memory = 67108864
[config_schema]
type = "object"
"""


def test_all_forms_say_the_same():
    """A custom section, the three packed manifests, an annotation that holds JSON; a note of a hook that is none."""
    document = json.dumps(AS_JSON)
    for found, origin in (
        (PluginDescription.from_json(document.encode()), "the section hookline.plugin"),
        (PluginDescription.from_packed({"manifest.json": document.encode()}), "manifest.json"),
        (PluginDescription.from_annotations({"hookline.plugin": document}), "the annotation hookline.plugin"),
    ):
        assert found.notes == (f"{origin} declares unheard_of, which Hookline has not as hooks",)
        assert found.model_copy(update={"notes": ()}) == WHOLE
    assert PluginDescription.from_packed({"plugin.yaml": AS_YAML.encode()}) == WHOLE
    assert PluginDescription.from_packed({"plugin.toml": AS_TOML.encode()}) == WHOLE


@pytest.mark.parametrize("hook", Hook)
@pytest.mark.parametrize("separator", ["_", "-", " ", ""])
def test_a_declared_hook_is_understood_however_its_words_are_put_together(hook, separator):
    """Where a package declares any, those alone are called: a guard must not be off for a hyphen."""
    words = hook.value.split("_")
    camel = words[0] + "".join(word.title() for word in words[1:])
    for name in (separator.join(words), separator.join(words).upper(), camel, f" {separator.join(words).title()} "):
        assert PluginDescription.model_validate({"hooks": ["post_query", name]}).hooks[-1] is hook


def test_a_description_survives_being_written_and_read():
    """The store keeps it as JSON."""
    assert PluginDescription.model_validate(json.loads(WHOLE.model_dump_json())) == WHOLE


def test_the_standard_annotations_are_read():
    """Title, version, authors and the rest; other annotations say nothing."""
    found = PluginDescription.from_annotations(
        {"org.opencontainers.image.title": "guard", "org.opencontainers.image.licenses": "MIT", "other": "x"}
    )
    assert found == PluginDescription(name="guard", license="MIT")
    assert PluginDescription.from_annotations({"org.opencontainers.image.created": "today"}) is None


def test_the_fuller_document_wins_and_the_others_fill_in():
    """plugin.yaml over manifest.json, field by field."""
    found = PluginDescription.from_packed(
        {"manifest.json": b'{"name": "packed", "license": "MIT"}', "plugin.yaml": b"name: yaml"}
    )
    assert (found.name, found.license) == ("yaml", "MIT")


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("plugin.yaml", b"a: &x [1]\nb: *x"),
        ("plugin.yaml", b"a: [1"),
        ("plugin.yaml", b"\xff"),
        ("plugin.yaml", b"[" * 5000),
        ("plugin.yaml", b"!!python/object/apply:os.system ['false']"),
        ("plugin.yaml", b"? [1, 2]\n: 3"),
        ("plugin.yaml", b"- a"),
        ("plugin.toml", b"a = "),
        ("plugin.toml", b"a = " + b"[" * 5000),
        ("manifest.json", b"{"),
        ("manifest.json", b"null"),
    ],
)
def test_a_document_that_cannot_be_read_is_left_out_with_a_note(name, document):
    """Aliases, broken syntax, other encodings, too deep, objects, keys that JSON has not."""
    found = PluginDescription.from_packed({name: document})
    assert found == PluginDescription(notes=found.notes)
    assert found.notes[0].startswith(f"{name} is ignored")


def test_a_plugin_yaml_says_what_is_written_in_it():
    """HeliosDB takes the text as it stands: no number, date, or truth is made of it."""
    text = b"name: no\nversion: 1.10\ndescription: 22:30\nauthor: 0x1F\nlicense: ~\nhooks: [pre_query]\n"
    found = PluginDescription.from_packed({"plugin.yaml": text + b"resources: {max_memory: 65536}"})
    assert (found.name, found.version, found.description, found.author) == ("no", "1.10", "22:30", "0x1F")
    assert (found.license, found.hooks, found.resources.max_memory) == (None, (Hook.PRE_QUERY,), 65536)


def test_without_pyyaml_a_plugin_yaml_is_left_out_with_a_note(monkeypatch):
    """PyYAML comes with the sidecar's extra only."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    found = PluginDescription.from_packed({"plugin.yaml": AS_YAML.encode(), "manifest.json": b'{"name": "packed"}'})
    assert found.name == "packed"
    assert "PyYAML is not installed" in found.notes[0]


def test_a_document_that_is_too_long_is_left_out():
    """Its length is bounded before it is parsed."""
    assert "longer than" in PluginDescription.from_json(b" " * (MAX_DOCUMENT + 1)).notes[0]


def test_texts_and_lists_are_bounded():
    """A description cannot fill a status or a terminal."""
    found = PluginDescription.model_validate(
        {
            "name": "x" * 10_000,
            "description": "a\x1b[31mb\nc",
            "permissions": [f"p{number}" for number in range(1000)],
            "config_schema": json.loads("[" * 0 + '{"a":' * 100 + "1" + "}" * 100),
        }
    )
    assert len(found.name) == 253
    assert found.description == "a[31mbc"
    assert len(found.permissions) == 32
    assert found.config_schema is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(sorted(PluginDescription.model_fields)), values) | values)
def test_any_document_is_a_description(document):
    """Every field of any type."""
    assert isinstance(PluginDescription.model_validate(document), PluginDescription)


@pytest.mark.parametrize(
    "text",
    ["name: !!timestamp x", "name: !!bool maybe", "name: !!int ''", "name: !!float ''", "name: !!binary é", "a: !x b",
     "? [a]\n: b", "? {a: b}\n: c", "name: !!null x", "1: 2", "name: 2024-13-45", "name: " + "1" * 5000,
     "name: " + ":".join(["59"] * 9000), "[" * 20_000, "a: &a [*a]", "name: .inf", "<<: 7", "name: !!set {a}", "=: 1"],
)  # fmt: skip
def test_yaml_that_nobody_writes_is_left_out_or_read(text):
    """Tags that do not fit, keys of odd types, numbers that are too long."""
    found = PluginDescription.from_packed({"plugin.yaml": text.encode()})
    assert found.notes or found == PluginDescription() or found.name


texts = (
    st.text(max_size=100)
    | st.text(alphabet="a:[]{}- \n&*!", max_size=60)
    | st.lists(
        st.sampled_from(
            ["name", "hooks", "resources", ": ", " = ", "!!int ", "!!bool ", "!!timestamp ", "!!float ", "!!binary ",
             "x", "07:30", "1e3", "0o7", "2024-01-01", "''", '"', "[", "]", "{", "}", "\n", "- ", "? ", "&a ", "*a",
             "<<", "#", "|", ">", "=", "~", "\t", "  ", "\x00", "\x85"]
        ),
        max_size=20,
    ).map("".join)
)  # fmt: skip


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts.map(lambda text: text.encode(errors="surrogatepass")) | st.binary(max_size=60),
       st.sampled_from(["plugin.yaml", "plugin.toml", "manifest.json"]))  # fmt: skip
def test_any_text_is_a_description(document, name):
    """Whatever stands in a packed manifest."""
    found = PluginDescription.from_packed({name: document})
    assert found is not None
    assert all(len(note) <= 300 and note.isprintable() for note in found.notes)


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["hookline.plugin", "org.opencontainers.image.title", "x"]), values | texts))
def test_any_annotations_are_a_description(annotations):
    """Of any type, and whatever stands in the one of ours."""
    assert isinstance(PluginDescription.from_annotations(annotations), PluginDescription | None)
