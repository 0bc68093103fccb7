"""Durations and sizes are read as people write them, and written back so that they read the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from hookline_api.quantities import (
    Duration,
    Size,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from hookline_api.resources import Limits


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("50ms", 50), ("2s", 2_000), ("5m", 300_000), ("1h", 3_600_000), ("1h30m", 5_400_000), ("1m30s", 90_000),
        ("1s500ms", 1_500), ("0s", 0), ("0ms", 0), ("90m", 5_400_000), ("1h1m1s1ms", 3_661_001),
    ],
)  # fmt: skip
def test_a_duration_is_read_in_milliseconds(text, millis):
    """Go's notation, whole units."""
    assert parse_duration(text) == millis


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "ms", "1.5s", "-1s", "1s ", " 1s", "1s\n", "1S", "5 s", "1s1m", "1m1h", "1us", "1d", "\u0665s",
     "9" * 13 + "ms", None, True, 1.5, -5, [], {}],
)  # fmt: skip
def test_what_is_no_duration_is_refused_with_an_example(text):
    """Ambiguous, negative, in the wrong order, in other digits."""
    with pytest.raises(ValueError, match="write one such as 50ms"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512", 512), ("1k", 1_000), ("1Ki", 1_024), ("16Mi", 2**24), ("1G", 10**9), ("2Gi", 2**31), ("1Ti", 2**40),
     ("3M", 3 * 10**6), ("0", 0), (4096, 4096)],
)  # fmt: skip
def test_a_size_is_read_in_bytes(text, size):
    """Kubernetes quantities, decimal and binary."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "Mi", "1.5Mi", "-1", "1 Mi", "1mi", "1KiB", "1e3", "0x10", "1K", "\u0661", "1\n", None, True, 1.0, [],
     "9" * 16, "999999999999999Ti", -1, 2**54],
)  # fmt: skip
def test_what_is_no_size_is_refused(text):
    """Fractions, other notations, out of range."""
    with pytest.raises(ValueError, match=r"is not a size|is out of range"):
        parse_size(text)


@given(st.integers(0, 10**15))
def test_a_duration_that_was_written_reads_the_same(millis):
    """In the shortest exact notation, which the CRD's pattern accepts."""
    millis %= 999_999 * 3_600_000
    text = format_duration(millis)
    assert parse_duration(text) == millis
    schema = TypeAdapter(Duration).json_schema()
    assert re.fullmatch(schema["pattern"].strip("^$"), text)
    assert len(text) <= schema["maxLength"]


@given(st.integers(0, 2**53))
def test_a_size_that_was_written_reads_the_same(size):
    """And the CRD's pattern accepts it."""
    text = format_size(size)
    if len(text) <= 15:
        assert parse_size(text) == size
        assert re.fullmatch(TypeAdapter(Size).json_schema()["pattern"].strip("^$"), text)


@given(st.text(alphabet="0123456789hms.KMGTik -", max_size=8))
def test_the_crds_patterns_and_the_parsers_agree(text):
    """What the API server stores can be read; what it refuses would be refused."""
    for kind, parse in ((Duration, parse_duration), (Size, parse_size)):
        pattern = TypeAdapter(kind).json_schema()["pattern"]
        try:
            parse(text)
        except ValueError as error:
            assert not re.search(pattern, text) or not text or "out of range" in str(error)  # noqa: PT017
        else:
            assert re.search(pattern, text)


def test_limits_are_written_as_they_were_read():
    """A resource that was read and written is the same manifest."""
    text = {
        "timeout": "30s",
        "wait": "2s",
        "memory": "128Mi",
        "input": "64Ki",
        "output": "1000",
        "concurrency": 3,
        "fuel": 10**6,
    }
    limits = Limits.model_validate(text)
    assert limits.model_dump(mode="json", by_alias=True) == text
    assert Limits.model_validate(limits.model_dump(mode="json", by_alias=True)) == limits


@pytest.mark.parametrize(
    "limits",
    [{"timeout": "0ms"}, {"timeout": "61s"}, {"wait": "0ms"}, {"wait": "61s"}, {"memory": "63Ki"}, {"memory": "5Gi"},
     {"fuel": 0}, {"input": 0}, {"input": "65Mi"}, {"output": "0"}, {"concurrency": 0}, {"concurrency": 1025}],
)  # fmt: skip
def test_limits_out_of_range_are_refused(limits):
    """Each has a least and a most."""
    with pytest.raises(ValueError, match="1 validation error"):
        Limits.model_validate(limits)
