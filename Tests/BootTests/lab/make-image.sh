#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The guest's disk: a raw image with an ext4 root, made without mounting anything. Prints its path.
# It is shared by all tests: copy it (cp --sparse=always) before a guest writes to it.
#
# Usage: make-image.sh [plain|partitioned]
#
# Both file systems have the UUID and the label below; in `partitioned` it is partition 1 of a GPT.
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

layout="${1:-plain}"
case "$layout" in plain | partitioned) ;; *) fail "usage: make-image.sh [plain|partitioned]" ;; esac
need_root
need mkfs.ext4 sfdisk flock

uuid=6b1d3c5e-8f0a-4c2d-9e7b-1a2b3c4d5e6f label=rootlink-root
byte_count=$((512 * 1024 * 1024))
offset=$((1024 * 1024)) # Of the partition, and as much is left free at the end for the second table.

# What an administrator of such a machine would have done, and nothing that helps to boot.
configure() {
  root="$1"
  echo diskless >"$root/etc/hostname"
  printf '127.0.0.1 localhost\n127.0.1.1 diskless\n' >"$root/etc/hosts"
  echo "UUID=$uuid / ext4 errors=remount-ro 0 1" >"$root/etc/fstab"
  rm -f "$root/etc/machine-id" "$root/etc/resolv.conf"
  echo 00112233445566778899aabbccddeeff >"$root/etc/machine-id"
  # Three network managers, all off: a test turns one on with systemd.wants= on the kernel line.
  printf 'auto lo\niface lo inet loopback\n' >"$root/etc/network/interfaces"
  printf '[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/20-dhcp.network"
  systemctl --root "$root" --quiet disable NetworkManager NetworkManager-wait-online \
    NetworkManager-dispatcher ModemManager wpa_supplicant 2>/dev/null || true
  # Time that no test needs.
  systemctl --root "$root" --quiet mask getty@tty1 serial-getty@ttyS0 apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap fstrim.timer
  touch "$root/etc/.updated" "$root/var/.updated"
  install -D -m 755 "$lab/guest/boot-check" "$root/usr/local/sbin/boot-check"
  install -m 755 "$lab/guest/power-off" "$root/usr/local/sbin/power-off"
  install -D -m 644 "$lab/guest/boot-check.service" "$root/etc/systemd/system/boot-check.service"
  systemctl --root "$root" --quiet enable boot-check
}

# Copied, not linked: files are written in place here.
build() {
  root="$1/root"
  cp -a --reflink=auto "$guest" "$root"
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/locale/* "${root:?}"/dev/*
  configure "$root"
  say "making the guest's disk ($layout)"
  case "$layout" in
    plain)
      truncate -s "$byte_count" "$1/result"
      mkfs.ext4 -q -U "$uuid" -L "$label" -d "$root" "$1/result"
      ;;
    partitioned)
      truncate -s $((byte_count + 2 * offset)) "$1/result"
      echo "label: gpt
start=2048, size=$((byte_count / 512)), type=L" | sfdisk --quiet "$1/result"
      mkfs.ext4 -q -U "$uuid" -L "$label" -E offset="$offset" -d "$root" "$1/result" \
        $((byte_count / 1024))k
      ;;
  esac
}

guest=$("$lab/build-root.sh" guest)
key=$({ cat "$0" "$lab"/guest/*; echo "$guest"; } | digest)
made "$cache/images/$layout-$key" build
echo "$cache/images/$layout-$key"
