#!/bin/sh
# Installs the real parts that the tests use, on Debian and Ubuntu. Elsewhere, or without the rights to, the tests
# that need a part are skipped and the closing line names it; under CI they fail.
# debian-packages.sh [PACKAGE …]: these alone, instead of all.
set -eu

missing=""
only=" $* "
need() { # PACKAGE PROGRAM-OR-FILE
  case "$only" in "  " | *" $1 "*) ;; *) return 0 ;; esac
  command -v "$2" >/dev/null 2>&1 || [ -e "$2" ] || [ -e "/usr/sbin/$2" ] || missing="$missing $1"
}
need docker-registry docker-registry
need nginx-light nginx
need caddy caddy
need libstd-rust-dev-wasm32 /usr/lib/rustlib/wasm32-unknown-unknown
need rustc /usr/bin/rustc

[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null 2>&1 || exit 0
sudo=""
if [ "$(id -u)" != 0 ]; then
  sudo="sudo -n"
  $sudo true 2>/dev/null || { echo "not installed, for lack of rights:$missing" >&2; exit 0; }
fi
echo "installing$missing …"
# Installed for the tests to start by themselves, not as services of this machine.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  printf '#!/bin/sh\nexit 101\n' | $sudo tee /usr/sbin/policy-rc.d >/dev/null
  $sudo chmod 755 /usr/sbin/policy-rc.d
  trap '$sudo rm -f /usr/sbin/policy-rc.d' EXIT
fi
$sudo apt-get update -qq >/dev/null
# shellcheck disable=SC2086 # a list of packages
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
