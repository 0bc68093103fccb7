"""Any bytes, any members and any damage are a module or an error, within bounds."""

from __future__ import annotations

import gzip
import io
import tarfile

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from archives import FUZZ, LIMITS, MODULE, NOTHING, OTHER, unpacked
from hookline_artifacts.errors import VerifyError
from hookline_artifacts.module.reader import COMPONENT_HEADER


def bounded(*layers):
    """Looking gives a module or a component within the caps, or VerifyError."""
    try:
        found, module = unpacked(*layers)
    except VerifyError:
        return
    assert found.size == len(module) <= LIMITS.module
    assert module[:8] in {MODULE[:8], COMPONENT_HEADER}


member_names = st.sampled_from(
    ["plugin.wasm", "./plugin.wasm", "a/plugin.wasm", "other.wasm", "._plugin.wasm", ".wh.plugin.wasm", ".wh.a",
     "a/.wh..wh..opq", "plugin.yaml", "a/manifest.json", "README.md", "__MACOSX/plugin.wasm", "../x.wasm", "a"]
) | st.text(max_size=8)  # fmt: skip
members = st.tuples(member_names, st.sampled_from(b"0\x001235xgLK"), st.sampled_from([MODULE, OTHER, b"", b"{}"]))


def tar_of(entries):
    """A tar of (name, kind, data), in whatever order and however often."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, data in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size = bytes([kind]), len(data)
            buffer.write(entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
            buffer.write(data + bytes(-len(data) % 512))
        archive.offset = buffer.tell()
    return buffer.getvalue()


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(members, max_size=6), min_size=1, max_size=3))
def test_any_layers_are_a_module_or_a_verify_error(layers):
    """Of any members, some of them odd."""
    bounded(*map(tar_of, layers))


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from([*NOTHING, "README", "x/other.wasm", "z.wasm", "plugin.yaml", "manifest.json"])),
    st.integers(0, 8),
    st.booleans(),
)
def test_plugin_wasm_is_found_among_any_others(names, place, gzipped):
    """In any order."""
    entries = [(name, 0x30, OTHER if name.endswith(".wasm") else b"{}") for name in dict.fromkeys(names)][:15]
    entries.insert(place, ("plugin.wasm", 0x30, MODULE))
    data = tar_of(entries)
    assert unpacked(gzip.compress(data, 1) if gzipped else data)[1] == MODULE


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(COMPONENT_HEADER)
@given(st.binary(max_size=2000))
def test_any_bytes_are_a_module_or_a_verify_error(data):
    """As they are, behind a gzip magic, and gzipped."""
    for form in (data, b"\x1f\x8b\x08" + data, gzip.compress(data, 1)):
        bounded(form)


@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
