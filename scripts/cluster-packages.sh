#!/bin/sh
# Installs what a Kubernetes node of one machine consists of besides Kubernetes itself, on Debian and Ubuntu:
# containerd, runc, CNI plugins, iptables. Elsewhere, or without the rights to, `make e2e` says what is missing, and uses a
# cluster of yours.
set -eu

missing=""
need() { # PACKAGE PROGRAM-OR-FILE
  command -v "$2" >/dev/null 2>&1 || [ -e "$2" ] || [ -e "/usr/sbin/$2" ] || missing="$missing $1"
}
need containerd containerd
need runc runc
need containernetworking-plugins /usr/lib/cni/bridge
need iptables iptables
need iproute2 ip
need util-linux nsenter
need mount mount
need busybox-static busybox # the pods of the tests

[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null 2>&1 || exit 0
sudo=""
if [ "$(id -u)" != 0 ]; then
  sudo="sudo -n"
  $sudo true 2>/dev/null || { echo "not installed, for lack of rights:$missing" >&2; exit 0; }
fi
echo "installing$missing …"
# The cluster starts its own containerd beside any other; a service of this machine is not wanted.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  printf '#!/bin/sh\nexit 101\n' | $sudo tee /usr/sbin/policy-rc.d >/dev/null
  $sudo chmod 755 /usr/sbin/policy-rc.d
  trap '$sudo rm -f /usr/sbin/policy-rc.d' EXIT
fi
$sudo apt-get update -qq >/dev/null
# shellcheck disable=SC2086 # a list of packages
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
