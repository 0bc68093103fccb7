"""What the host has of a call's questions and answers is counted with the call: the kernel counts it too."""

from __future__ import annotations

import pytest

from hookline_api.bundle import BundlePlugin
from hookline_runtime.plugin.budget import CALL, Budget, Plan, TooLargeError, need

MIB = 2**20
LIMITS = {"memory": "16Mi", "input": "64Ki", "output": "64Ki"}
NEED = 16 * MIB + 2**17 + CALL
VALKEY = {"url": "redis://store"}


def plugin(*permissions, **fields):
    """A plugin with these permissions."""
    return BundlePlugin.model_validate({
        "name": "guest", "permissions": list(permissions), "limits": LIMITS, **fields,
    })  # fmt: skip


def source(name, size):
    """A data source with that ``maxBytes``."""
    return {
        "name": name, "postgres": {"host": "db", "database": "db", "user": "u", "maxBytes": size},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "more"),
    [
        (plugin(), 0),
        (plugin("cache.write"), 0),
        (plugin("query.execute", dataSources=[source("small", "1Mi"), source("large", "16Mi")]), 34 * MIB),
        (plugin("http.fetch", egress=[{"host": "a.test"}]), 8 * MIB),
        (plugin("cache.write", caches=[{"name": "c", "valkey": VALKEY}]), 2 * MIB),
        (plugin("kv.write", kv={"scope": "Cluster", "valkey": VALKEY}), 2 * MIB),
        (
            plugin("http.fetch", "query.execute", egress=[{"host": "a.test"}], dataSources=[source("s", "64Ki")]),
            8 * MIB,
        ),
    ],
    ids=["none", "pod's cache", "source", "egress", "cache", "keys", "the largest"],
)
def test_a_call_needs_what_its_answers_may_have(entry, more):
    """The largest of them, since a call has one at a time."""
    assert need(entry) == NEED + more


def test_a_plugin_whose_answers_do_not_fit_is_refused():
    """With the sentence that says how much it wants; else a few large results would end the pod."""
    budget = Budget()
    budget.follow(Plan.of(256 * MIB, workers=1, state=0))
    budget.check_one(plugin("query.execute", dataSources=[source("s", "1Mi")]))
    budget.follow(Plan.of(160 * MIB, workers=1, state=0))
    with pytest.raises(TooLargeError, match="one call of 'guest' may have 55Mi"):
        budget.check_one(plugin("query.execute", dataSources=[source("s", "16Mi")]))
