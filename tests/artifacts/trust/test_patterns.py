"""Patterns of repositories and names: what people mean by a star, in time that is linear in text times pattern."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline_artifacts.trust import patterns
from hookline_artifacts.trust.patterns import MAX_TEXT, Comparison, matches, matches_any, matches_path


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("ghcr.io/acme/guard", "ghcr.io/acme/guard", True),
        ("ghcr.io/acme/guard", "ghcr.io/acme/guard2", False),
        ("ghcr.io/acme/*", "ghcr.io/acme/guard", True),
        ("ghcr.io/acme/*", "ghcr.io/acme/team/guard", False),
        ("ghcr.io/acme/*", "ghcr.io/acme", False),
        ("ghcr.io/acme/*", "ghcr.io/acme-evil/guard", False),
        ("ghcr.io/acme*", "ghcr.io/acme/guard", False),
        ("ghcr.io/acme/**", "ghcr.io/acme/team/guard", True),
        ("ghcr.io/acme/**", "ghcr.io/acme", True),
        ("ghcr.io/acme/**", "ghcr.io/acmeevil", False),
        ("ghcr.io/**/guard", "ghcr.io/guard", True),
        ("ghcr.io/**/guard", "ghcr.io/a/b/guard", True),
        ("ghcr.io/**/guard", "ghcr.io/a/b/other", False),
        ("**", "anything/at/all", True),
        ("*", "registry", True),
        ("*", "registry/acme", False),
        ("*.example.com/*", "a.example.com/guard", True),
        ("*.example.com/*", "example.com/guard", False),
        ("*.example.com/*", "evil.com/a.example.com/guard", False),
        ("127.0.0.1:*/acme/p", "127.0.0.1:5000/acme/p", True),
        ("ghcr.io/a**b/c", "ghcr.io/axxb/c", True),
        ("", "", True),
        ("", "a", False),
        ("a", "", False),
    ],
)
def test_a_star_stands_for_what_is_between_slashes(pattern, path, expected):
    """And two stars, as a part of their own, for any parts. What is in no repository fits no pattern of one."""
    assert matches_path(pattern, path) is expected
    assert matches_any(["x", "**", pattern], path) is bool(path)
    assert matches_any(["x", pattern], path) is (bool(path) and expected)


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_a_name_s_star_is_that_of_a_shell(pattern, text):
    """Compared with a regular expression that says the same."""
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None
    assert matches(pattern, text) is expected


@given(st.lists(st.sampled_from(["a", "b", "*", "**", "a*"]), min_size=1, max_size=5),
       st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=6))  # fmt: skip
def test_a_path_s_stars_are_what_they_say(pattern, path):
    """Compared with a search through every way to share the parts out."""

    def slow(wanted, parts):
        if not wanted:
            return not parts
        if wanted[0] == "**":
            return any(slow(wanted[1:], parts[at:]) for at in range(len(parts) + 1))
        return bool(parts) and matches(wanted[0], parts[0]) and slow(wanted[1:], parts[1:])

    assert matches_path("/".join(pattern), "/".join(path)) is slow(pattern, path)


def test_no_pattern_takes_more_steps_than_text_times_pattern(monkeypatch):
    """Patterns of stars, and texts that almost fit: what makes others search for ever."""
    steps = []
    monkeypatch.setattr(patterns, "matches", lambda *args: steps.append(1) or matches(*args))
    text, pattern = "/".join(["a"] * 250), "/".join(["**", "a"] * 125 + ["b"])
    assert not matches_path(pattern, text)
    assert len(steps) <= 2 * 250 * 250
    assert not matches("a*" * 100 + "b", "a" * 250)


@pytest.mark.parametrize("match", [matches, matches_path])
def test_what_is_longer_than_any_name_fits_no_pattern(match):
    """A signature may say that it is for half a megabyte, and whoever made it may have written the pattern too."""
    assert match("*", "a" * MAX_TEXT)
    assert not match("*", "a" * (MAX_TEXT + 1))
    assert not match("*" + "a" * 500 + "b", "a" * (MAX_TEXT + 1))
    assert match("a" * (MAX_TEXT + 1), "a" * (MAX_TEXT + 1))


def test_so_much_is_compared_for_one_requirement_and_then_nothing_fits(monkeypatch):
    """What is no pattern costs nothing. Once the steps are used up, it is closed."""
    monkeypatch.setattr(patterns, "MAX_STEPS", 40)
    compared = Comparison()
    for _ in range(100):
        assert compared.fits("registry/acme", "registry/acme")
        assert not compared.fits("*", "a" * (MAX_TEXT + 1))
    assert not compared.exhausted
    assert compared.fits("a/*", "a/b")
    assert not compared.fits_any(["a/*"], "")
    assert compared.fits_any(["b/*", "a/*"], "a/b") is False
    assert compared.exhausted
    assert not compared.fits("registry/acme", "registry/acme")
