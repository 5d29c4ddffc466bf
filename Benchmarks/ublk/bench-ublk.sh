#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# 4 KiB random reads at queue depth 32 in one guest: a ublk device, whose data a process of ours
# carries, beside the kernel's own nbd driver, both from one nbdkit on the host. They take turns;
# the medians and their ratio are printed.
#
# Usage: bench-ublk.sh [ROUNDS [SECONDS]]      (default: 5 rounds of 5 s for each)
set -eu

rounds="${1:-5}" seconds="${2:-5}"
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
export PATH="$PATH:/usr/sbin:/sbin"
work=$(mktemp -d)
server=
# shellcheck disable=SC2317 # Called by the trap.
clean() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap clean EXIT

fail() {
  echo "bench-ublk.sh: $*" >&2
  exit 1
}
for tool in fio nbdkit qemu-system-x86_64; do
  command -v "$tool" >/dev/null || fail "$tool is missing; install what Tests/debian-packages.txt lists"
done
[ -x "$top/out/rootlink" ] || fail "there is no out/rootlink; run make"

nbdkit --foreground --exit-with-parent --ipaddr=127.0.0.1 --port=0 --pidfile="$work/pid" \
  memory 256M >"$work/nbdkit.log" 2>&1 &
server=$!
while [ ! -s "$work/pid" ]; do
  kill -0 "$server" 2>/dev/null || fail "nbdkit did not start: $(cat "$work/nbdkit.log")"
  sleep 0.1
done
# Which port it was given is in the kernel's table of listeners, under the socket's inode.
inode=$(find "/proc/$server/fd" -lname 'socket:*' -printf '%l\n' | tr -dc '0-9\n' | while read -r number; do
  awk -v n="$number" '$10 == n && $4 == "0A" { print $2 }' /proc/net/tcp
done | head -n 1)
port=$((0x${inode#*:}))

cat >"$work/scenario" <<EOF
mkdir -p /dev/shm
measure() {
  fio --name=x --thread --filename=\$1 --direct=1 --rw=randread --bs=4k --iodepth=32 \
    --ioengine=io_uring --time_based --runtime=$seconds --minimal 2>/dev/null | cut -d';' -f8
}
rootlink attach nbd://10.0.2.2:$port/ --device /dev/nbd0 --once || exit
rootlink attach nbd://10.0.2.2:$port/ --device /dev/ublkb0 --once || exit
for device in nbd0 ublkb0; do
  echo none >/sys/block/\$device/queue/scheduler
  dd if=/dev/zero of=/dev/\$device bs=1M count=256 2>/dev/null
done
round=0
while [ \$round -lt $rounds ]; do
  echo "bench nbd \$(measure /dev/nbd0)"
  echo "bench ublk \$(measure /dev/ublkb0)"
  round=\$((round + 1))
done
rootlink detach ublkb0
rootlink detach nbd0
EOF
kernel=$("$top/Tests/BootTests/lab/fetch-kernels.sh" 6.12)
version="${kernel%% *}" tree="${kernel#* }"
"$top/Tests/BootTests/tiny/build-initramfs.sh" \
  "$tree" "$version" "$top/out/rootlink" "$work/scenario" "$work/initramfs" fio
timeout $((rounds * seconds * 4 + 180)) qemu-system-x86_64 -accel tcg,thread=multi -cpu qemu64 -smp 1 \
  -m 1024 -nographic -no-reboot -kernel "$tree/boot/vmlinuz-$version" -initrd "$work/initramfs" \
  -append "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off" -netdev user,id=n \
  -device virtio-net-pci,netdev=n,romfile= </dev/null | tr -d '\r' >"$work/console"
grep '^bench ' "$work/console" || fail "the guest measured nothing: $(tail -n 20 "$work/console")"

median() {
  sed -n "s/^bench $1 \([0-9]*\)\$/\1/p" "$work/console" | sort -n | awk '{ v[NR] = $1 }
    END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
nbd=$(median nbd) ublk=$(median ublk)
awk -v n="$nbd" -v u="$ublk" 'BEGIN {
  printf "4 KiB random read, queue depth 32: nbd %d, ublk %d reads a second; ublk/nbd %.2f\n", n, u, u / n
}'
