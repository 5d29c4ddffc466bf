#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tells systemd what to mount as the root when root= is not a device that it knows itself.
#
# The mount unit goes to the directory of the lowest priority, what it must say into a drop-in of the
# highest: the generator of dracut's nbd module writes a unit of the same name.

# rootlinkroot starts it again, with `lease` and two directories, when there is a lease.
if [ "$1" = lease ]; then
  drop_in=60-rootlink-lease.conf
  plan=$(rootlink plan --format shell) || exit 0
else
  drop_in=50-rootlink.conf
  # "The lease decides" may mean a root that is not ours.
  command -v getarg >/dev/null || . /lib/dracut-lib.sh
  for word in root=dhcp root=dhcp6; do getarg "$word" >/dev/null && exit 0; done
  plan=$(rootlink plan --format shell --without-lease 2>/dev/null) || exit 0
fi
eval "$plan"
[ "${ROOTLINK_TARGETS:-0}" = 0 ] && exit 0
# UUID= and its like systemd-fstab-generator knows, with rootfstype= and rootflags=.
case "$ROOTLINK_ROOT" in /dev/*) ;; *) exit 0 ;; esac

early=$2
late=$3
case "$ROOTLINK_READONLY" in n) mode=rw ;; *) mode=ro ;; esac

mkdir -p "$early/sysroot.mount.d" "$late/initrd-root-fs.target.requires"
{
  echo '[Unit]'
  echo 'Documentation=man:rootlink-cmdline(7)'
  echo 'Before=initrd-root-fs.target'
  echo '[Mount]'
  echo 'Where=/sysroot'
  echo "What=$ROOTLINK_ROOT"
} >"$late/sysroot.mount"
ln -sf ../sysroot.mount "$late/initrd-root-fs.target.requires/sysroot.mount"
{
  echo '[Mount]'
  echo "What=$ROOTLINK_ROOT"
  [ -z "$ROOTLINK_FSTYPE" ] || echo "Type=$ROOTLINK_FSTYPE"
  echo "Options=${ROOTLINK_FLAGS:+$ROOTLINK_FLAGS,}$mode"
} >"$early/sysroot.mount.d/$drop_in"

# rootlink has a deadline of its own, rootlink.timeout=; systemd need not have a second.
device=$(systemd-escape --path --suffix=device "$ROOTLINK_ROOT")
mkdir -p "$late/$device.d"
printf '[Unit]\nJobTimeoutSec=0\nJobRunningTimeoutSec=0\n' >"$late/$device.d/50-rootlink.conf"
