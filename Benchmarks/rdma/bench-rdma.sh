#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rootlinkd beside Linux's own rnbd-server, and rootlink with ublk beside Linux's rnbd-client, in two
# guests on one wire with soft-RoCE: the same RAM disk, and Linux's own on the other side, in turns.
# 128 KiB reads and writes with 16 in flight, and, in three times as many turns, 4 KiB reads and writes
# one at a time; the medians and their ratios are printed.
#
# Usage: bench-rdma.sh [ROUNDS [SECONDS]]      (default: 5 rounds of 4 s for each kind)
set -eu

rounds="${1:-5}" seconds="${2:-4}"
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
export PATH="$PATH:/usr/sbin:/sbin"
work=$(mktemp -d)
pids=
# shellcheck disable=SC2317 # Called by the trap.
clean() {
  for pid in $pids; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap clean EXIT

fail() {
  echo "bench-rdma.sh: $*" >&2
  exit 1
}
for tool in fio qemu-system-x86_64 rdma; do
  command -v "$tool" >/dev/null || fail "$tool is missing; install what Tests/debian-packages.txt lists"
done
for program in rootlinkd rootlink-rdma; do
  [ -x "$top/out/$program" ] || fail "there is no out/$program; run make all rdma"
done

lab="$top/Tests/BootTests"
kernel=$("$lab/lab/fetch-kernels.sh" 6.12)
version="${kernel%% *}" tree="${kernel#* }"
modules=$("$lab/rdma/build-modules.sh" "$version")
"$lab/rdma/build-initramfs.sh" "$tree" "$version" "$modules" "$work/initramfs" \
  "rootlinkd=$top/out/rootlinkd" "rootlink=$top/out/rootlink-rdma" fio

# guest NUMBER NETDEV: its console is in the file `console-NUMBER`, orders go to fifo `orders-NUMBER`.
guest() {
  mkfifo "$work/orders-$1.in" "$work/orders-$1.out"
  qemu-system-x86_64 -accel tcg,thread=multi -cpu qemu64 -m 768 -nographic -no-reboot \
    -serial mon:stdio -chardev "pipe,id=orders,path=$work/orders-$1" -serial chardev:orders \
    -kernel "$tree/boot/vmlinuz-$version" -initrd "$work/initramfs" \
    -append "console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check mitigations=off guest=$1" \
    -netdev "stream,id=n,$2,addr.type=unix,addr.path=$work/wire" \
    -device "virtio-net-pci,netdev=n,romfile=,mac=52:54:00:00:00:0$1" \
    </dev/null >"$work/console-$1" 2>&1 &
  pids="$pids $!"
}
# shown NUMBER TEXT SECONDS: waits for a text on a console.
shown() {
  tries=$(($3 * 5))
  until grep -qa "$2" "$work/console-$1"; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || fail "guest $1 did not come to '$2': $(tail -n 20 "$work/console-$1")"
    sleep 0.2
  done
}
count=0
# order NUMBER COMMAND: has a guest do it; what that printed is in the file `output`.
order() {
  count=$((count + 1))
  echo "$count $2" >"$work/orders-$1.in"
  shown "$1" "@end $count " 600
  tr -d '\r' <"$work/console-$1" | sed -n "/@begin $count\$/,/@end $count /p" | grep -av "@begin\|@end" >"$work/output" || true
}

guest 1 server=on
while [ ! -S "$work/wire" ]; do sleep 0.1; done
guest 2 server=off
shown 1 @ready 180
shown 2 @ready 180
# What holds the fifos open: without a writer QEMU would see their end.
exec 3>"$work/orders-1.in" 4>"$work/orders-2.in"

order 1 "modprobe brd rd_nr=1 rd_size=131072"
order 1 "dd if=/dev/zero of=/dev/ram0 bs=1M 2>/dev/null; modprobe rnbd_server dev_search_path=/"
order 1 "rootlinkd serve --export disk=/dev/ram0,direct --listen rdma:0.0.0.0:1235 >/tmp/log 2>&1 & until_true 60 rootlinkd status"
order 2 "modprobe rnbd_client; modprobe ublk_drv; ping -c 1 10.9.0.1 >/dev/null"
cat >"$work/measure" <<'END'
measure() { fio --name=x --thread --filename=$1 --direct=1 --rw=$2 --bs=$3 --iodepth=$4 --ioengine=libaio --time_based --runtime=SECONDS --size=100% --minimal 2>/dev/null | cut -d';' -f7,8,48,49; }
END
order 2 "$(sed "s/SECONDS/$seconds/" "$work/measure")"
order 2 "mkdir -p /dev/shm"

# A device may be open for writing once only: each maps it for its turn.
# turn kernel|server|client KIND...: which of them is ours, and what is measured.
turn() {
  side=$1
  shift
  case $side in
    kernel) order 2 "map 10.9.0.1 /dev/ram0 $side && disk=\$(device /dev/ram0 $side)" ;;
    server) order 2 "map 10.9.0.1 disk $side dest_port=1235 && disk=\$(device disk $side)" ;;
    client) order 2 "rootlink attach --once --cmdline 'ibnbd-root=sessname=$side,path=ip:10.9.0.1,device_path=/dev/ram0' 2>&1 && disk=/dev/ublkb0" ;;
  esac
  for kind; do
    order 2 "echo bench $side $kind \$(measure \$disk $kind)"
    grep -a '^bench' "$work/output" | tee -a "$work/results"
  done
  case $side in
    client) order 2 "rootlink detach \$disk" ;;
    *) order 2 "unmap \$disk" ;;
  esac
}
round=0
while [ $round -lt "$rounds" ]; do
  for side in kernel server client; do turn $side "read 128k 16" "write 128k 16"; done
  # One at a time: how long the host lets a guest wait counts for more, so these take more turns.
  for _ in 1 2 3; do
    for side in kernel server client; do turn $side "randread 4k 1" "randwrite 4k 1"; done
  done
  round=$((round + 1))
done
order 1 "poweroff -f &"
order 2 "poweroff -f &"

# Fields of fio's terse output: 7 and 48 are KiB a second, 8 and 49 requests a second.
# median SIDE KIND BLOCK FIELD
median() {
  grep "^bench $1 $2 $3 " "$work/results" | awk -v f="$4" '{ split($6, v, ";"); print v[f] }' | sort -n |
    awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
# compare SIDE NAME_OF_LINUX'S NAME_OF_OURS LEAST_THROUGHPUT LATENCY_LIMIT
compare() {
  for kind in "read 128k 1" "write 128k 3"; do
    # shellcheck disable=SC2086 # Words.
    set -- "$1" "$2" "$3" "$4" "$5" $kind
    awk -v k="$(median kernel "$6" "$7" "$8")" -v o="$(median "$1" "$6" "$7" "$8")" -v n="$6" -v l="$2" -v u="$3" -v m="$4" 'BEGIN {
      printf "%s, 128 KiB, 16 in flight: %s %.1f, %s %.1f MiB/s; ratio %.2f (at least %s)\n", n, l, k / 1024, u, o / 1024, o / k, m }'
  done
  for kind in "randread 4k 2" "randwrite 4k 4"; do
    # shellcheck disable=SC2086
    set -- "$1" "$2" "$3" "$4" "$5" $kind
    awk -v k="$(median kernel "$6" "$7" "$8")" -v o="$(median "$1" "$6" "$7" "$8")" -v n="$6" -v l="$2" -v u="$3" -v m="$5" 'BEGIN {
      printf "%s, 4 KiB, one at a time: %s %.2f, %s %.2f ms; ratio %.2f (%s)\n", n, l, 1000 / k, u, 1000 / o, k / o, m }'
  done
}
compare server rnbd-server rootlinkd 0.8 "at most 1.25"
compare client rnbd-client rootlink 0.7 "no limit"
