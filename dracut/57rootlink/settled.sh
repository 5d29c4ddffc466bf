#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sourced each time udev has settled: starts the attach once a network is up. The systemd-networkd
# module of dracut 059 tells nobody that it is, so networkd is asked.
# shellcheck disable=SC2034,SC2154 # netroot and hookdir are dracut's; new_root_path is read below.

if [ -d /run/rootlink ] && ! [ -e /run/rootlink/attached ]; then
  if ! [ -e /run/rootlink/online ]; then
    for _wait_online in /usr/lib/systemd/systemd-networkd-wait-online \
      /lib/systemd/systemd-networkd-wait-online; do
      [ -x "$_wait_online" ] || continue
      "$_wait_online" --any --operational-state=routable --timeout=1 --quiet 2>/dev/null &&
        : >/run/rootlink/online
      break
    done
    unset _wait_online
  fi

  if [ -e /run/rootlink/online ] && [ -e /run/rootlink/lease-decides ]; then
    rm -f /run/rootlink/lease-decides
    new_root_path=lease
    . "$hookdir/cmdline/90-ask-rootlink.sh"
    unset new_root_path
    [ "$netroot" = rootlink ] && rm -f "$hookdir/initqueue/finished/dhcp.sh"
  fi

  if [ -e /run/rootlink/online ] && [ "$netroot" = rootlink ]; then
    /sbin/rootlinkroot
  fi
  if [ -e /run/rootlink/failed ]; then
    rm -f /run/rootlink/failed
    emergency_shell "rootlink attached no root device; the lines above say why"
  fi
fi
