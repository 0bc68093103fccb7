"""Signs the plugin.wasm of packed.tar.gz without a key, as ``cosign sign-blob --bundle`` does (cosign v3.1).

Usage: ``python make_keyless.py COSIGN3``, with Node.js and ``npm ci`` in tests/support/sigstore. It writes
keyless-plugin.wasm.sigstore.json and trusted_root.json beside this file. The authority is thrown away.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SERVICES = HERE.parents[2] / "support" / "sigstore"


def main() -> None:
    """Make both."""
    sys.path.insert(0, str(SERVICES))
    from make_material import _token

    with tempfile.TemporaryDirectory() as folder, tarfile.open(HERE / "packed.tar.gz") as archive:
        (Path(folder) / "plugin.wasm").write_bytes(archive.extractfile("plugin.wasm").read())
        server = subprocess.Popen(
            ["node", str(SERVICES / "server.mjs"), folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        server.stdout.readline()
        try:
            subprocess.run(
                [
                    sys.argv[1], "sign-blob", "--yes", "--signing-config=signing_1.json",
                    "--trusted-root=trusted_root.json", f"--identity-token={_token()}",
                    "--bundle=keyless-plugin.wasm.sigstore.json", "plugin.wasm",
                ],
                check=True, cwd=folder, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        finally:
            server.stdin.close()
            server.wait()
        for name in ("keyless-plugin.wasm.sigstore.json", "trusted_root.json"):
            shutil.copy(Path(folder) / name, HERE)
            (HERE / name).chmod(0o644)


if __name__ == "__main__":
    main()
