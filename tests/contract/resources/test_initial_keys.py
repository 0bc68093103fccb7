"""``spec.kv``: text within the store's caps, and in a bundle what the resource says."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from hookline_api.bundle import BundlePlugin
from hookline_api.resources import KvSettings
from hookline_runtime.host import kv as store

VALUE, KEYS, ALL = 64 * 1024, 1024, 512 * 1024


def refused(initial):
    """The sentence, with its place."""
    with pytest.raises(ValidationError) as error:
        KvSettings.model_validate({"initial": initial})
    each = error.value.errors()[0]
    return f"{'.'.join(map(str, each['loc']))}: {each['msg']}"


def test_the_bounds_are_the_stores():
    """What the resource may ask for, a store of its own could take."""
    assert (VALUE, VALUE, KEYS) == (store.MAX_KEY, store.MAX_VALUE, store.MAX_KEYS)
    assert ALL < store.MAX_BYTES


@pytest.mark.parametrize(
    "initial",
    [
        {},
        {"k": "x" * VALUE},
        {"x" * VALUE: ""},
        {f"k{number}": "" for number in range(KEYS)},
        {f"k{number}": "x" * (VALUE - 2) for number in range(ALL // VALUE)},
        {"k": "é" * (VALUE // 2)},
    ],
    ids=["none", "value", "key", "keys", "all", "bytes"],
)
def test_up_to_the_bounds_all_is_taken(initial):
    """To the last byte."""
    assert KvSettings.model_validate({"initial": initial}).initial == initial


@pytest.mark.parametrize(
    ("initial", "sentence"),
    [
        ({"k": "x" * (VALUE + 1)}, "initial.k: String should have at most 65536 characters"),
        ({"k": "é" * (VALUE // 2) + "x"}, "the value of 'k' has 65537 bytes, more than 65536"),
        ({"x" * (VALUE + 1): ""}, "a key has 1 to 65536 bytes"),
        ({"": ""}, "a key has 1 to 65536 bytes, and '' has 0"),
        ({f"k{number}": "" for number in range(KEYS + 1)}, "at most 1024 items"),
        ({f"k{number}": "x" * VALUE for number in range(8)}, "keys and values have 524304 bytes together, more than"),
        (
            {"k": True},
            "initial.k: Value error, is not text: write a number or a boolean in quotes, and JSON as a block",
        ),
        ({"k": 1}, "is not text"),
        ({"k": None}, "is not text"),
        ({"k": {"a": 1}}, "is not text"),
        ({"k": "\ud800"}, "unicode"),
    ],
    ids=["value", "bytes", "key", "empty key", "keys", "all", "boolean", "number", "null", "object", "surrogate"],
)
def test_beyond_them_a_sentence_says_what_is_wrong_and_where(initial, sentence):
    """And never holds a value."""
    assert sentence in refused(initial)
    assert "xxx" not in refused(initial).replace(repr("x" * 64), "")


@pytest.mark.parametrize("kv", [{"initial": {"k": "2"}}, {"initial": {"k": "1"}, "overwrite": "OnChange"}])
def test_a_change_of_them_is_another_revision(kv):
    """So it reaches the pods."""
    before = BundlePlugin.model_validate({"name": "p", "kv": {"initial": {"k": "1"}}})
    assert BundlePlugin.model_validate({"name": "p", "kv": kv}).revision != before.revision
    assert before.redacted().kv == before.kv  # they are shown in clear, as the field's text says
