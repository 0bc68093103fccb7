"""``spec.kv.initial`` on a real API server: what no pod's store could take is refused by ``kubectl apply``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster import ClusterError

ROOT = Path(__file__).parents[2]
CRD = "wasmplugins.hookline.dev"
NAMESPACE = "chart-kv"
VALUE, KEYS, ALL = 64 * 1024, 1024, 512 * 1024


@pytest.fixture(scope="module")
def plane(control_plane):
    """With a namespace of these tests, and the definition as the repository has it."""
    control_plane.kubectl("delete", "crd", CRD, "--ignore-not-found")
    control_plane.install_crd(ROOT / "crds" / "hookline.dev_wasmplugins.yaml")
    control_plane.kubectl("create", "namespace", NAMESPACE)
    yield control_plane
    control_plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def apply(plane, kv):
    """What the API server says to a plugin with these settings of its store."""
    plugin = {
        "apiVersion": "hookline.dev/v1alpha1",
        "kind": "WasmPlugin",
        "metadata": {"name": "kv"},
        "spec": {"source": {"oci": {"reference": "registry.example.com/plugins/kv:1"}}, "kv": kv},
    }
    return plane.kubectl(
        "create", "--dry-run=server", "--validate=strict", f"--namespace={NAMESPACE}", "-f", "-",
        input=json.dumps(plugin),
    )  # fmt: skip


GOOD = {
    "texts": {"region_map": '{"eu": "pg-eu:5432"}', "budget/tenant-a": "1000", "empty": ""},
    "a value of the most bytes": {"k": "x" * VALUE},
    "the most keys": {f"k{number}": "v" for number in range(KEYS)},
    "the most bytes": {f"k{number}": "x" * (VALUE - 2) for number in range(ALL // VALUE)},
}
BAD = {
    "a value with a byte more": ({"k": "x" * (VALUE + 1)}, "65536"),
    "a key with a byte more": ({"x" * (VALUE + 1): ""}, "a key has 1 to 65536 bytes"),
    "a key without bytes": ({"": "x"}, "a key has 1 to 65536 bytes"),
    "a key more": ({f"k{number}": "v" for number in range(KEYS + 1)}, "must have at most 1024 items"),
    "a byte more in all": (
        {f"k{number}": "x" * (VALUE - 2) for number in range(ALL // VALUE)} | {"k": ""},
        "keys and values have more than 524288 bytes together",
    ),
    "a number": ({"k": 1}, "must be of type string"),
    "a list": ({"k": ["a", "b"]}, "must be of type string"),
}


@pytest.mark.parametrize("initial", GOOD.values(), ids=GOOD.keys())
@pytest.mark.parametrize("overwrite", [{}, {"overwrite": "Never"}, {"overwrite": "OnChange"}])
def test_what_a_store_can_take_is_taken(plane, initial, overwrite):
    """Up to the last byte of each bound; so the rules are within what the API server lets a rule cost."""
    apply(plane, {"initial": initial, **overwrite})


@pytest.mark.parametrize(("initial", "why"), BAD.values(), ids=BAD.keys())
def test_what_no_store_can_take_is_refused_with_a_sentence(plane, initial, why):
    """Before any pod is told."""
    with pytest.raises(ClusterError, match=why):
        apply(plane, {"initial": initial})


def test_an_unknown_way_to_overwrite_is_refused(plane):
    """With those that there are."""
    with pytest.raises(ClusterError, match='supported values: "Never", "OnChange"'):
        apply(plane, {"initial": {}, "overwrite": "Always"})
