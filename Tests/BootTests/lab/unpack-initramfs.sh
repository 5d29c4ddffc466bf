#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a dracut image leaves behind when it is unpacked for the shutdown stage, as a tar archive;
# kernel modules and firmware are left out. Prints its path.
#
# Usage: unpack-initramfs.sh INITRAMFS
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
[ -f "${1:-}" ] || fail "usage: unpack-initramfs.sh INITRAMFS"
need_root
need cpio zstd tar

build() {
  mkdir "$2/tree"
  (cd "$2/tree" && zstd -qdc "$1" | cpio --quiet -idm --no-absolute-filenames)
  rm -rf "$2"/tree/usr/lib/modules "$2"/tree/lib/modules "$2"/tree/usr/lib/firmware "$2"/tree/dev
  tar -C "$2/tree" -cf "$2/result" .
}

key=$({ cat "$0"; basename "$1"; } | digest)
made "$cache/initramfs/unpacked-$key" build "$1"
echo "$cache/initramfs/unpacked-$key"
