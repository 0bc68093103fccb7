#!/bin/sh
# A virtual environment with locked packages: environment.sh FOLDER LOCK [editable]
# Where Debian or Ubuntu lack the venv module, it is installed (as root or with sudo), or named.
set -eu
folder=$1 lock=$2 editable=${3:-}
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "Hookline needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1). Try: make PYTHON=python3.12" >&2
  exit 1
fi
if [ ! -x "$folder/bin/pip" ]; then
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    sudo=""; [ "$(id -u)" = 0 ] || sudo=sudo
    echo "installing python$version-venv …"
    if ! { $sudo apt-get update -qq && $sudo apt-get install -y -qq "python$version-venv"; } >/dev/null; then
      echo "Python's venv module is missing, and installing it failed. Try: apt-get install python3-venv" >&2
      exit 1
    fi
  fi
  echo "making the environment $folder …"
  rm -rf "$folder"
  "$python" -m venv "$folder"
fi
echo "installing the packages of $lock …"
"$folder/bin/python" -m pip install --quiet --require-hashes -r "$lock"
if [ -n "$editable" ]; then
  "$folder/bin/python" -m pip install --quiet --no-deps --no-build-isolation --editable .
  "$folder/bin/python" -m hookline_runtime.accelerator
fi
