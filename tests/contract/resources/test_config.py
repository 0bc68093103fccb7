"""Settings are kept as bytes, say what they said, and cost about their bytes, one plugin's after the other."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import orjson
import pytest
from pydantic import ValidationError

from hookline_api import bundle as bundle_json
from hookline_api.bundle import Bundle, BundlePlugin
from hookline_api.config import Config

if TYPE_CHECKING:
    from pathlib import Path

_SAID = {"b": 1, "a": [1.0, 1e16, 2**80, None, "ä\ud800"[:1]], "": {"": {}}}


def test_settings_say_what_they_said() -> None:
    """In their order, and equal to a dictionary that says the same in another."""
    config = Config(_SAID)
    assert config.parsed() == _SAID == config
    assert list(config.parsed()) == list(_SAID)
    assert config == Config(dict(reversed(_SAID.items())))
    assert config != Config({**_SAID, "b": 2})
    assert Config() == Config({}) == {}
    assert not Config()
    assert config


def test_no_value_is_shown() -> None:
    """It may be a Secret's."""
    assert "hunter2" not in repr(BundlePlugin(name="p", config=Config({"password": "hunter2"})))


@pytest.mark.parametrize("wrong", [[], "{}", 1, {1: 2}, {"a": object()}])
def test_what_is_no_object_of_json_is_refused_by_its_field(wrong: object) -> None:
    """As every field is."""
    with pytest.raises(ValidationError, match="config"):
        BundlePlugin.model_validate({"name": "p", "config": wrong})


def test_a_bundle_is_read_as_it_was_written() -> None:
    """With each plugin on a line, and by itself; also where it is part of a message."""
    names = ['"plugins":[\n', "\n]", ",\n", "}\n", "a"]
    bundle = Bundle(plugins=[BundlePlugin(name="p", config=Config({name: name})) for name in names])
    text = bundle_json.write(bundle)
    assert Bundle.model_validate(json.loads(text)) == bundle
    parsed = bundle_json.read(text, orjson.loads)
    assert all(isinstance(each, BundlePlugin) for each in parsed["plugins"])
    assert Bundle.model_validate(parsed) == bundle
    around = bundle_json.read(f'{{"version":"v","bundle":{text},"hold":true}}', orjson.loads)
    assert (Bundle.model_validate(around["bundle"]), around["hold"]) == (bundle, True)
    assert bundle_json.read(bundle_json.write(Bundle()), orjson.loads) == {"plugins": []}


@pytest.mark.parametrize(
    "text",
    [
        '{"plugins":[\n{"name":"p"},\n{"name":"q"\n]}', '{"plugins":[\n{"name":"p"},\n\n]}', '{"plugins":[\n', "[]",
        '{"plugins":[\n{"name":"p"},\n{"name":5}\n]}', '{"bundle":[],"plugins":[\n{"name":"p"}\n]}', '"plugins":[\n\n]',
        '{"a":{"plugins":[\n1,\n2\n]}}', '{"plugins":[1],"x":{"plugins":[\n{"name":"p"}\n]}}',
    ],
)  # fmt: skip
def test_what_is_no_such_bundle_is_read_as_any_json(text: str) -> None:
    """The same result, or the same error."""
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"column|line"):
            bundle_json.read(text, json.loads)
    else:
        assert bundle_json.read(text, json.loads) == expected


_IN_A_CHILD = """
import gc, sys
import orjson
from hookline_api import bundle
def status(name):
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(name)) * 1024
with open(sys.argv[1]) as file:
    text = file.read()
bundle.Bundle.model_validate(bundle.read('{"plugins":[\\n{"name":"p"}\\n]}', orjson.loads)).version
before = status("VmRSS")
kept = bundle.Bundle.model_validate(bundle.read(text, orjson.loads))
kept.version, bundle.write(kept)
print(status("VmHWM") - before)
"""


@pytest.mark.parametrize(
    "value",
    [[{"id": n, "pattern": f"rule-{n}-*", "on": True} for n in range(19_000)], [{}] * 131_000],
    ids=["rules", "objects"],
)
def test_a_bundle_of_large_settings_costs_little_more_than_its_bytes(value: object, tmp_path: Path) -> None:
    """Read, hashed and written by a process of its own: all of it at once took 104 and 136 MiB."""
    plugins = [BundlePlugin(name=f"p{number}", config=Config({"rules": value})) for number in range(12)]
    (tmp_path / "bundle").write_text(bundle_json.write(Bundle(plugins=plugins)))
    one = len(plugins[0].config.data)
    child = [sys.executable, "-c", _IN_A_CHILD, str(tmp_path / "bundle")]
    took = int(subprocess.run(child, capture_output=True, check=True).stdout)
    parsed = 32 * 2**20  # of one of them: it is read, hashed and written
    assert took <= 12 * one * 3 + parsed
