"""Packages as HeliosDB's tool makes and signs them: ``helios-plugin pack --wasm W --sig S``.

Its source says what goes where: `pack` and `write_tar_entry` in cli/src/artefact.rs, and the fields in
cli/src/manifest.rs of https://github.com/HeliosDatabase/HeliosDB-Proxy-Plugins . The tar is the same byte for byte
(Rust's tar 0.4, ``Header::new_gnu``). The gzip stream around it is zlib's, not miniz_oxide's: it unpacks to the same.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib


def signature(key, module):
    """A ``.sig`` file: the base64 of a signature over the module's bytes, without a line feed."""
    return base64.b64encode(key.sign(module))


def public_key(key):
    """A ``.pub`` file: 32 bytes in base64."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def manifest(module, sig=None, *, name="guard", version="1.2.3", hooks=("pre_query",)):
    """``manifest.json`` as serde_json writes it."""
    fields = {
        "schema_version": "1.0",
        "name": name,
        "version": version,
        "description": "",
        "license": "Apache-2.0",
        "hooks": list(hooks),
        "wasm_sha256": hashlib.sha256(module).hexdigest(),
        "signature_sha256": None if sig is None else hashlib.sha256(sig).hexdigest(),
        "signature_algorithm": None if sig is None else "ed25519",
        "packed_at": "2026-04-25T12:00:00Z",
    }
    return json.dumps(fields, indent=2, ensure_ascii=False).encode()


def pack(module, sig=None, **fields):
    """The package of a module and the text of its ``.sig`` file."""
    entries = [("manifest.json", manifest(module, sig, **fields)), ("plugin.wasm", module)]
    if sig is not None:
        entries.append(("plugin.sig", sig))
    return gzip(tar(entries))


def tar(entries):
    """An archive of pairs of name and bytes."""
    return b"".join(_header(name, len(data)) + data + bytes(-len(data) % 512) for name, data in entries) + bytes(1024)


def gzip(data):
    """With the header that flate2 writes: no name, no time, an unknown system."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(data) + packer.flush()
    trailer = zlib.crc32(data).to_bytes(4, "little") + (len(data) & 0xFFFFFFFF).to_bytes(4, "little")
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + packed + trailer


def _header(name, size):
    header = bytearray(512)
    header[: len(name)] = name.encode()
    header[100:108] = b"0000644\0"
    header[124:136] = b"%011o\0" % size
    header[136:148] = b"00000000000\0"
    header[257:265] = b"ustar  \0"
    header[148:156] = b" " * 8
    header[148:156] = b"%07o\0" % sum(header)
    return bytes(header)
