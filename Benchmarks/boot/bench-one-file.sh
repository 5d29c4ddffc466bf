#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The one-file initramfs beside Debian's own ways to the same root: sizes, and the time from the
# kernel's "Run /init" to the mounted root, DHCP included, in alternating rounds.
#
# Usage: bench-one-file.sh [ROUNDS]      (default 5; `make bench-boot` builds the programs first)
set -eu
here=$(cd "$(dirname "$0")" && pwd)
lab="$here/../../Tests/BootTests/lab"
repository=$(cd "$here/../.." && pwd)
rounds="${1:-5}"
series=6.12
work=$(mktemp -d)
server=
cleanup() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
export LC_ALL=C

image=$("$lab/make-image.sh" plain)
line=$("$lab/fetch-kernels.sh" "$series")
kernel="${line#* }/boot/vmlinuz-${line%% *}"
"$lab/make-one-file.sh" "$series" >"$work/one-file.path"
"$lab/make-initramfs.sh" --kernel "$series" --hook nbd-client >"$work/nbd-client.path"
"$lab/make-initramfs.sh" --kernel "$series" --hook rootlink >"$work/hook.path"
"$lab/make-initramfs.sh" --kernel "$series" --generator dracut --hook rootlink >"$work/dracut.path"

# --- sizes: all with gzip -9, whatever they were made with
echo "Initramfs for Linux ${line%% *} and the same guest, gzip -9, bytes:"
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
for port in $(seq 10809 10899); do
  (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
done
"$repository/out/rootlinkd" serve --export "root=$image,overlay" --listen "tcp:127.0.0.1:$port" \
  >"$work/server.log" 2>&1 &
server=$!
until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
  kill -0 "$server" 2>/dev/null || { cat "$work/server.log" >&2; exit 1; }
  sleep 0.05
done

# One boot: seconds from "Run /init" to the mounted root, by the guest kernel's clock.
boot() {
  timeout --kill-after=5 300 "$lab/boot.sh" --kernel "$kernel" --initramfs "$(cat "$work/$1.path")" \
    --append "ip=dhcp root=/dev/nbd0 nbdroot=10.0.2.2:$port/root init=/usr/local/sbin/power-off" 2>&1 |
    tr -d '\r' >"$work/console"
  awk '
    function kernel(line) { match(line, /\[ *[0-9.]+\]/); return substr(line, RSTART + 1, RLENGTH - 2) + 0 }
    /Run \/init/ { init = kernel($0) }
    /\(nbd0\): mounted filesystem/ && !mounted { mounted = kernel($0) }
    END { if (!init || !mounted) exit 1; printf "%.3f\n", mounted - init }' "$work/console" ||
    { tail -n 30 "$work/console" >&2; echo "the $1 guest did not mount its root" >&2; exit 1; }
}
echo "From \"Run /init\" to the mounted root, under TCG, $rounds rounds, seconds:"
for round in $(seq "$rounds"); do
  if [ $((round % 2)) = 1 ]; then order="one-file nbd-client"; else order="nbd-client one-file"; fi
  for name in $order; do
    figure=$(boot "$name")
    echo "$figure" >>"$work/$name.times"
    printf '  round %d  %-10s  %s\n' "$round" "$name" "$figure"
  done
done
median() {
  sort -n "$work/$1.times" |
    awk '{ v[NR] = $1 } END { printf "%.3f", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
awk -v a="$(median one-file)" -v b="$(median nbd-client)" \
  'BEGIN { printf "  median   one-file %s, initramfs-tools with nbd-client %s: 1/%.1f\n", a, b, b / a }'
