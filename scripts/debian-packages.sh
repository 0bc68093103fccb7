#!/bin/sh
# The real parts that the tests use, on Debian and Ubuntu; elsewhere, or without the rights, the tests say what is missing.
set -eu
wanted="docker-registry nginx-light rustc libstd-rust-dev-wasm32 golang-go nodejs npm"
