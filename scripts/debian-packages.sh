#!/bin/sh
# Installs the real parts that the tests use, on Debian and Ubuntu. Elsewhere, or without the rights to, the tests
# that need a part are skipped and the closing line names it; under CI they fail.
# debian-packages.sh [PACKAGE …]: these alone, instead of all. With --missing it names what it would install.
set -eu
. "$(dirname "$0")/packages.sh"
. "$(dirname "$0")/unchanged.sh"
guests=$here/../examples/build.py
parts="$here/packages.sh $guests $here/../cli/hookline_cli/authoring/toolchains.py $(command -v "$python" || true)"
# shellcheck disable=SC2086 # a list of files
case "$*" in "" | --missing) ! unchanged packages $parts || exit 0 ;; esac

need docker-registry docker-registry --version
need nginx-light nginx -v
need caddy caddy version
need curl curl --version
need git git --version
need lua5.1 lua5.1 -v
need postgresql has_postgresql
need redis-server redis-server --version
need "rustc libstd-rust-dev-wasm32 lld" "$python" "$guests" --check --only rust
need "cargo rustc libstd-rust-dev-wasm32 lld librust-serde-dev librust-serde-derive-dev librust-serde-json-dev" has_crates
need "$("$python" -c 'import sys; print("python%d.%d-dev" % sys.version_info[:2])')" has_headers
install_missing "$@"
# Unpacked, not installed.
[ "$*" = "" ] || exit 0
sh "$(dirname "$0")/promtool.sh" >/dev/null || exit 0
# shellcheck disable=SC2086 # a list of files
[ "$missing" != "" ] || note packages $parts
