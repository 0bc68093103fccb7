"""Layouts: where in an artifact the module is. Pure: bytes in, bytes out, nothing believed.

There is no one way to put a module into a registry. From a manifest this picks the layers to look into, and names
the layout after their media types; what a layer's bytes are is then decided by the bytes alone (``search``), so a
module, a tar and a tar.gz are told apart whatever somebody called them.

Among several layers of which none has a type of its own, the one whose title ends in ``.wasm`` is meant. The layers
of an image are looked into from the last to the first, until one holds ``plugin.wasm``.

| layout | what it looks like |
|---|---|
| ``wasm-oci`` | config ``application/vnd.wasm.config.v0+json``, one layer ``application/wasm`` |
| ``artifact-type`` | ``artifactType``, one layer ``application/wasm`` |
| ``wasm-layer`` | one layer ``application/wasm`` and nothing else to go by |
| ``krustlet`` | a layer ``application/vnd.wasm.content.layer.v1+wasm`` |
| ``module-wasm`` | a layer ``application/vnd.module.wasm.content.layer.v1+wasm``, others beside it |
| ``image`` | a docker or OCI image of which a layer holds ``plugin.wasm`` |
| ``titled`` | several layers, one with a title that ends in ``.wasm``, as ``oras push`` of several files makes them |
| ``heliosdb-tar`` | HeliosDB's tar.gz: ``plugin.wasm`` and ``manifest.json``, ``plugin.yaml`` or ``plugin.toml`` |
| ``tar`` | any other tar or tar.gz that holds ``plugin.wasm``, or one single ``.wasm`` |
| ``raw`` | the module itself, from a file, a URL or an only layer of any type |
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hookline_api import json_cost
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.limits import parse_foreign
from hookline_artifacts.package.search import not_read
from hookline_artifacts.reference import DIGEST

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_PLUGIN: Final = "plugin.wasm"
_SUFFIX: Final = ".wasm"
_WASM: Final = "application/wasm"
_WASM_LAYERS: Final = {
    "application/vnd.wasm.content.layer.v1+wasm": "krustlet",
    "application/vnd.module.wasm.content.layer.v1+wasm": "module-wasm",
}
_IMAGE_LAYERS: Final = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
)
_WASM_ARCHITECTURES: Final = ("wasm", "wasm32")
_WASM_OS: Final = ("wasi", "wasip1", "")
_MAX_LAYERS: Final = 1024
_TITLE: Final = "org.opencontainers.image.title"
_PACKED_TITLES: Final = (".tar.gz", ".tgz", ".tar")
SIGNATURE_LAYER: Final = "application/vnd.hookline.signature.ed25519.v1"
"""Of a layer with a detached signature of the module (``trust.ed25519``)."""
_SIGNATURE_TITLE: Final = ".sig"
_MAX_NAMED: Final = 3
_LISTED: Final = ("mediaType", "digest", "size", "artifactType")
_MAX_TYPE: Final = 255
"""Characters of a media type (RFC 6838, 4.2), and of a digest that is one."""
_MAX_IMAGE: Final = 128
"""Layers of an image; https://docs.docker.com/engine/storage/drivers/overlayfs-driver/ has the same number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Descriptor:
    """What a manifest says of one blob or manifest."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, Any]
    platform: Mapping[str, Any]
    artifact_type: str = ""
    """What an index says that an entry is; often wrong."""

    @property
    def title(self) -> str:
        """The name of the file that this was, where somebody said so."""
        title = self.annotations.get(_TITLE)
        return title if isinstance(title, str) and title.isprintable() else ""

    @property
    def shown(self) -> str:
        """The blob for people."""
        return f"{self.title!r:.120} ({self.digest})" if self.title else self.digest

    @property
    def is_signature(self) -> bool:
        """Whether it is a detached signature of the module beside it: by its type, or by its name."""
        return self.media_type == SIGNATURE_LAYER or self.title.lower().endswith(_SIGNATURE_TITLE)

    @property
    def is_attestation(self) -> bool:
        """BuildKit's provenance and SBOM entries, which stand among the platforms of an index."""
        return (
            "vnd.docker.reference.type" in self.annotations
            or self.platform.get("os") == "unknown"
            or self.platform.get("architecture") == "unknown"
        )

    @property
    def is_wasm(self) -> bool:
        """Whether the entry is built for WebAssembly."""
        # tuples, not sets: what stands there may be a list
        return self.platform.get("architecture") in _WASM_ARCHITECTURES and self.platform.get("os", "") in _WASM_OS


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A manifest (``layers``) or an index (``manifests``), as far as it matters here."""

    entries: Sequence[Descriptor] | None
    """Of an index; None where this is a manifest."""
    layers: Sequence[Descriptor]
    config_type: str
    artifact_type: str
    annotations: Mapping[str, Any]
    subject: str
    """The digest of what it refers to; empty for nothing."""


def read_manifest(document: bytes) -> Manifest:
    """The manifest or index in these bytes; raises VerifyError where it is neither."""
    try:
        data = parse_foreign(document)
    except json_cost.CostError as error:
        raise VerifyError(f"the registry's manifest cannot be used: {error}") from None
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise VerifyError("the registry's manifest is not a JSON object; check what answers there")
    has_entries, has_layers = isinstance(data.get("manifests"), list), isinstance(data.get("layers"), list)
    if has_entries == has_layers:
        # Both at once could be read as one thing by us and as another by whoever signed it (CVE-2021-41190).
        raise VerifyError(
            "the manifest is neither an image manifest (layers) nor an index (manifests), or both at once; "
            "push the module again with a current tool"
        )
    return Manifest(
        entries=_descriptors(data["manifests"]) if has_entries else None,
        layers=_descriptors(data["layers"]) if has_layers else (),
        config_type=_string(_mapping(data.get("config")).get("mediaType")),
        artifact_type=_string(data.get("artifactType")),
        annotations=_texts(data.get("annotations")),
        subject=_string(_mapping(data.get("subject")).get("digest")),
    )


def read_list(document: bytes) -> list[Descriptor]:
    """The entries of an index in which anybody may have put anything; none where this is no index.

    An entry that makes no sense is left out, and hides no other. Raises VerifyError where there is too much of it.
    """
    try:
        data = parse_foreign(document)
    except json_cost.CostError as error:
        raise VerifyError(f"the registry's list cannot be used: {error}") from None
    except ValueError:
        data = None
    items = data.get("manifests") if isinstance(data, dict) else None
    found = []
    for item in items if isinstance(items, list) else []:
        listed = _mapping(item)
        with contextlib.suppress(VerifyError):
            # What else is said of it nobody believes, and thirty pages of that are hundreds of megabytes.
            found.append(_descriptor({name: _short(listed.get(name)) for name in _LISTED}))
    return found


def _short(value: object) -> object:
    return value[:_MAX_TYPE] if isinstance(value, str) else value


def choose(entries: Sequence[Descriptor]) -> Descriptor:
    """The entry of an index to go on with: the first for wasm, or the only one."""
    candidates = [entry for entry in entries if not entry.is_attestation]
    for entry in candidates:
        if entry.is_wasm:
            return entry
    if len(candidates) == 1:
        return candidates[0]
    raise VerifyError(
        f"the index has {len(candidates)} entries and none for the platform wasi/wasm; "
        "push one for that platform, or refer to one entry by its digest"
    )


def module_layers(manifest: Manifest) -> tuple[Sequence[Descriptor], str]:
    """The layers to look into, one after the other, and the layout's name; raises VerifyError where there are none."""
    layers = [layer for layer in manifest.layers if not layer.is_signature] or manifest.layers
    for media_type, layout in _WASM_LAYERS.items():
        if found := [layer for layer in layers if layer.media_type == media_type]:
            return [_meant_layer(found)], layout
    if found := [layer for layer in layers if layer.media_type == _WASM]:
        if manifest.config_type.startswith("application/vnd.wasm.config."):
            return [_meant_layer(found)], "wasm-oci"
        return [_meant_layer(found)], "artifact-type" if manifest.artifact_type else "wasm-layer"
    if len(manifest.layers) > 1:
        if found := [layer for layer in layers if layer.title.lower().endswith(_SUFFIX)]:
            return [_meant_layer(found)], "titled"
        found = [layer for layer in layers if layer.title.lower().endswith(_PACKED_TITLES)]
        if len(found) == 1:
            return found, "titled"
    if found := [layer for layer in layers if layer.media_type.startswith(_IMAGE_LAYERS)]:
        if len(found) > _MAX_IMAGE:
            raise VerifyError(f"the image has {len(found)} layers and {_MAX_IMAGE} are allowed; make it of fewer")
        return found[::-1], "image"
    if len(layers) == 1:
        return layers, "raw"
    types = ", ".join(sorted({"".join(filter(str.isprintable, layer.media_type)) for layer in manifest.layers}))
    told = f" ({types:.200})" if types else ""
    raise VerifyError(
        f"the artifact has {len(manifest.layers)} layers and none that holds a module{told}; "
        "push the module as a layer of type application/wasm"
    )


def check_compression(layer: Descriptor) -> None:
    """Raise VerifyError where a layer's type says that it is compressed in a way that is not read."""
    for name in ("zstd", "xz", "bzip2", "lz4", "lzma", "brotli"):
        if layer.media_type.lower().endswith((f"+{name}", f".{name}")):
            raise not_read(name)


def _meant_layer(found: Sequence[Descriptor]) -> Descriptor:
    """The one of several layers that is meant, by its title."""
    for meant in (
        found,
        [layer for layer in found if layer.title.rpartition("/")[2] == _PLUGIN],
        [layer for layer in found if layer.title.lower().endswith(_SUFFIX)],
    ):
        if len(meant) == 1:
            return meant[0]
    some = ", ".join(layer.shown for layer in found[:_MAX_NAMED])
    raise VerifyError(f"the artifact holds {len(found)} modules and one is expected ({some}); push them one by one")


def _descriptors(items: list[object]) -> tuple[Descriptor, ...]:
    if len(items) > _MAX_LAYERS:
        raise VerifyError(f"the manifest has {len(items)} entries and {_MAX_LAYERS} are allowed")
    return tuple(_descriptor(_mapping(item)) for item in items)


def _descriptor(data: Mapping[str, Any]) -> Descriptor:
    digest, size = data.get("digest"), data.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise VerifyError(f"the manifest has an entry whose digest is not a sha256 digest ({digest!r:.80})")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise VerifyError(f"the manifest has an entry whose size is not a number of bytes ({size!r:.40})")
    return Descriptor(
        media_type=_string(data.get("mediaType")),
        digest=digest,
        size=size,
        annotations=_texts(data.get("annotations")),
        platform={
            name: each if isinstance(each, str) else None for name, each in _mapping(data.get("platform")).items()
        },
        artifact_type=_string(data.get("artifactType")),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> Mapping[str, str]:
    """The annotations that are text. Others may be large, and are dropped."""
    return {name: each for name, each in _mapping(value).items() if isinstance(each, str)}


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
