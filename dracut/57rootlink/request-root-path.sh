#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# systemd-networkd asks for a root path only when told to, and does nothing without ip=.
# systemd-network-generator has run by now.

if [ -d /run/rootlink ] && [ -e /etc/systemd/system/systemd-network-generator.service.d ]; then
  mkdir -p /run/systemd/network
  _network=
  for _network in /run/systemd/network/*.network; do
    [ -e "$_network" ] || continue
    mkdir -p "$_network.d"
    printf '[DHCPv4]\nRequestOptions=17 26\n' >"$_network.d/rootlink.conf"
  done
  # dracut's default for a network root without ip= is DHCP on what has a cable.
  if ! [ -e "$_network" ]; then
    {
      printf '[Match]\nType=ether\n\n[Network]\nDHCP=yes\n\n'
      printf '[DHCPv4]\nClientIdentifier=mac\nRequestOptions=17 26\n'
    } >/run/systemd/network/zz-rootlink.network
  fi
  unset _network
fi
