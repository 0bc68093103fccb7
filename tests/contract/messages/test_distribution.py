"""What operator and sidecars say to each other: read leniently, and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hookline_api.bundle import Bundle, BundlePlugin, LoadFailure
from hookline_api.distribution import BundleMessage, Commit, PluginReport, Report, parse_to_sidecar

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_what_is_sent_is_what_is_read():
    """Through JSON, in both directions."""
    failure = LoadFailure(cause="fetch", message="gone")
    plugin = BundlePlugin(name="guard", namespace="shop", failure=failure)
    bundle = Bundle.of([plugin])
    message = BundleMessage(version=bundle.version, bundle=bundle, hold=True, deadline=5000)
    assert parse_to_sidecar(message.model_dump(mode="json", by_alias=True)) == message
    assert parse_to_sidecar({"type": "commit", "version": "v", "later": 1}) == Commit(version="v")
    report = Report(running="v", plugins=[PluginReport(name="guard", state="Closed", failure=failure)])
    assert Report.model_validate_json(report.model_dump_json(by_alias=True)) == report


@given(json_values | st.fixed_dictionaries({"type": json_values}))
def test_a_type_that_is_not_known_is_passed_over(data):
    """Either side may be newer than the other."""
    if isinstance(data, dict) and "type" in data and data["type"] not in ("bundle", "commit"):
        assert parse_to_sidecar(data) is None


@pytest.mark.parametrize(
    "data",
    [
        {"type": "commit"},
        {"type": "commit", "version": 7},
        {"type": "commit", "version": "v" * 65},
        {"type": "bundle", "version": "v", "bundle": []},
        {"type": "bundle", "version": "v", "bundle": {}, "deadline": -1},
        {"type": "bundle", "version": "v", "bundle": {"plugins": [{"name": "No Name"}]}},
        [],
        None,
        "commit",
    ],
    ids=str,
)
def test_what_is_not_well_formed_is_refused(data):
    """With the one exception that callers expect."""
    with pytest.raises(ValidationError):
        parse_to_sidecar(data)


@pytest.mark.parametrize(
    "change",
    [
        {"plugins": [{"name": "a", "state": "Running"}] * 1001},
        {"plugins": [{"name": "a", "state": "Happy"}]},
        {"plugins": [{"name": "a\nb", "state": "Running"}]},
        {"running": "v" * 65},
    ],
    ids=["many", "state", "name", "version"],
)
def test_a_report_is_bounded(change):
    """Whatever a sidecar says becomes part of what the operator keeps."""
    with pytest.raises(ValidationError):
        Report.model_validate(change)
