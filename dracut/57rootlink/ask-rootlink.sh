#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sourced by dracut while it reads the command line, and by /sbin/netroot again with a lease: asks
# rootlink whether the root is on a network block device, and tells dracut in its own words.
# shellcheck disable=SC2034,SC2154 # root, rootok, netroot, fstype, rflags, hookdir are dracut's.

# dracut's words for "the lease decides", which may name a root that is not ours. settled.sh and
# /sbin/netroot come back here when there is a lease.
if [ -z "$new_root_path" ]; then
  for _rootlink_word in root=dhcp root=dhcp6 netroot=dhcp netroot=dhcp6; do
    getarg "$_rootlink_word" >/dev/null || continue
    mkdir -p /run/rootlink
    : >/run/rootlink/lease-decides
    echo rd.neednet=1 >/etc/cmdline.d/57-rootlink.conf
    return 0
  done
  unset _rootlink_word
fi

_rootlink_lease=--without-lease
[ -z "$new_root_path" ] || _rootlink_lease=
# shellcheck disable=SC2086 # One word or none.
_rootlink_plan=$(rootlink plan --format shell $_rootlink_lease) ||
  die "rootlink cannot use the boot parameters; the line above says why"
eval "$_rootlink_plan"
unset _rootlink_plan _rootlink_lease

if [ "${ROOTLINK_TARGETS:-0}" != 0 ]; then
  if [ -e "$hookdir/cmdline/90-parse-nbdroot.sh" ]; then
    echo "<4>rootlink: attaches the root device; dracut's nbd module stands aside" >/dev/kmsg
  fi
  # dracut's nbd parser leaves a netroot= alone that is not its own, and /sbin/netroot looks for
  # a handler of this name.
  netroot=rootlink
  rootok=1
  case "$ROOTLINK_ROOT" in
    /dev/*) root=block:$ROOTLINK_ROOT ;;
    ?*) root=block:$(label_uuid_to_dev "$ROOTLINK_ROOT") ;;
  esac
  [ -z "$ROOTLINK_FSTYPE" ] || fstype=$ROOTLINK_FSTYPE
  [ -z "$ROOTLINK_FLAGS" ] || rflags=$ROOTLINK_FLAGS${rflags:+,$rflags}

  mkdir -p /run/rootlink "$hookdir/initqueue/finished"
  echo '[ -e /run/rootlink/attached ]' >"$hookdir/initqueue/finished/rootlink.sh"
  if [ "$ROOTLINK_NETWORK" = yes ]; then
    echo rd.neednet=1 >/etc/cmdline.d/57-rootlink.conf
  else
    : >/run/rootlink/online
  fi
fi
