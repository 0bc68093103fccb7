#!/bin/sh
# A virtual environment with locked packages: environment.sh FOLDER LOCK [editable]
# It is made anew where it is of another interpreter than PYTHON, or of one that is gone. Where Debian or Ubuntu lack
# the venv module, it is installed (as root or with sudo), or named.
set -eu
folder=$1 lock=$2 editable=${3:-}
python=${PYTHON:-python3}

which_is() { "$1" -c 'import sys; print(sys.version.split()[0], sys.base_prefix)' 2>/dev/null; }
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
if ! new_enough "$python"; then
  for other in python3.14 python3.13 python3.12 python3.11 /usr/bin/python3 /usr/local/bin/python3 \
    "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[1-9].*/bin/python; do
    if new_enough "$other"; then break; fi
    other=python3.12
  done
  is=$("$python" --version 2>&1 | head -n 1)
  case "$is" in "Python "*) ;; *) is="not there, or does not run" ;; esac
  echo "Hookline needs Python 3.11 or newer; '$python' is $is. Try: make PYTHON=$other" >&2
  exit 1
fi
if ! lacks=$("$python" -c 'import ctypes, ssl, zlib' 2>&1); then
  echo "'$python' was built without a part that Hookline needs ($(echo "$lacks" | tail -n 1)). Name another: make PYTHON=/usr/bin/python3" >&2
  exit 1
fi
if [ "$(which_is "$folder/bin/python")" != "$(which_is "$python")" ] || [ ! -x "$folder/bin/pip" ]; then
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$("$python" -c 'import sys; print(sys.base_prefix)')" != /usr ] || ! command -v apt-get >/dev/null 2>&1; then
      echo "'$python' lacks the modules venv and ensurepip. Install them, or name another: make PYTHON=/usr/bin/python3" >&2
      exit 1
    fi
    sudo=""; [ "$(id -u)" = 0 ] || sudo=sudo
    echo "installing python$version-venv …"
    if ! { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "python$version-venv"; } >/dev/null; then
      echo "Python's venv module is missing, and installing it failed. Try, as root: apt-get install python$version-venv" >&2
      exit 1
    fi
  fi
  if [ -x "$folder/bin/python" ]; then
    echo "the environment $folder was of Python $(which_is "$folder/bin/python" || echo "that is gone")"
  fi
  echo "making the environment $folder with Python $(which_is "$python") …"
  rm -rf "$folder"
  "$python" -m venv "$folder"
  which_is "$python" >"$folder/.python" # as the Makefile writes it
fi
echo "installing the packages of $lock (a minute, where none is cached) …"
# A lock names everything. To pip a package with an extra is another one, and would have to be locked twice.
"$folder/bin/python" -m pip install --quiet --require-hashes --no-deps -r "$lock"
if [ -n "$editable" ]; then
  "$folder/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
  "$folder/bin/python" -m hookline_runtime.guest.accelerator
fi
