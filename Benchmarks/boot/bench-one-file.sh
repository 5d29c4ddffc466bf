#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The one-file initramfs beside Debian's own ways to the same root: sizes, and the time from the
# kernel's "Run /init" to the mounted root, DHCP included, in alternating rounds.
#
# Usage: bench-one-file.sh [ROUNDS]      (default 5; `make bench-boot` builds the programs first)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
rounds="${1:-5}"
series=6.12
# shellcheck source=common.sh
. "$here/common.sh"
"$lab/make-one-file.sh" "$series" >"$work/one-file.path"
"$lab/make-initramfs.sh" --kernel "$series" --hook nbd-client >"$work/nbd-client.path"
"$lab/make-initramfs.sh" --kernel "$series" --hook rootlink >"$work/hook.path"
"$lab/make-initramfs.sh" --kernel "$series" --generator dracut --hook rootlink >"$work/dracut.path"

# --- sizes: all with gzip -9, whatever they were made with
echo "Initramfs for Linux $version and the same guest, gzip -9, bytes:"
stat -c %s "$(cat "$work/one-file.path")" >"$work/one-file.size"
for name in hook dracut; do
  zstd -qdc "$(cat "$work/$name.path")" | gzip -9 | wc -c >"$work/$name.size"
done
printf '%12d  rootlink-mkinitramfs: virtio_net, nbd, ext4\n' "$(cat "$work/one-file.size")"
printf '%12d  initramfs-tools with our hook\n' "$(cat "$work/hook.size")"
printf '%12d  dracut with our module\n' "$(cat "$work/dracut.size")"
awk -v a="$(cat "$work/one-file.size")" -v b="$(sort -n "$work/hook.size" "$work/dracut.size" | head -n 1)" \
  'BEGIN { printf "%12s  of the smaller one\n\n", sprintf("1/%.1f", b / a) }'

# --- times
serve

# One boot: seconds from "Run /init" to the mounted root, by the guest kernel's clock.
boot() {
  guest "$1"
  awk "$kernel_clock"'
    /Run \/init/ { init = kernel($0) }
    /\(nbd0\): mounted filesystem/ && !mounted { mounted = kernel($0) }
    END { if (!init || !mounted) exit 1; printf "%.3f\n", mounted - init }' "$work/console" || not_mounted "$1"
}
echo "From \"Run /init\" to the mounted root, under TCG, $rounds rounds, seconds:"
race one-file nbd-client
awk -v a="$(median one-file 1)" -v b="$(median nbd-client 1)" \
  'BEGIN { printf "  median   one-file %s, initramfs-tools with nbd-client %s: 1/%.1f\n", a, b, b / a }'
