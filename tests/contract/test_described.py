"""Descriptions of fields: what stands under them in the source is in the schemas, and is not read at import."""

from __future__ import annotations

import subprocess
import sys

from pydantic import BaseModel

from hookline_api.described import describe


class Part(BaseModel):
    """A part."""

    size: int = 0
    """How large
    it is.
    """
    plain: int = 0


class Whole(BaseModel):
    """A whole."""

    parts: dict[str, list[Part | None]] = {}
    """What it is made of."""
    inner: Whole | None = None


class More(Whole):
    """The same, and more."""

    inner: None = None
    """None."""


def _texts(schema):
    return {name: each.get("description") for name, each in schema["properties"].items()}


def test_what_stands_under_a_field_is_its_description():
    """Also in parts of a whole that was built, and written, before; also where a model has another's fields."""
    before = Whole.model_json_schema()
    assert not any(_texts(before["$defs"][name]).get("parts") for name in before["$defs"])
    assert Part(size=1).size == 1
    describe(More, Whole)
    schema = Whole.model_json_schema()
    assert _texts(schema["$defs"]["Whole"]) == {"parts": "What it is made of.", "inner": None}
    assert _texts(schema["$defs"]["Part"]) == {"size": "How large\nit is.", "plain": None}
    assert _texts(More.model_json_schema()) == {"parts": "What it is made of.", "inner": "None."}
    assert Whole.model_validate({"parts": {"a": [{"size": 2}]}}).parts["a"] == [Part(size=2)]


def test_who_reads_resources_parses_no_source():
    """That takes longer than all else of an import."""
    code = (
        "import ast, inspect\n"
        "def none(*_, **__):\n"
        "    raise AssertionError('source is parsed')\n"
        "ast.parse = inspect.getsource = inspect.getblock = none\n"
        "import hookline_api.bundle, hookline_api.cases, hookline_api.hooks, hookline_api.policies\n"
        "import hookline_api.distribution, hookline_api.resources, hookline_artifacts.module.describe\n"
        "import hookline_artifacts.mirrors\n"
        "from hookline_api.resources import WasmPluginSpec\n"
        "assert not any(each.description for each in WasmPluginSpec.model_fields.values())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
