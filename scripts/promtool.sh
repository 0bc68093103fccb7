#!/bin/sh
# Prints the path of promtool, which tests the chart's alerts: that of PATH, or of Debian's package prometheus, unpacked into
# ~/.cache/hookline and not installed, for that would start a Prometheus on this machine. 1, with a sentence, where there is none.
set -eu
if found=$(command -v promtool); then
  echo "$found"
  exit 0
fi
folder=${XDG_CACHE_HOME:-$HOME/.cache}/hookline/promtool
if "$folder/promtool" --version >/dev/null 2>&1; then
  echo "$folder/promtool"
  exit 0
fi
no() {
  echo "there is no promtool here, and $1 (Debian has it in the package prometheus)" >&2
  exit 1
}
command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 || no "no apt-get to get it with"
mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
if ! apt-get download -qq prometheus >said 2>&1; then
  # Images of Debian come without lists of packages.
  sudo=""
  [ "$(id -u)" = 0 ] || sudo="sudo -n"
  $sudo apt-get update -qq >said 2>&1 && apt-get download -qq prometheus >said 2>&1 || no "apt-get download said: $(tail -n 1 said)"
fi
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xO ./usr/bin/promtool >promtool
chmod 755 promtool
./promtool --version >/dev/null 2>&1 || no "the one of the package does not run"
# Two that do this at once both end with a whole one.
mv promtool "$folder/.promtool.$$"
mv "$folder/.promtool.$$" "$folder/promtool"
echo "$folder/promtool"
