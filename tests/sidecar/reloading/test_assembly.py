"""The bundle that is made of what each plugin has now, without a sidecar around it."""

from __future__ import annotations

from hookline_api.bundle import Bundle, BundleArtifact, BundlePlugin, LoadFailure
from hookline_api.resources import FailurePolicy
from hookline_artifacts.resolve import Resolved
from hookline_runtime.plugin.stats import MAX_PLUGINS
from hookline_sidecar.control.assembly import assemble
from hookline_sidecar.control.slots import Slot
from hookline_sidecar.control.sources.source import STAND_IN, Wanted

FAILED = LoadFailure(cause="fetch", message="it is nowhere")


def entry(name, **settings):
    """A plugin with a module."""
    artifact = BundleArtifact(digest="sha256:0", sha256="0" * 64, size=1, layout="file", reference=name)
    return BundlePlugin(name=name, artifact=artifact, **settings)


def slot(name, *, resolved=None, failure=None, **wanted):
    """A plugin that is asked for, which resolved to this or failed like that."""
    made = Slot(wanted=Wanted(key="1", placeholder=BundlePlugin(name=name), **wanted), key="1", failure=failure)
    if resolved is not None:
        made.resolved = Resolved(
            entry=resolved, artifact=None, info=None, description=None, hooks=(), notes=(),
        )  # fmt: skip
    return made


def slots(*all_of_them):
    """By name."""
    return {each.name: each for each in all_of_them}


def test_what_resolved_is_in_the_bundle_and_no_slot_is_changed():
    """In the order of the chain."""
    wanted = slots(slot("b", resolved=entry("b", priority=1)), slot("a", resolved=entry("a")))
    before = {name: (each.resolved, each.failure) for name, each in wanted.items()}
    bundle, problems = assemble(wanted, None)
    assert [each.name for each in bundle.plugins] == ["b", "a"]
    assert problems == {}
    assert {name: (each.resolved, each.failure) for name, each in wanted.items()} == before


def test_what_failed_goes_on_as_it_ran():
    """And says why it is not what was asked for."""
    bundle, _ = assemble(slots(slot("a", failure=FAILED)), Bundle.of([entry("a")]))
    assert bundle.plugins[0].artifact is not None
    assert bundle.plugins[0].failure == FAILED


def test_a_new_plugin_that_failed_is_left_out_while_others_run_and_refuses_at_a_first_start():
    """Nothing ran before it; but at a first start nothing may run without its guard."""
    wanted = slots(slot("a", failure=FAILED))
    assert assemble(wanted, Bundle.of([])).bundle.plugins == []
    refusing = assemble(wanted, None).bundle.plugins[0]
    assert refusing.artifact is None
    assert refusing.hooks
    opened = slots(slot("a", failure=FAILED, failure_policy=FailurePolicy(fetch="Open")))
    assert assemble(opened, None).bundle.plugins == []


def test_what_a_file_hid_goes_on_refusing_until_it_is_loaded():
    """Where something stood in for a file, what is new may have been in it."""
    last = Bundle.of([BundlePlugin(name=f"{STAND_IN}guard")])
    assert assemble(slots(slot("a", failure=FAILED)), last).bundle.plugins[0].artifact is None


def test_a_plugin_that_gets_another_name_is_there_until_that_is_loaded():
    """A guard with a mistake in its new name must not be gone."""
    last = Bundle.of([entry("old", origin="guard.yaml")])
    loading = slots(slot("new", file="guard.yaml"))
    assert [each.name for each in assemble(loading, last).bundle.plugins] == ["old"]
    loaded = slots(slot("new", file="guard.yaml", resolved=entry("new", origin="guard.yaml")))
    assert [each.name for each in assemble(loaded, last).bundle.plugins] == ["new"]


def test_what_has_no_room_is_a_problem_until_there_is_room():
    """The plugins before it are what they would be without it."""
    names = [f"p{number:03}" for number in range(MAX_PLUGINS + 1)]
    wanted = slots(*(slot(name, resolved=entry(name)) for name in names))
    bundle, problems = assemble(wanted, None)
    assert len(bundle.plugins) == MAX_PLUGINS
    assert list(problems) == names[-1:]
    del wanted[names[0]]
    bundle, problems = assemble(wanted, None)
    assert (len(bundle.plugins), problems) == (MAX_PLUGINS, {})
    assert bundle.plugins[-1].failure is None
