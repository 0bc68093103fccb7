#!/bin/sh
# Writes requirements/*.txt: versions and hashes, for every platform, and no address of any registry.
set -eu
uv=$1
compile() {
  out=$1; shift
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-annotate --custom-compile-command "make lock" --output-file "requirements/$out" pyproject.toml "$@"
}
compile dev.txt --extra sidecar --group dev
compile demo.txt --extra sidecar --group build --group guests --constraint requirements/dev.txt
for group in envoy toolchains; do
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
    --custom-compile-command "make lock" --output-file "requirements/$group.txt" --group "pyproject.toml:$group"
done
