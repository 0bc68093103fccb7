"""Layouts: where in an artifact the module is. Pure: bytes in, bytes out, nothing believed.

There is no one way to put a module into a registry. From a manifest this picks the one layer to download, and
names the layout after its media types; what the layer's bytes are is then decided by the bytes alone, so a
module, a tar and a tar.gz are told apart whatever somebody called them.

| layout | what it looks like |
|---|---|
| ``wasm-oci`` | config ``application/vnd.wasm.config.v0+json``, one layer ``application/wasm`` |
| ``artifact-type`` | ``artifactType``, one layer ``application/wasm`` |
| ``wasm-layer`` | one layer ``application/wasm`` and nothing else to go by |
| ``krustlet`` | a layer ``application/vnd.wasm.content.layer.v1+wasm`` |
| ``module-wasm`` | a layer ``application/vnd.module.wasm.content.layer.v1+wasm``, others beside it |
| ``image`` | a docker or OCI image whose last layer holds ``plugin.wasm`` |
| ``heliosdb-tar`` | HeliosDB's tar.gz: ``plugin.wasm`` and ``manifest.json``, ``plugin.yaml`` or ``plugin.toml`` |
| ``tar`` | any other tar or tar.gz that holds ``plugin.wasm``, or one single ``.wasm`` |
| ``raw`` | the module itself, from a file, a URL or an only layer of any type |
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import orjson

from hookline_runtime.artifacts.archive import Entry, is_archive, walk
from hookline_runtime.artifacts.describe import MAX_DOCUMENT, PACKED_MANIFESTS, PluginDescription
from hookline_runtime.artifacts.reference import DIGEST
from hookline_runtime.errors import VerifyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hookline_runtime.artifacts.limits import FetchLimits

_MODULE: Final = b"\0asm\x01\0\0\0"
_COMPONENT_LAYER: Final = b"\x01\0"  # bytes 6 and 7: https://github.com/WebAssembly/component-model, Binary.md
_CHUNK: Final = 1 << 16
_PLUGIN: Final = "plugin.wasm"
_WASM: Final = "application/wasm"
_WASM_LAYERS: Final = {
    "application/vnd.wasm.content.layer.v1+wasm": "krustlet",
    "application/vnd.module.wasm.content.layer.v1+wasm": "module-wasm",
}
_IMAGE_LAYERS: Final = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
)
_WASM_OS: Final = ("wasi", "wasip1", "")
_MAX_LAYERS: Final = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Descriptor:
    """What a manifest says of one blob or manifest."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, Any]
    platform: Mapping[str, Any]

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
        return self.platform.get("architecture") in {"wasm", "wasm32"} and self.platform.get("os", "") in _WASM_OS


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A manifest (``layers``) or an index (``manifests``), as far as it matters here."""

    entries: Sequence[Descriptor] | None
    """Of an index; None where this is a manifest."""
    layers: Sequence[Descriptor]
    config_type: str
    artifact_type: str
    annotations: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpacked:
    """What was found in an artifact's bytes."""

    layout: str
    sha256: str
    size: int
    description: PluginDescription | None


def read_manifest(document: bytes) -> Manifest:
    """The manifest or index in these bytes; raises VerifyError where it is neither."""
    try:
        data = orjson.loads(document)
    except orjson.JSONDecodeError:
        data = None
    if not isinstance(data, dict):
        raise VerifyError("the registry's manifest is no JSON object; check what answers there")
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
        annotations=_mapping(data.get("annotations")),
    )


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


def module_layer(manifest: Manifest) -> tuple[Descriptor, str]:
    """The layer that holds the module, and the layout's name; raises VerifyError where there is none."""
    for media_type, layout in _WASM_LAYERS.items():
        if found := [layer for layer in manifest.layers if layer.media_type == media_type]:
            return _only(found), layout
    if found := [layer for layer in manifest.layers if layer.media_type == _WASM]:
        if manifest.config_type.startswith("application/vnd.wasm.config."):
            return _only(found), "wasm-oci"
        return _only(found), "artifact-type" if manifest.artifact_type else "wasm-layer"
    if found := [layer for layer in manifest.layers if layer.media_type.startswith(_IMAGE_LAYERS)]:
        return found[-1], "image"
    if len(manifest.layers) == 1:
        return manifest.layers[0], "raw"
    types = ", ".join(sorted({layer.media_type for layer in manifest.layers}))
    raise VerifyError(
        f"the artifact has {len(manifest.layers)} layers and none that holds a module ({types:.200}); "
        "push the module as a layer of type application/wasm"
    )


def unpack(file: BinaryIO, *, out: BinaryIO, layout: str, limits: FetchLimits) -> Unpacked:
    """Find the module in a file and write it to ``out``, which is empty before."""
    file.seek(0)
    head = file.read(512)
    file.seek(0)
    if is_archive(head):
        return _unpack_archive(file, out=out, layout=layout, limits=limits)
    sha256, size = _copy_module(iter(lambda: file.read(_CHUNK), b""), out=out, limits=limits)
    return Unpacked(layout=layout, sha256=sha256, size=size, description=None)


def _unpack_archive(file: BinaryIO, *, out: BinaryIO, layout: str, limits: FetchLimits) -> Unpacked:
    module: tuple[str, int] | None = None
    module_name = ""
    other_modules = 0
    documents: dict[str, bytes] = {}
    for entry in walk(file, unpacked=limits.unpacked, entries=limits.entries):
        if entry.name in PACKED_MANIFESTS and entry.is_file and entry.size <= MAX_DOCUMENT:
            documents[entry.name] = entry.read()
        elif entry.name.endswith(".wasm"):
            _check_entry(entry, limits)
            if entry.name == _PLUGIN and module_name == _PLUGIN:
                raise VerifyError(f"the archive holds {_PLUGIN} twice; pack it again")
            if module is not None and entry.name != _PLUGIN:
                other_modules += 1
                continue
            out.seek(0)
            out.truncate()
            other_modules += module is not None
            module, module_name = _copy_module(entry.chunks(), out=out, limits=limits), entry.name
    if module is None:
        raise VerifyError(f"the archive holds no {_PLUGIN}; pack the module under that name")
    if other_modules and module_name != _PLUGIN:
        raise VerifyError(f"the archive holds several modules and none is {_PLUGIN}; pack one under that name")
    sha256, size = module
    description = PluginDescription.from_packed(documents)
    stated = _stated_sha256(documents.get("manifest.json"))
    if stated not in {None, sha256}:
        raise VerifyError(
            f"manifest.json in the archive says that the module's sha256 is {stated:.64} and it is {sha256}; "
            "pack it again"
        )
    if documents:
        layout = "heliosdb-tar"
    elif layout != "image":
        layout = "tar"
    return Unpacked(layout=layout, sha256=sha256, size=size, description=description)


def _check_entry(entry: Entry, limits: FetchLimits) -> None:
    if not entry.is_file:
        kind = "a link" if entry.is_link else "no regular file"
        raise VerifyError(f"{entry.name!r:.80} in the archive is {kind}; pack the module itself")
    if entry.size > limits.module:
        raise _too_large(limits)


def _copy_module(chunks: Iterator[bytes], *, out: BinaryIO, limits: FetchLimits) -> tuple[str, int]:
    digest, size, head = hashlib.sha256(), 0, b""
    for chunk in chunks:
        if len(head) < len(_MODULE):
            head += chunk[: len(_MODULE)]
        size += len(chunk)
        if size > limits.module:
            raise _too_large(limits)
        digest.update(chunk)
        out.write(chunk)
    _check_magic(head[: len(_MODULE)])
    return digest.hexdigest(), size


def _check_magic(head: bytes) -> None:
    if head == _MODULE:
        return
    if head[:4] == _MODULE[:4] and head[6:] == _COMPONENT_LAYER:
        raise VerifyError(
            "this is a component; Hookline runs core modules: build for wasm32-wasip1 or wasm32-unknown-unknown"
        )
    if head[:4] == _MODULE[:4]:
        raise VerifyError(f"this is WebAssembly of an unknown version (bytes 4 to 8 are {head[4:].hex()})")
    raise VerifyError(
        f"this is not WebAssembly: it begins with {head.hex() or 'nothing'} and a module with {_MODULE.hex()}"
    )


def _too_large(limits: FetchLimits) -> VerifyError:
    return VerifyError(f"the module is larger than the {limits.module} bytes that are allowed; make it smaller")


def _stated_sha256(document: bytes | None) -> str | None:
    try:
        data = orjson.loads(document or b"null")
    except orjson.JSONDecodeError:
        return None
    stated = data.get("wasm_sha256") if isinstance(data, dict) else None
    return stated.lower() if isinstance(stated, str) else None


def _only(found: Sequence[Descriptor]) -> Descriptor:
    if len(found) > 1:
        raise VerifyError(f"the artifact holds {len(found)} modules and one is expected; push them one by one")
    return found[0]


def _descriptors(items: list[object]) -> tuple[Descriptor, ...]:
    if len(items) > _MAX_LAYERS:
        raise VerifyError(f"the manifest has {len(items)} entries and {_MAX_LAYERS} are allowed")
    return tuple(_descriptor(_mapping(item)) for item in items)


def _descriptor(data: Mapping[str, Any]) -> Descriptor:
    digest, size = data.get("digest"), data.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise VerifyError(f"the manifest has an entry whose digest is no sha256 digest ({digest!r:.80})")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise VerifyError(f"the manifest has an entry whose size is no number of bytes ({size!r:.40})")
    return Descriptor(
        media_type=_string(data.get("mediaType")),
        digest=digest,
        size=size,
        annotations=_mapping(data.get("annotations")),
        platform=_mapping(data.get("platform")),
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""
