#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sourced each time udev has settled: starts the attach once a network is up. The systemd-networkd
# module of dracut 059 tells nobody that it is, so networkd is asked.
# shellcheck disable=SC2154 # netroot is dracut's.

if [ "$netroot" = rootlink ] && ! [ -e /run/rootlink/attached ]; then
  _wait_online=/usr/lib/systemd/systemd-networkd-wait-online
  [ -x "$_wait_online" ] || _wait_online=/lib/systemd/systemd-networkd-wait-online
  if ! [ -e /run/rootlink/online ] && [ -x "$_wait_online" ]; then
    "$_wait_online" --any --operational-state=routable --timeout=1 --quiet 2>/dev/null &&
      : >/run/rootlink/online
  fi
  unset _wait_online
  [ -e /run/rootlink/online ] && /sbin/rootlinkroot
  if [ -e /run/rootlink/failed ]; then
    rm -f /run/rootlink/failed
    emergency_shell "rootlink attached no root device; the lines above say why"
  fi
fi
