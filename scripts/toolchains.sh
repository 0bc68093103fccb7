#!/bin/sh
# Go and Node.js from their wheels, where the machine has none that work, or older ones: toolchains.sh FOLDER LOCK
# With --check in front it installs nothing, and ends with 1 where it would.
# The oldest Go is Kubernetes' own, see testbed/cluster/go. Each is run: a node without its npm builds nothing.
set -eu
check=""
if [ "$1" = --check ]; then check=1; shift; fi

enough() {
  npm --version >/dev/null 2>&1 || return 1
  major=$(node --version 2>/dev/null | sed -n 's/^v\([0-9]*\)\..*/\1/p')
  [ -n "$major" ] && [ "$major" -ge 20 ] || return 1
  minor=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
  [ -n "$minor" ] && [ "$minor" -ge 26 ]
}
PATH="$1/bin:$PATH" # as the Makefile has it
. "$(dirname "$0")/unchanged.sh"
for program in go node npm; do set -- "$@" "$(command -v $program || true)"; done
if unchanged toolchains "$@"; then exit 0; fi
if { [ ! -e "$1/.made" ] || [ "$1/.made" -nt "$2" ]; } && enough; then
  [ "$check" ] || note toolchains "$@"
  exit 0
fi
[ -z "$check" ] || exit 1
sh "$(dirname "$0")/environment.sh" "$1" "$2"
touch "$1/.made"
