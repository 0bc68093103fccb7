"""Archives with and without a module, unpacked within small limits."""

from __future__ import annotations

import io
import os

from hookline_artifacts.limits import FetchLimits
from hookline_artifacts.package.search import Search

MODULE = b"\0asm\x01\0\0\0" + b"\0\x02\x01x"
OTHER = MODULE + b"\0\x02\x01y"
FUZZ = max(100, int(os.environ.get("HOOKLINE_FUZZ", "0")) // 10)
LIMITS = FetchLimits(module=4096, unpacked=65_536, entries=20)


def unpacked(*layers, layout="raw", limits=LIMITS):
    """What was found in a file, or in layers from the last to the first; and the module's bytes."""
    out, search = io.BytesIO(), Search(limits=limits)
    for number, layer in enumerate(layers):
        if search.look(io.BytesIO(layer), shown=f"layer {number}" if len(layers) > 1 else ""):
            break
    found = search.take(out, layout=layout)
    return found, out.getvalue()


TAR = "application/vnd.oci.image.layer.v1.tar"


NOTHING = {
    "._plugin.wasm": b"\0\x05\x16\x07", "__MACOSX/plugin.wasm": b"x", "__MACOSX/._plugin.wasm": b"x",
    "PaxHeader/plugin.wasm": b"x", "PaxHeaders.7/plugin.wasm": b"x", "./._other.wasm": b"x", "._./plugin.wasm": b"x",
    ".wh.old.wasm": b"",
}  # fmt: skip
