"""The one module in an artifact is found, whatever it is packed in; nothing else about the bytes is believed."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline_runtime.artifacts import FetchLimits
from hookline_runtime.artifacts.layouts import choose, module_layer, read_manifest, unpack
from hookline_runtime.errors import VerifyError

MODULE = b"\0asm\x01\0\0\0" + b"\0\x02\x01x"
LIMITS = FetchLimits(module=4096, unpacked=65_536, entries=20)


def unpacked(data, *, layout="raw", limits=LIMITS):
    """What was found, and the module's bytes."""
    out = io.BytesIO()
    found = unpack(io.BytesIO(data), out=out, layout=layout, limits=limits)
    return found, out.getvalue()


def refused(data, message, *, limits=LIMITS):
    """Unpacking raises VerifyError with this message."""
    with pytest.raises(VerifyError, match=message):
        unpacked(data, limits=limits)


def test_a_plain_module_is_itself():
    """Bytes in, the same bytes out."""
    found, module = unpacked(MODULE)
    assert (found.layout, found.size, module) == ("raw", len(MODULE), MODULE)


@pytest.mark.parametrize("gzipped", [True, False])
@pytest.mark.parametrize("name", ["plugin.wasm", "./plugin.wasm", "other.wasm", "usr/share/plugin.wasm"])
def test_the_module_in_an_archive_is_found(oci, gzipped, name):
    """Under its own name, or as the only module there."""
    found, module = unpacked(oci.tar({"README": b"x", name: MODULE}, gzipped=gzipped))
    assert (found.layout, module) == ("tar", MODULE)


def test_long_names_are_read_in_both_dialects():
    """Pax and GNU tar each have a way of their own."""
    for dialect in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=dialect) as archive:
            entry = tarfile.TarInfo("folder/" * 20 + "module.wasm")
            entry.size = len(MODULE)
            archive.addfile(entry, io.BytesIO(MODULE))
        assert unpacked(buffer.getvalue())[1] == MODULE


def test_plugin_wasm_wins_over_other_modules(oci):
    """Before and after others, whatever their order."""
    other = MODULE + b"\0\x02\x01y"
    for names in (("a.wasm", "plugin.wasm", "z.wasm"), ("plugin.wasm", "a.wasm")):
        archive = oci.tar({name: MODULE if name == "plugin.wasm" else other for name in names})
        assert unpacked(archive)[1] == MODULE


def test_an_image_keeps_its_layouts_name(oci):
    """What the manifest said stays, unless a packed manifest says more."""
    assert unpacked(oci.tar({"plugin.wasm": MODULE}), layout="image")[0].layout == "image"
    assert unpacked(oci.tar({"plugin.wasm": MODULE, "plugin.toml": b""}), layout="image")[0].layout == "heliosdb-tar"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "begins with nothing"),
        (b"MZ\x90\0", "not WebAssembly"),
        (b"\0asm", "not WebAssembly|unknown version"),
        (b"\0asm\x0d\0\x01\0", "this is a component; Hookline runs core modules"),
        (b"\0asm\x02\0\0\0", "unknown version"),
    ],
)
def test_what_is_no_core_module_is_named(oci, head, message):
    """Raw and packed alike."""
    refused(head, message)
    refused(oci.tar({"plugin.wasm": head}), message)


def test_a_name_that_leads_out_is_refused(oci):
    """Absolute names and `..`, even beside a good module."""
    for name in ("../plugin.wasm", "/plugin.wasm", "a/../../b"):
        refused(oci.tar({"plugin.wasm": MODULE, name: MODULE}), "leads out of it")


def test_a_link_is_never_followed(oci):
    """A link in the module's place is refused; elsewhere it is nothing."""
    refused(oci.tar({}, links=[("plugin.wasm", "/etc/passwd")]), "is a link")
    assert unpacked(oci.tar({"plugin.wasm": MODULE}, links=[("etc", "../../etc")]))[1] == MODULE


def test_a_gzip_bomb_stops_at_the_cap(oci):
    """A few kilobytes that mean many megabytes are cut, as a file beside the module and as the module."""
    refused(oci.tar({"plugin.wasm": MODULE, "zeros": bytes(50_000_000)}), "more than the 65536 bytes")
    refused(oci.tar({"plugin.wasm": MODULE + bytes(50_000_000)}), "larger than the 4096 bytes")


def test_a_module_over_the_cap_is_refused():
    """Raw, too."""
    refused(MODULE + bytes(5000), "larger than the 4096 bytes")


def test_too_many_entries_are_refused(oci):
    """Empty files count as well."""
    refused(oci.tar({f"{number}.txt": b"" for number in range(50)}), "more than 20 files")


def test_an_archive_without_one_module_is_refused(oci):
    """None, several of which none is plugin.wasm, or plugin.wasm twice."""
    refused(oci.tar({"README": b""}), r"holds no plugin\.wasm")
    refused(oci.tar({"a.wasm": MODULE, "b.wasm": MODULE}), "several modules")
    refused(oci.tar({"plugin.wasm": MODULE, "./plugin.wasm": MODULE}), "twice")


def test_a_truncated_archive_is_refused(oci):
    """Cut in the gzip stream, and in the tar below it."""
    archive = oci.tar({"plugin.wasm": MODULE + bytes(1000)})
    refused(archive[:60], "gzip stream cannot be read|ends in the middle")
    refused(gzip.compress(gzip.decompress(archive)[:900]), "ends in the middle")
    refused(gzip.compress(b"\x01" * 2000), "no tar archive|no number")


def test_a_huge_header_is_not_read():
    """A pax header or GNU name of megabytes is refused by its size."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("x" * 100_000))
    refused(buffer.getvalue(), "a header of")


def test_a_size_of_gigabytes_is_refused_before_it_is_read():
    """GNU's base 256 writes sizes that no other tar can; a negative one is as bad."""
    for size in (1 << 40, -1):
        entry = tarfile.TarInfo("plugin.wasm")
        header = bytearray(entry.tobuf(format=tarfile.GNU_FORMAT))
        header[124:136] = (size if size > 0 else size + (1 << 96)).to_bytes(12, "big")
        header[124] |= 0x80
        total = sum(header[:148]) + 8 * 32 + sum(header[156:])
        header[148:156] = f"{total:06o}\0 ".encode()
        refused(bytes(header) + MODULE, "larger than the 4096 bytes")


def test_a_packed_manifest_has_to_name_the_module_beside_it(oci):
    """HeliosDB's wasm_sha256 is checked."""
    refused(
        oci.tar({"manifest.json": b'{"wasm_sha256": "00"}', "plugin.wasm": MODULE}),
        "says that the module's sha256",
    )
    right = f'{{"wasm_sha256": "{oci.sha256(MODULE)[7:].upper()}"}}'.encode()
    assert unpacked(oci.tar({"manifest.json": right, "plugin.wasm": MODULE}))[1] == MODULE


def test_the_layer_is_picked_by_what_it_is(oci):
    """Among others beside it, and by elimination where there is only one."""
    wasm = oci.descriptor(MODULE, "application/vnd.wasm.content.layer.v1+wasm")
    other = oci.descriptor(b"{}", "application/vnd.example.config+json")
    layer, layout = module_layer(read_manifest(oci.manifest(other, wasm)))
    assert (layer.digest, layout) == (oci.sha256(MODULE), "krustlet")
    assert module_layer(read_manifest(oci.manifest(other)))[1] == "raw"
    with pytest.raises(VerifyError, match="2 layers and none"):
        module_layer(read_manifest(oci.manifest(other, other)))
    with pytest.raises(VerifyError, match="2 modules"):
        module_layer(read_manifest(oci.manifest(wasm, wasm)))


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


def bounded(data):
    """Unpacking gives a module within the caps, or VerifyError."""
    out = io.BytesIO()
    try:
        found = unpack(io.BytesIO(data), out=out, layout="raw", limits=LIMITS)
    except VerifyError:
        assert len(out.getvalue()) <= LIMITS.module
    else:
        assert found.size == len(out.getvalue()) <= LIMITS.module
        assert out.getvalue().startswith(MODULE[:8])


@given(st.binary(max_size=2000))
def test_any_bytes_are_a_module_or_a_verify_error(data):
    """As they are, behind a gzip magic, and gzipped."""
    for form in (data, b"\x1f\x8b\x08" + data, gzip.compress(data, 1)):
        bounded(form)


@given(data=st.data())
def test_a_damaged_archive_is_a_module_or_a_verify_error(data):
    """A few bytes of a good tar are changed, below the gzip stream."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("manifest.json", "é" * 60 + ".txt", "plugin.wasm"):
            entry = tarfile.TarInfo(name)
            entry.size = len(MODULE)
            archive.addfile(entry, io.BytesIO(MODULE))
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for start in range(0, 4096, 512):  # right checksums, so that the rest of the header is reached
        header = damaged[start : start + 512]
        if header[257:262] == b"ustar":
            total = sum(header[:148]) + 8 * 32 + sum(header[156:])
            damaged[start + 148 : start + 156] = f"{total:06o}\0 ".encode()
    bounded(bytes(damaged))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.binary(max_size=200)
    | st.fixed_dictionaries(
        {"layers": st.lists(st.fixed_dictionaries({"digest": st.just("sha256:" + "0" * 64), "size": json_values}))}
        | dict.fromkeys(("config", "annotations", "artifactType", "mediaType"), json_values)
    )
    | st.fixed_dictionaries({"manifests": st.lists(st.dictionaries(st.sampled_from(["digest", "size"]), json_values))})
)
def test_any_manifest_is_read_or_refused(document):
    """Every field of any type."""
    import json

    try:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        manifest = read_manifest(data)
        if manifest.entries is None:
            module_layer(manifest)
        else:
            choose(manifest.entries)
    except VerifyError:
        pass
