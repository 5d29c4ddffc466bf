#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Adds to an initramfs-tools image a script that takes /dev/nbd0 before the root is attached, for
# another export than the root's. Prints the path of the new image.
#
# Usage: occupy-device.sh INITRAMFS
#
# The kernel unpacks several archives one after the other; the later one wins.
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
[ -f "${1:-}" ] || fail "usage: occupy-device.sh INITRAMFS"
need cpio

build() {
  top="$2/tree/scripts/local-top"
  mkdir -p "$top"
  cat >"$top/occupy" <<'END'
#!/bin/sh
. /scripts/functions
configure_networking
modprobe nbd
rootlink attach nbd://10.0.2.2:10810/root --device /dev/nbd0
END
  chmod 755 "$top/occupy"
  for script in occupy rootlink; do
    echo "/scripts/local-top/$script \"\$@\""
    echo '[ -e /conf/param.conf ] && . /conf/param.conf'
  done >"$top/ORDER"
  cp "$1" "$2/result"
  # Archives begin at multiples of four bytes.
  truncate -s %4 "$2/result"
  (cd "$2/tree" && find . | cpio --quiet -o -H newc) >>"$2/result"
}

key=$({ cat "$0"; basename "$1"; } | digest)
made "$cache/initramfs/occupied-$key" build "$1"
echo "$cache/initramfs/occupied-$key"
