"""A namespace with more specs than are kept of one, at a real API server: who is left out."""

from __future__ import annotations

from hookline_operator.cluster.budget import NAMESPACE_SPECS

_TEXT = 10**6
"""Characters of settings of each plugin."""
_FIT = NAMESPACE_SPECS // _TEXT


async def test_the_newest_beyond_the_budget_is_left_out_and_a_restart_changes_nothing(
    new_operator, tenant, module, eventually
):
    """The others go on, and so does one that is later and small; two new replicas read them all anew, in any order."""
    first = new_operator().start()
    source = tenant.module("module", module())
    names = [f"p{number}" for number in range(_FIT)]
    for name in names:
        tenant.plugin(name, source, config={"text": "x" * _TEXT})
    await eventually(lambda: all(tenant.ready(name) for name in names), "a condition of those that fit")
    fitting = {tenant.ready(name) for name in names}
    tenant.plugin("newest", source, config={"text": "x" * _TEXT})
    await eventually(lambda: tenant.ready("newest"), "a condition of the newest")

    def as_it_should_be():
        condition = tenant.status("newest")["conditions"]["Ready"]
        return (
            condition["reason"] == "ConfigInvalid"
            and f"{NAMESPACE_SPECS} are kept of one namespace" in condition["message"]
            and {tenant.ready(name) for name in names} == fitting
        )

    assert "ConfigInvalid" not in {reason for _, reason in fitting}
    assert as_it_should_be()
    first.stop()
    later = [new_operator().start(), new_operator().start()]
    tenant.plugin("small", source)
    await eventually(lambda: tenant.ready("small"), "a condition of one that comes later and is small")
    assert tenant.ready("small") in fitting
    assert as_it_should_be()
    assert sum(each.metrics()["hookline_operator_leader"] for each in later) == 1
