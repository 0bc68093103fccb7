#!/bin/sh
# Go and Node.js from their wheels, where the machine has none, or a Go before 1.26: toolchains.sh FOLDER LOCK
set -eu

enough() {
  command -v npm >/dev/null 2>&1 || return 1
  version=$(go env GOVERSION 2>/dev/null) || return 1
  minor=$(printf '%s' "$version" | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
  [ -n "$minor" ] && [ "$minor" -ge 26 ]
}
enough || sh "$(dirname "$0")/environment.sh" "$1" "$2"
