"""How a component's instances are used, and what its notes say of the costs."""

from __future__ import annotations

import pytest

from component_guests import component
from hookline_api.bundle import BundleArtifact
from hookline_api.config import Config
from hookline_api.resources import WasmPlugin
from hookline_artifacts.entry import POOLED_FROM, Settings, make_entry, notes_on
from hookline_artifacts.module.describe import PluginDescription
from hookline_artifacts.module.inspection import inspect_module

SMALL, LARGE = 1_000_000, POOLED_FROM + 1


def resource(**spec: object) -> WasmPlugin:
    """A resource with these settings."""
    source = {"configMap": {"name": "p"}}
    return WasmPlugin.model_validate({"metadata": {"name": "p", "namespace": "n"}, "spec": {"source": source, **spec}})


@pytest.mark.parametrize(
    ("size", "is_component", "spec", "mode"),
    [
        (LARGE, True, {}, "Pooled"),
        (LARGE, True, {"isolation": {"size": 2}}, "Pooled"),
        (LARGE, True, {"isolation": {"mode": "PerCall"}}, "PerCall"),
        (SMALL, True, {}, "PerCall"),
        (LARGE, False, {}, "PerCall"),
    ],
)
def test_a_large_component_is_pooled_where_its_resource_does_not_say(size, is_component, spec, mode) -> None:
    """A Python component takes milliseconds to become an instance. What the resource says wins."""
    artifact = BundleArtifact(
        digest="sha256:" + "a" * 64, sha256="a" * 64, size=size, layout="raw", reference="p", is_component=is_component
    )
    entry = make_entry(resource(**spec), artifact, hooks=[], settings=Settings(config=Config({}), secret_paths=[]))
    assert entry.isolation.mode == mode


@pytest.mark.parametrize(
    ("size", "spec", "said"),
    [
        (SMALL, {}, "each call makes an instance, which costs about 400 µs: with isolation.mode: Pooled it is 50 µs"),
        (SMALL, {"isolation": {"mode": "Pooled"}}, "each call costs about 50 µs more than a module's"),
        (LARGE, {}, "it is Pooled, as it is large and spec.isolation.mode is not set"),
        (LARGE, {"isolation": {"mode": "PerCall"}}, "about 7 ms for one of this size: set isolation.mode: Pooled"),
    ],
)
def test_a_components_notes_say_what_it_costs(size, spec, said) -> None:
    """Once, where people look at the plugin; a module's say nothing of it."""
    info = inspect_module(component())
    notes = notes_on(resource(**spec), PluginDescription(), info, size=size)
    assert [note for note in notes if note.startswith("the module is a component: ") and said in note]


def test_a_revision_is_the_same_whether_it_is_known_to_be_a_component() -> None:
    """A sidecar of the version before knows no such field, and has to come to the same name."""
    artifact = BundleArtifact(digest="sha256:" + "a" * 64, sha256="a" * 64, size=1, layout="raw", reference="p")
    settings = Settings(config=Config({}), secret_paths=[])
    plain, told = (
        make_entry(resource(), artifact.model_copy(update={"is_component": value}), hooks=[], settings=settings)
        for value in (False, True)
    )
    assert plain.full_revision == told.full_revision
