"""``extism_calls.py MODULE TIMEOUT``: one hook through Extism's Python SDK, timed as often as it is asked.

The first line of standard input is the hook's input, in hexadecimal; it is answered with what the guest answers, in
the same way. Each further line is a number of calls, answered with the microseconds of processor time of one.
TIMEOUT is milliseconds, 0 for none.
"""

from __future__ import annotations

import sys
import time

import extism  # type: ignore[import-not-found, unused-ignore]  # in the peers' environment


def main() -> None:
    """Answer until standard input ends."""
    manifest: dict[str, object] = {"wasm": [{"path": sys.argv[1]}]}
    if int(sys.argv[2]):
        manifest["timeout_ms"] = int(sys.argv[2])
    data = bytes.fromhex(sys.stdin.readline())
    plugin = extism.Plugin(manifest)
    print(bytes(plugin.call("route", data)).hex(), flush=True)
    for line in sys.stdin:
        begin = time.process_time()
        for _ in range(int(line)):
            plugin.call("route", data)
        print((time.process_time() - begin) / int(line) * 1e6, flush=True)


if __name__ == "__main__":
    main()
