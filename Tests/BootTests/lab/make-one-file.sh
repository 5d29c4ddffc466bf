#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes the one-file initramfs for a stock kernel and QEMU's cards, and prints its path.
#
# Usage: make-one-file.sh [6.1|6.12]
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
for program in rootlink rootlink-mkinitramfs; do
  [ -x "$repository/out/$program" ] || fail "out/$program is not there; run make first"
done
line=$("$lab/fetch-kernels.sh" "${1:-6.12}")
version="${line%% *}" kernel="${line#* }"

build() {
  set -- "$1/result" --kernel "$version" --root "$kernel" --strip --on-demand ext4 --module virtio_net
  # Built in from 6.12 on.
  grep -q '/virtio_pci.ko' "$kernel/lib/modules/$version/modules.builtin" || set -- "$@" --module virtio_pci
  output="$1"
  shift
  "$repository/out/rootlink-mkinitramfs" --init "$repository/out/rootlink" --output "$output" "$@" >&2
}

key=$({
  cat "$0"
  echo "$version"
  cat "$repository/out/rootlink" "$repository/out/rootlink-mkinitramfs" | sha256sum
} | digest)
made "$cache/initramfs/one-file-$version-$key" build
echo "$cache/initramfs/one-file-$version-$key"
