#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Debian 12 roots, made with mmdebstrap and kept in the cache under a key of what went into them.
# Prints the directory.
#
# Usage: build-root.sh guest    what a guest boots: stock systemd, three network managers, nothing of ours
#        build-root.sh builder  where initramfs images are made: initramfs-tools, dracut, and nbd-client
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

kind="${1:-}"
case "$kind" in
  guest)
    packages="systemd-sysv udev kmod dbus iproute2 ifupdown isc-dhcp-client e2fsprogs netbase"
    packages="$packages network-manager"
    ;;
  builder)
    # The package dracut conflicts with initramfs-tools; dracut-core, which does the work, does not.
    packages="initramfs-tools busybox klibc-utils zstd kmod udev systemd-sysv dbus e2fsprogs"
    packages="$packages iproute2 cpio nbd-client dracut-core dracut-network isc-dhcp-client"
    packages="$packages network-manager procps iputils-arping"
    ;;
  *) fail "usage: build-root.sh guest|builder" ;;
esac
need_root
need mmdebstrap apt-cache flock

build() {
  say "making the $kind root (about half a minute)"
  # shellcheck disable=SC2086 # The list is words.
  mmdebstrap --quiet --mode=root --variant=apt --format=directory \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
    --include="$(echo $packages | tr ' ' ,)" \
    bookworm "$1/result" >&2
  chmod 755 "$1/result"
}

# `recipe` is raised when what stands above makes another root of the same packages.
recipe=1
key=$({ echo "$recipe $packages"; package_versions libc6 "$packages"; } | digest)
made "$cache/roots/$kind-$key" build
echo "$cache/roots/$kind-$key"
