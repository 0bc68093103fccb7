"""Where in a file a document's fields are, for whoever is told that one of them is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline_artifacts.documents.kubernetes_yaml import MAX_DEPTH, read, read_placed

DOCUMENT = b"""\
# a comment
kind: A
spec:
  list:
  - name: x
    deep: {a: [1, two]}
---
kind: B
base: &base {a: 1}
other:
  <<: *base
  b: 2
"""
TEXT = st.text('ab é"-:#\n', max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("document", "path", "place"),
    [
        (0, (), (2, 1)),
        (0, ("kind",), (2, 1)),
        (0, ("spec", "list", 0), (5, 5)),
        (0, ("spec", "list", 0, "deep", "a"), (6, 12)),
        (0, ("spec", "list", 0, "deep", "a", 1), (6, 19)),
        (0, ("spec", "nothing", "there"), (3, 1)),
        (1, ("kind",), (8, 1)),
        (1, ("other", "b"), (12, 3)),
        (1, ("other", "a"), (10, 1)),
    ],
)
def test_a_field_is_where_its_key_is(document, path, place):
    """What is not written there is where the nearest thing is that it is in."""
    assert read_placed(DOCUMENT)[document].place(path) == place


def test_json_has_places_too():
    """Where it is YAML as well; else there are none, and the values are the same."""
    (found,) = read_placed(b'{"a": {"b": [1,\n  2]}}')
    assert found.place(("a", "b", 1)) == (2, 3)
    first, second = read_placed(b'{"a": 1}{"b": 2}')
    assert (first.value, second.value) == ({"a": 1}, {"b": 2})
    assert second.place(("b",)) is None


@given(st.lists(JSON.filter(lambda value: value is not None), max_size=3))
def test_the_values_are_those_that_are_read_without_places(documents):
    """Whatever is in them, and with a place for each field."""
    raw = "\n---\n".join(json.dumps(each) for each in documents).encode()
    found = read_placed(raw)
    assert [each.value for each in found] == read(raw)
    for each in found:
        if isinstance(each.value, dict) and each.places:
            assert all((key,) in each.places for key in each.value)


def test_what_is_nested_deeply_has_the_place_of_what_it_is_in():
    """So that places stay few."""
    raw = b"a: " + b"[" * (MAX_DEPTH - 2) + b"1" + b"]" * (MAX_DEPTH - 2)
    (found,) = read_placed(raw)
    assert found.place(("a", *[0] * (MAX_DEPTH - 2))) is not None
    assert max(map(len, found.places)) < 30
