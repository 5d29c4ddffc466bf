#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Started by settled.sh, and by /sbin/netroot as the handler of netroot=rootlink: attaches, in the
# background, so that dracut goes on bringing interfaces up while rootlink tries again.
# /run/rootlink/attached ends the initqueue; /run/rootlink/failed asks settled.sh for a shell.

command -v getarg >/dev/null || . /lib/dracut-lib.sh

mkdir -p /run/rootlink
[ -e /run/rootlink/attached ] && exit 0
# One at a time: with noclobber, a file is made once.
(set -C && : >/run/rootlink/attaching) 2>/dev/null || exit 0

attach() {
  modprobe nbd
  if rootlink attach; then
    mount_as_planned
    need_shutdown # The image comes back when the root is to be unmounted, if the root has it.
    : >/run/rootlink/attached
  else
    : >/run/rootlink/failed
  fi
  rm -f /run/rootlink/attaching
}

# The lease may have named the root, its file system or its options: systemd hears of them now.
mount_as_planned() {
  [ -n "$DRACUT_SYSTEMD" ] || return 0
  for generator in /usr/lib/systemd/system-generators /lib/systemd/system-generators; do
    generator=$generator/dracut-rootlink-generator
    [ -x "$generator" ] || continue
    "$generator" lease /run/systemd/system /run/systemd/system
    systemctl daemon-reload
    if getarg root=dhcp >/dev/null || getarg root=dhcp6 >/dev/null; then
      # Without waiting: the mount comes after the initqueue, which waits for this script.
      systemctl --no-block start sysroot.mount
    fi
    return
  done
}

attach &
