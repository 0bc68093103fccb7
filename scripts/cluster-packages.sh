#!/bin/sh
# Installs what a Kubernetes node of one machine consists of besides Kubernetes itself, on Debian and Ubuntu:
# containerd, runc, CNI plugins, iptables; and what builds its images without Docker. Elsewhere, or without the rights
# to, `make e2e` says what is missing, and uses a cluster of yours.
set -eu
. "$(dirname "$0")/packages.sh"

need containerd containerd --version
need containerd ctr --version
need runc runc --version
need containernetworking-plugins test -x /usr/lib/cni/bridge -a -x /usr/lib/cni/ptp -a -x /usr/lib/cni/portmap
need iptables iptables --version
need iptables iptables-save --version
need iproute2 ip -V
need util-linux nsenter --version
need util-linux unshare --version
need mount mount --version
need mount umount --version
need busybox-static busybox true # the pods of the tests
need ca-certificates test -s /etc/ssl/certs/ca-certificates.crt
need docker-registry docker-registry --version
if ! docker info >/dev/null 2>&1; then
  need buildah buildah --version
  need mmdebstrap mmdebstrap --version
  need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg
fi
install_missing "$@"
