#!/bin/sh
# Writes requirements/*.txt: versions and hashes, for every platform, and no address of any registry.
set -eu
uv=$1
compile() {
  out=$1; shift
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-annotate --no-strip-extras --custom-compile-command "make lock" --output-file "requirements/$out" pyproject.toml "$@"
}
compile dev.txt --extra sidecar --extra query --extra operator --extra cli --extra keyless --group dev
compile demo.txt --extra sidecar --group build --group guests --constraint requirements/dev.txt
# What the images hold: each part with what it needs to run, in the versions that the tests ran with.
compile sidecar.txt --extra sidecar --extra query --extra cli --extra keyless --constraint requirements/dev.txt
compile operator.txt --extra operator --extra keyless --constraint requirements/dev.txt
group() {
  group=$1; shift
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
    --custom-compile-command "make lock" --output-file "requirements/$group.txt" --group "pyproject.toml:$group" "$@"
}
group build --constraint requirements/dev.txt
group fuzz --constraint requirements/dev.txt
group envoy
group toolchains
group peers --constraint requirements/dev.txt
