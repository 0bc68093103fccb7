#!/bin/sh
# What `make check` runs, on two cores: lint and then fast tests on one, the fast tests of the runtime on the other. Tests
# of random inputs try few of them: `make test` tries more, `make fuzz` many. check.sh PYTHON
set -eu
python=$1
fast() { HOOKLINE_FUZZ=100 "$python" -m pytest -q -m fast --hypothesis-profile=brief -p no:cacheprovider "$@"; }

said=$(mktemp)
other=
trap '[ -z "$other" ] || kill "$other" 2>/dev/null; rm -f "$said"' EXIT
fast tests/runtime >"$said" 2>&1 &
other=$!
make --no-print-directory lint
status=0
fast tests --ignore=tests/runtime --ignore=tests/e2e || status=$?
wait "$other" || status=$?
other=
cat "$said"
exit "$status"
