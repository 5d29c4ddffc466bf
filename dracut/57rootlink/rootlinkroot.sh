#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Started by settled.sh, and by /sbin/netroot as the handler of netroot=rootlink: attaches, in the
# background, so that dracut goes on bringing interfaces up while rootlink tries again.
# /run/rootlink/attached ends the initqueue; /run/rootlink/failed asks settled.sh for a shell.

command -v getarg >/dev/null || . /lib/dracut-lib.sh

mkdir -p /run/rootlink
[ -e /run/rootlink/attached ] && exit 0
# One at a time: making a directory succeeds once.
mkdir /run/rootlink/attaching 2>/dev/null || exit 0

attach() {
  modprobe nbd
  if rootlink attach; then
    mount_as_planned
    : >/run/rootlink/attached
  else
    : >/run/rootlink/failed
  fi
  rmdir /run/rootlink/attaching
}

# The lease may have named the file system and its options: systemd hears of them now.
mount_as_planned() {
  [ -n "$DRACUT_SYSTEMD" ] || return 0
  plan=$(rootlink plan --format shell) || return 0
  eval "$plan"
  [ -n "$ROOTLINK_FSTYPE$ROOTLINK_FLAGS" ] || return 0
  mkdir -p /run/systemd/system/sysroot.mount.d
  {
    echo '[Mount]'
    [ -z "$ROOTLINK_FSTYPE" ] || echo "Type=$ROOTLINK_FSTYPE"
    [ -z "$ROOTLINK_FLAGS" ] || echo "Options=$ROOTLINK_FLAGS"
  } >/run/systemd/system/sysroot.mount.d/rootlink.conf
  systemctl daemon-reload
}

attach &
