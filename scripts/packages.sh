# Read by debian-packages.sh and cluster-packages.sh: need, and install_missing. A program that is found in PATH may not
# work (too old, half removed, a stub): so whatever is needed is run.
# shellcheck shell=sh
python=${PYTHON:-python3}
missing=""
only=" $* "
[ "$only" != " --missing " ] || only="  " # all, and name them alone
# Debian keeps servers in a folder that only root has in its PATH.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

need() { # "PACKAGE …" COMMAND…: the packages are missing where the command does not end with 0
  packages=$1; shift
  for package in $packages; do
    case "$only" in "  " | *" $package "*) ;; *) return 0 ;; esac
  done
  "$@" >/dev/null 2>&1 </dev/null && return 0
  for package in $packages; do
    case "$missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac
  done
}

has_headers() { # of the interpreter: the accelerator is compiled against them. Only Debian's own has a package of them.
  "$python" - <<'END'
import pathlib, sys, sysconfig
headers = pathlib.Path(sysconfig.get_path("include"), "Python.h")
sys.exit(not headers.is_file() and sys.base_prefix == "/usr")
END
}

has_postgresql() { # Debian keeps its programs in a folder for each version
  for file in /usr/lib/postgresql/*/bin/initdb; do
    "$file" --version && return 0
  done
  return 1
}

has_crates() { # and Debian's own compiler for them: the guard that stands for HeliosDB's plugins is built of these
  for file in /usr/bin/cargo /usr/bin/rustc /usr/bin/rust-lld /usr/lib/rustlib/wasm32-unknown-unknown/lib \
    /usr/share/cargo/registry/serde_json-* /usr/share/cargo/registry/serde_derive-*; do
    [ -e "$file" ] || return 1
  done
}

install_missing() {
  [ -n "$missing" ] || return 0
  if [ "$*" = --missing ]; then echo "$missing"; return 0; fi
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "not installed, for there is no apt-get here:$missing (the names are Debian's)" >&2
    return 0
  fi
  sudo=""
  if [ "$(id -u)" != 0 ]; then
    sudo="sudo -n"
    $sudo true 2>/dev/null || { echo "not installed, for lack of rights. As root: apt-get install$missing" >&2; return 0; }
  fi
  echo "installing$missing …"
  # Installed for the tests to start by themselves, not as services of this machine.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' | $sudo tee /usr/sbin/policy-rc.d >/dev/null
    $sudo chmod 755 /usr/sbin/policy-rc.d
    trap '$sudo rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  said=$(mktemp)
  # shellcheck disable=SC2086 # a list of packages
  if ! { $sudo apt-get update -qq &&
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$said" 2>&1; then
    tail -n 20 "$said" >&2
    rm -f "$said"
    echo "installing failed; what apt-get said is above. By hand: apt-get install$missing" >&2
    [ -z "${CI:-}" ]; return # nothing is skipped there, and so it ends here
  fi
  rm -f "$said"
}
