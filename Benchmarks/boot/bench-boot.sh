#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Our initramfs-tools hook beside Debian's nbd-client hook: the same guest, kernel, server and disk,
# in alternating rounds, and what each hook adds to an initramfs.
#
# Usage: bench-boot.sh [ROUNDS]      (default 5; `make bench-boot` builds the programs first)
#
# Times, each the median of the rounds:
#   run-init to mounted  the guest kernel's clock, from "Run /init" to "(nbd0): mounted filesystem"
#   lease to attached    this machine's clock, from ipconfig's last line of the lease to the kernel's
#                        "nbd0: detected capacity change" on the console
#   attach               rootlink's own figure; nbd-client has none
# Sizes: files that are in the image with a hook and not, or not of that size, in the image with no
# hook; kernel modules aside. Compressed: one cpio archive of those files by zstd -9, as
# mkinitramfs does it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
rounds="${1:-5}"
series=6.1
# shellcheck source=common.sh
. "$here/common.sh"
for hook in none rootlink nbd-client; do
  "$lab/make-initramfs.sh" --kernel "$series" --hook "$hook" >"$work/$hook.path"
done

# --- sizes
for hook in none rootlink nbd-client; do
  mkdir "$work/$hook"
  zstd -qdc "$(cat "$work/$hook.path")" | (cd "$work/$hook" && cpio --quiet -id)
  (cd "$work/$hook" && find . -type f ! -path '*/lib/modules/*' -printf '%P %s\n' | sort) >"$work/$hook.files"
done
for hook in rootlink nbd-client; do
  echo "The $hook hook adds to an initramfs (Linux $version, kernel modules aside), bytes:"
  comm -13 "$work/none.files" "$work/$hook.files" | sort -k2,2nr >"$work/$hook.added"
  awk '{ printf "%12d  %s\n", $2, $1 }' "$work/$hook.added"
  raw=$(awk '{ sum += $2 } END { print sum + 0 }' "$work/$hook.added")
  compressed=$(cd "$work/$hook" && cut -d ' ' -f 1 "$work/$hook.added" | cpio --quiet -o -H newc | zstd -q -9 | wc -c)
  echo "$raw" >"$work/$hook.raw"
  echo "$compressed" >"$work/$hook.compressed"
  printf '%12d  raw, altogether\n%12d  compressed\n\n' "$raw" "$compressed"
done

# --- times
serve

# One boot: a line `run-init-to-mounted lease-to-attached own-attach` in seconds.
boot() {
  guest "$1"
  awk "$kernel_clock"'
    /Run \/init/ { init = kernel($0) }
    / filename  :/ { lease = $1 }
    /nbd0: detected capacity change/ && !attached { attached = $1 }
    /\(nbd0\): mounted filesystem/ { mounted = kernel($0) }
    /rootlink: .*attach [0-9]+ ms/ { match($0, /attach [0-9]+ ms/); own = substr($0, RSTART + 7, RLENGTH - 10) / 1000 }
    END {
      if (!init || !lease || !attached || !mounted) exit 1
      printf "%.3f %.3f %s\n", mounted - init, attached - lease, own == "" ? "-" : own
    }' "$work/console" || not_mounted "$1"
}

echo "Linux $version under TCG, $rounds rounds, seconds (run-init to mounted, lease to attached, attach):"
race rootlink nbd-client

row() { # row DESCRIPTION OURS THEIRS
  awk -v d="$1" -v a="$2" -v b="$3" 'BEGIN {
    printf "%-40s %12s %12s %9s\n", d, a, b, (b == "-" || a == "-" || a + 0 == 0) ? "-" : sprintf("%.3f", a / b) }'
}
echo
printf '%-40s %12s %12s %9s\n' "median" rootlink nbd-client ratio
row "run-init to mounted, s" "$(median rootlink 1)" "$(median nbd-client 1)"
row "lease to attached, s" "$(median rootlink 2)" "$(median nbd-client 2)"
row "attach by rootlink's own clock, s" "$(median rootlink 3)" -
row "added to the initramfs, bytes" "$(cat "$work/rootlink.raw")" "$(cat "$work/nbd-client.raw")"
row "added, compressed, bytes" "$(cat "$work/rootlink.compressed")" "$(cat "$work/nbd-client.compressed")"
