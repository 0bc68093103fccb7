#!/bin/sh
# Installs the real parts that the tests use, on Debian and Ubuntu. Elsewhere, or without the rights to, the tests
# that need a part are skipped and the closing line names it; under CI they fail.
# debian-packages.sh [PACKAGE …]: these alone, instead of all. With --missing it names what it would install.
set -eu
. "$(dirname "$0")/packages.sh"

need docker-registry docker-registry --version
need nginx-light nginx -v
need caddy caddy version
need curl curl --version
need git git --version
need lua5.1 lua5.1 -v
need "rustc libstd-rust-dev-wasm32 lld" "$python" "$(dirname "$0")/../examples/build.py" --check --only rust
need "cargo rustc libstd-rust-dev-wasm32 lld librust-serde-dev librust-serde-derive-dev librust-serde-json-dev" has_crates
need "$("$python" -c 'import sys; print("python%d.%d-dev" % sys.version_info[:2])')" has_headers
install_missing "$@"
# Unpacked, not installed.
[ "$*" != "" ] || sh "$(dirname "$0")/promtool.sh" >/dev/null || true
