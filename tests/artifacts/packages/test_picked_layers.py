"""The layer that holds the module is picked by what a manifest says, and any manifest is read or refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archives import FUZZ, MODULE, TAR
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.package.layouts import check_compression, choose, module_layers, read_manifest


def picked(*layers, **more):
    """The titles or digests of the layers to look into, and the layout; a layer is bytes or (title, media type)."""
    made = [
        {
            "mediaType": media_type, "digest": "sha256:" + f"{number:064x}", "size": 9,
            "annotations": {"org.opencontainers.image.title": title} if title else {},
        }
        for number, (title, media_type) in enumerate(layers)
    ]  # fmt: skip
    found, layout = module_layers(read_manifest(json.dumps({"layers": made, **more}).encode()))
    return [layer.title or int(layer.digest[7:], 16) for layer in found], layout


KRUSTLET = "application/vnd.wasm.content.layer.v1+wasm"
WASM = "application/wasm"


@pytest.mark.parametrize(
    ("layers", "found", "layout"),
    [
        ([("", "application/json"), ("", KRUSTLET)], [1], "krustlet"),
        ([("", "application/json")], [0], "raw"),
        ([("plugin.wasm", TAR), ("README.md", TAR)], ["plugin.wasm"], "titled"),
        ([("README.md", TAR), ("dist/guard.WASM", TAR)], ["dist/guard.WASM"], "titled"),
        ([("README.md", "text/plain"), ("guard.wasm", "application/octet-stream")], ["guard.wasm"], "titled"),
        ([("other.wasm", TAR), ("./plugin.wasm", TAR), ("LICENSE", TAR)], ["./plugin.wasm"], "titled"),
        ([("guard.tar.gz", TAR), ("README.md", TAR)], ["guard.tar.gz"], "titled"),
        ([("a.wasm", WASM), ("plugin.wasm", WASM)], ["plugin.wasm"], "wasm-layer"),
        ([("a.wasm", WASM), ("README.md", WASM)], ["a.wasm"], "wasm-layer"),
        ([("README.md", TAR), ("plugin.wasm", WASM)], ["plugin.wasm"], "wasm-layer"),
        ([("", TAR), ("", TAR + "+gzip"), ("", TAR)], [2, 1, 0], "image"),
        ([("README.md", TAR), ("dist", TAR + "+gzip")], ["dist", "README.md"], "image"),
        ([("", "application/vnd.docker.image.rootfs.diff.tar.gzip")] * 2, [1, 0], "image"),
    ],
)
def test_the_layer_is_picked_by_its_type_or_its_title(layers, found, layout):
    """As ``oras push``, ``wkg``, ``docker build`` and their like leave it, in whatever order."""
    assert picked(*layers) == (found, layout)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([("", "application/json")] * 2, "2 layers and none"),
        ([("", KRUSTLET)] * 2, "2 modules and one is expected.*sha256:0"),
        ([("a.wasm", TAR), ("b.wasm", TAR)], "2 modules and one is expected.*a.wasm.*b.wasm"),
        ([("a.wasm", WASM), ("b.wasm", WASM)], "a.wasm.*b.wasm"),
        ([], "0 layers"),
        ([("", TAR)] * 129, "129 layers and 128 are allowed"),
    ],
)
def test_layers_that_could_each_be_meant_are_named(layers, words):
    """Nothing is guessed."""
    with pytest.raises(VerifyError, match=words):
        picked(*layers)


@pytest.mark.parametrize("title", [7, None, "a\nb", {"x": 1}])
def test_a_title_that_is_none_is_no_title(title):
    """It is a stranger's text."""
    layer = {"mediaType": TAR, "digest": "sha256:" + "0" * 64, "size": 1,
             "annotations": {"org.opencontainers.image.title": title}}  # fmt: skip
    (found,), _ = module_layers(read_manifest(json.dumps({"layers": [layer]}).encode()))
    assert found.shown == found.digest


def test_an_index_without_wasm_is_refused_unless_it_has_one_entry(oci):
    """Platforms are not guessed."""
    amd, arm = (
        (oci.manifest(name), {"platform": {"os": "linux", "architecture": name.decode()}})
        for name in (b"amd64", b"arm64")
    )
    with pytest.raises(VerifyError, match="2 entries and none for the platform wasi/wasm"):
        choose(read_manifest(oci.index(amd, arm)).entries)
    assert choose(read_manifest(oci.index(amd)).entries).digest == oci.sha256(amd[0])
    with pytest.raises(VerifyError, match="0 entries"):
        choose(read_manifest(oci.index()).entries)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("platform", [{"architecture": []}, {"architecture": "wasm", "os": {}}, {"os": ["unknown"]}, 7])
def test_a_platform_of_odd_types_is_no_platform(oci, platform):
    """It is a stranger's text."""
    entry = (oci.manifest(MODULE), {"platform": platform})
    with pytest.raises(VerifyError, match="2 entries and none"):
        choose(read_manifest(oci.index(entry, entry)).entries)


layers_of_any_kind = st.fixed_dictionaries(
    {"digest": st.just("sha256:" + "0" * 64), "size": st.integers(0, 99) | json_values},
    optional={
        "mediaType": st.sampled_from([TAR, TAR + "+zstd", WASM, KRUSTLET]) | json_values,
        "annotations": st.dictionaries(
            st.sampled_from(["org.opencontainers.image.title", "vnd.docker.reference.type"]),
            st.sampled_from(["plugin.wasm", "README.md", "a.wasm", "a.tgz"]) | json_values,
        )
        | json_values,
        "platform": st.dictionaries(st.sampled_from(["os", "architecture"]), st.just("wasm") | json_values)
        | json_values,
    },
)


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary(max_size=200)
    | st.fixed_dictionaries(
        {"layers": st.lists(layers_of_any_kind, max_size=4)}
        | dict.fromkeys(("config", "annotations", "artifactType", "mediaType"), json_values)
    )
    | st.fixed_dictionaries({"manifests": st.lists(st.dictionaries(st.sampled_from(["digest", "size"]), json_values))})
    | st.fixed_dictionaries({"manifests": st.lists(layers_of_any_kind, max_size=3)})
)
def test_any_manifest_is_read_or_refused(document):
    """Every field of any type."""
    try:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        manifest = read_manifest(data)
        if manifest.entries is not None:
            choose(manifest.entries)
            return
        layers, _ = module_layers(manifest)
        assert layers
        for layer in layers:
            assert layer.shown.isprintable()
            check_compression(layer)
    except VerifyError:
        pass


def test_a_manifest_of_too_many_values_is_not_parsed():
    """Four mebibytes of it would be two hundred of memory."""
    with pytest.raises(VerifyError, match="with more than 65536 values and names in them, and is not parsed"):
        read_manifest(b'{"layers": [' + b"{}," * 100_000 + b"{}]}")
