"""The one module in an artifact is found, whatever it is packed in; nothing else about the bytes is believed."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import subprocess
import tarfile
import zipfile

import pytest

from archives import LIMITS, MODULE, NOTHING, OTHER, TAR, unpacked
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.package.layouts import check_compression, module_layers, read_manifest


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


@pytest.mark.parametrize(
    "form",
    [["--format=gnu"], *(["--format=pax", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0"))],
    ids=["gnu", "0.0", "0.1", "1.0"],
)
def test_a_module_without_its_holes_is_not_taken_for_the_module(tmp_path, form):
    """Of a sparse file an archive holds the parts between the holes: GNU tar on demand, macOS' tar by itself."""
    with (tmp_path / "plugin.wasm").open("wb") as file:
        file.write(MODULE)
        for hole in range(8):  # more than fit into GNU tar's header
            file.seek((hole + 1) << 16)
            file.write(b"x" * 4096)
    (tmp_path / "other.txt").write_bytes(b"x")

    def packed(*names):
        command = ["tar", "--sparse", *form, "-C", tmp_path, "-cf", tmp_path / "a.tar", *names]
        subprocess.run(command, check=True)
        return (tmp_path / "a.tar").read_bytes()

    refused(packed("plugin.wasm", "other.txt"), "'plugin.wasm' in the archive is stored without its holes")
    (tmp_path / "plugin.wasm").rename(tmp_path / "model.bin")
    (tmp_path / "module.wasm").write_bytes(MODULE)
    assert unpacked(packed("model.bin", "module.wasm"))[1] == MODULE


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
        (b"\0asm\x0c\0\x01\0", "unknown version"),
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
    refused(gzip.compress(b"\x01" * 2000), "not a tar archive|not a number")


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


@pytest.mark.parametrize("name", ["plugin.wasm", "./plugin.wasm", "guard/plugin.wasm", "guard.wasm"])
@pytest.mark.parametrize("before", [True, False])
def test_what_tools_put_beside_a_module_is_nothing(oci, name, before):
    """Attributes of macOS, pax headers as files, whiteouts: before it and behind it."""
    pairs = [*NOTHING.items(), (name, MODULE)] if before else [(name, MODULE), *NOTHING.items()]
    assert unpacked(oci.tar(dict(pairs)))[1] == MODULE


def test_an_archive_with_nothing_but_that_holds_no_module(oci):
    """It is not taken for one."""
    refused(oci.tar(NOTHING), r"holds no plugin\.wasm")


@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize(
    "files",
    [
        {"README.md": b"x", "other.wasm": b"not a module", "plugin.wasm": MODULE},
        {"component.wasm": b"\0asm\x0c\0\x01\0", "plugin.wasm": MODULE, "large.wasm": bytes(6000)},
        {"guard/plugin.wasm": MODULE, "guard/test.wasm": OTHER, "README.md": b"x"},
        {"plugin.wasm": MODULE, "old/plugin.wasm": OTHER, "a/b/plugin.wasm": OTHER},
        {"guard.WASM": MODULE, "guard.wat": b"(module)", "guard.wasm.map": b"{}"},
    ],
)
def test_the_member_that_is_meant_wins_wherever_it_stands(oci, files, reverse):
    """Whatever the others are, and in whatever order."""
    pairs = list(files.items())[:: -1 if reverse else 1]
    assert unpacked(oci.tar(dict(pairs)))[1] == MODULE


def test_links_and_folders_do_not_stand_in_for_a_module(oci):
    """A folder of that name is nothing, a link beside the module neither; a link in its place is refused."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, link in (("plugin.wasm", tarfile.DIRTYPE, ""), ("latest.wasm", tarfile.SYMTYPE, "guard.wasm"),
                                 ("hard.wasm", tarfile.LNKTYPE, "guard.wasm")):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, link
            archive.addfile(entry)
        entry = tarfile.TarInfo("guard.wasm")
        entry.size = len(MODULE)
        archive.addfile(entry, io.BytesIO(MODULE))
    assert unpacked(buffer.getvalue())[1] == MODULE
    refused(oci.tar({"guard.wasm": MODULE}, links=[("plugin.wasm", "guard.wasm")]), "'plugin.wasm'.*is a link")
    refused(oci.tar({"a.wasm": MODULE, "b.wasm": OTHER}, links=[("c.wasm", "a.wasm")]), "several modules.*a.wasm")


def test_a_tar_of_before_ustar_is_a_tar(oci):
    """It has no magic, and folders that are files by their type."""
    blocks = bytearray(oci.tar({"folder/": b"", "plugin.wasm": MODULE}, gzipped=False))
    for start in (0, 512):
        blocks[start + 257 : start + 265] = bytes(8)
        blocks[start + 156] = 0
        total = sum(blocks[start : start + 148]) + 8 * 32 + sum(blocks[start + 156 : start + 512])
        blocks[start + 148 : start + 156] = f"{total:06o}\0 ".encode()
    assert unpacked(bytes(blocks))[1] == MODULE


def test_a_description_is_read_from_beside_the_module(oci):
    """Before it, behind it, in its folder; not from another one."""
    for files in ({"guard/plugin.yaml": b"name: right", "guard/plugin.wasm": MODULE, "plugin.yaml": b"name: wrong"},
                  {"plugin.wasm": MODULE, "plugin.yaml": b"name: right", "x/plugin.yaml": b"name: wrong"}):  # fmt: skip
        assert unpacked(oci.tar(files))[0].description.name == "right"


def test_layers_lie_over_each_other(oci):
    """From the last to the first: what a later one replaced or removed is not there."""
    plugin, readme = oci.tar({"plugin.wasm": MODULE}), oci.tar({"README.md": b"x"})
    other = oci.tar({"app/other.wasm": OTHER})
    assert unpacked(readme, plugin, layout="image")[1] == MODULE
    assert unpacked(plugin, oci.tar({"plugin.wasm": OTHER}))[1] == MODULE
    assert unpacked(other, plugin)[1] == MODULE
    assert unpacked(oci.tar({".wh.plugin.wasm": b""}), plugin, other)[1] == OTHER
    assert unpacked(oci.tar({".wh.app": b""}), other, oci.tar({"a.wasm": MODULE}))[1] == MODULE
    assert unpacked(oci.tar({"app/.wh..wh..opq": b"", "app/new.wasm": MODULE}), other)[1] == MODULE
    assert unpacked(oci.tar({"app": b"a file by now"}), other, oci.tar({"a.wasm": MODULE}))[1] == MODULE
    assert unpacked(b"# a README", readme, MODULE)[1] == MODULE
    with pytest.raises(VerifyError, match=r"holds no plugin\.wasm"):
        unpacked(oci.tar({".wh..wh..opq": b""}), plugin)
    with pytest.raises(VerifyError, match=r"none of its 2 layers holds a module.*layer 0 begins with 23"):
        unpacked(b"# one", b"# two")


def test_layers_share_one_budget(oci):
    """Many small bombs are one."""
    layers = [oci.tar({f"{number}.txt": bytes(30_000)}) for number in range(3)]
    with pytest.raises(VerifyError, match="more than the 65536 bytes"):
        unpacked(*layers, oci.tar({"plugin.wasm": MODULE}))
    layers = [oci.tar({f"{number}{letter}.txt": b"" for letter in "abcdefgh"}) for number in range(3)]
    with pytest.raises(VerifyError, match="more than 20 files"):
        unpacked(*layers, oci.tar({"plugin.wasm": MODULE}))


def zipped():
    """A zip with the module in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("plugin.wasm", MODULE)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("zstd", lambda data: b"\x28\xb5\x2f\xfd" + data),
        ("zstd", lambda data: b"\x50\x2a\x4d\x18\0\0\0\0" + data),
        ("xz", lzma.compress),
        ("lzma", lambda data: lzma.compress(data, lzma.FORMAT_ALONE)),
        ("bzip2", bz2.compress),
        ("lz4", lambda data: b"\x04\x22\x4d\x18" + data),
        ("compress", lambda data: b"\x1f\x9d\x90" + data),
        ("zip", lambda _: zipped()),
    ],
)
def test_a_compression_that_is_not_read_is_named(oci, name, pack):
    """Whatever it was called; and what to do."""
    archive = oci.tar({"plugin.wasm": MODULE}, gzipped=False)
    refused(pack(archive), f"compressed with {name}, and Hookline reads gzip")
    refused(oci.tar({"plugin.wasm": pack(MODULE)}), f"compressed with {name}")


def test_a_gzipped_module_is_told_from_a_tar():
    """It is neither the module nor a tar.gz."""
    refused(gzip.compress(MODULE), "module in gzip without a tar")


@pytest.mark.parametrize(
    ("media_type", "name"),
    [
        ("application/vnd.oci.image.layer.v1.tar+zstd", "zstd"), (TAR + "+ZSTD", "zstd"), (TAR + "+xz", "xz"),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", "zstd"), (TAR + "+bzip2", "bzip2"),
    ],
)  # fmt: skip
def test_a_compression_is_named_by_its_type_before_it_is_fetched(media_type, name):
    """Nobody downloads what cannot be read."""
    layer = {"mediaType": media_type, "digest": "sha256:" + "0" * 64, "size": 1}
    (found,), _ = module_layers(read_manifest(json.dumps({"layers": [layer]}).encode()))
    with pytest.raises(VerifyError, match=f"compressed with {name}"):
        check_compression(found)


def test_what_is_no_text_is_no_annotation():
    """It would be kept for as long as the layer is downloaded. A platform that is none is nobody's."""
    described = {"mediaType": "application/wasm", "digest": f"sha256:{0:064}", "size": 1}
    manifest = read_manifest(json.dumps({
        "layers": [{**described, "annotations": {"a": "b", "junk": [1]}, "platform": {"os": ["wasi"]}}],
        "annotations": {"c": "d", "junk": {}},
    }).encode())  # fmt: skip
    (layer,) = manifest.layers
    assert (layer.annotations, manifest.annotations) == ({"a": "b"}, {"c": "d"})
    assert layer.platform == {"os": None}
    assert not layer.is_wasm
