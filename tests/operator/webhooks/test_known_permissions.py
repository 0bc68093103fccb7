"""What a module imports without its permission is refused before it is stored, where it is known which module it is."""

import json

import pytest

from hookline_api.resources import WasmPlugin
from hookline_operator.cluster.catalogue import Catalogue
from hookline_operator.cluster.revisions import Revision, Seal, body_of
from hookline_operator.serve.config_check import ConfigCheck

UID = "705ab4f5"
TAG = {"oci": {"reference": "r.test/a:1"}}
PINNED = {"oci": {"reference": f"r.test/a@sha256:{'1' * 64}"}}
IMPORTS = ["env.kv_get", "hookline.log"]


def check(source, *, uid=UID, of=None, inputs=None, **spec):
    """What is said of an update of a plugin whose module, of this source, is known."""
    catalogue = Catalogue()
    stored = {"source": of or source, "permissions": ["kv.read"]}
    metadata = {"namespace": "shop", "name": "guard", "uid": UID, "generation": 1}
    catalogue.put_plugin({"metadata": metadata, "spec": stored}, gone=False)
    artifact = {"digest": f"sha256:{'0' * 64}", "sha256": "0" * 64, "size": 8, "layout": "raw", "reference": "one"}
    template = {
        "plugin": "guard", "spec": stored, "artifact": artifact, "hooks": ["authenticate"], "imports": IMPORTS,
        "inputs": inputs or {},
    }  # fmt: skip
    body = body_of(
        namespace="shop", plugin="guard", uid=UID, number=1, template=json.dumps(template).encode(), seal=Seal()
    )
    catalogue.put_revision(("shop", "r"), None, Revision.of(body, Seal()))
    document = {"apiVersion": "hookline.dev/v1alpha1", "kind": "WasmPlugin", "metadata": {**metadata, "uid": uid}}
    plugin = WasmPlugin.model_validate({**document, "spec": {"source": source, **spec}})
    return ConfigCheck(catalogue, None, None, None).lacks(plugin)


@pytest.mark.parametrize("source", [TAG, PINNED])
def test_a_permission_that_is_taken_away_is_refused_with_what_to_add(source):
    """The function, the permission, and where it goes."""
    lack = check(source)
    assert lack.refused
    assert "imports env.kv_get, which needs the permission kv.read; add it to spec.permissions" in lack.sentence


def test_what_is_granted_is_let_in():
    """There is nothing to say."""
    assert check(TAG, permissions=["kv.read"]) is None


def test_lenient_is_a_warning():
    """Whoever wants it so reads what it means."""
    lack = check(TAG, permissionsPolicy="Lenient")
    assert not lack.refused
    assert "the call is denied" in lack.sentence


@pytest.mark.parametrize(
    "source",
    [
        {"oci": {"reference": "r.test/a:latest"}},
        {"oci": {"reference": "r.test/a"}},
        {"oci": {"reference": "r.test/a:1", "pullPolicy": "Always"}},
        {"oci": {"reference": "r.test/a:1", "trackInterval": "1m"}},
    ],
)
def test_what_may_be_another_module_by_now_is_a_warning(source):
    """It may need less; the status says it when it is known."""
    assert not check(source).refused


def test_a_config_map_that_has_changed_is_a_warning():
    """The module in it may be another."""
    source = {"configMap": {"name": "module", "key": "plugin.wasm"}}
    assert not check(source, inputs={"ConfigMap/module": "1"}).refused
    assert check(source).refused


def test_a_source_that_writes_a_default_out_is_the_same():
    """Whoever reads it back from the API and applies it again says no other thing."""
    written = {"oci": {"reference": "r.test/a:1", "pullPolicy": "IfNotPresent", "insecure": False, "pullSecrets": []}}
    without = {"oci": {"reference": "r.test/a:1", "pullPolicy": "IfNotPresent"}}
    assert check(written, of=without).refused
    assert check(without, of=written).refused


def test_another_source_is_not_known():
    """Nothing is said of a module that was not looked into."""
    assert check(PINNED, of=TAG) is None


@pytest.mark.parametrize("uid", ["", "guess", None])
def test_a_stranger_is_told_nothing(uid):
    """Who creates a plugin, or says that it is another's, learns nothing of what others' modules import."""
    assert check(PINNED, uid=uid) is None
