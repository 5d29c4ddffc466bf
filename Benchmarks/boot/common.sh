# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2034,SC2154
# What the benchmarks of boots share: a directory to work in, a disk that our server offers, boots of it,
# medians. To be read with `.`, after `set -eu`, with `rounds` and `series` set.
lab="$here/../../Tests/BootTests/lab"
repository=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
server=
cleanup() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM
export LC_ALL=C

[ -x "$repository/out/rootlinkd" ] || { echo "out/rootlinkd is not there; run make bench-boot" >&2; exit 1; }
image=$("$lab/make-image.sh" plain)
line=$("$lab/fetch-kernels.sh" "$series")
version="${line%% *}"
kernel="${line#* }/boot/vmlinuz-$version"

# Offers the image on the free port `port`.
serve() {
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
}

# guest NAME: boots the initramfs whose path is in NAME.path; each line of its console with this
# machine's time before it, in `console`.
guest() {
  timeout --kill-after=5 300 "$lab/boot.sh" --kernel "$kernel" --initramfs "$(cat "$work/$1.path")" \
    --append "ip=dhcp root=/dev/nbd0 nbdroot=10.0.2.2:$port/root init=/usr/local/sbin/power-off" 2>&1 |
    while IFS= read -r text; do printf '%s %s\n' "$EPOCHREALTIME" "$text"; done |
    tr -d '\r' >"$work/console"
}
# Of awk: the guest kernel's clock in a line of its log.
kernel_clock='function kernel(line) { match(line, /\[ *[0-9.]+\]/); return substr(line, RSTART + 1, RLENGTH - 2) + 0 }'
not_mounted() {
  tail -n 30 "$work/console" >&2
  echo "the $1 guest did not mount its root" >&2
  exit 1
}

# race FIRST SECOND: boots both in every round, and who goes first alternates. `boot NAME` prints the
# figures of one boot; they are kept in NAME.times.
race() {
  for round in $(seq "$rounds"); do
    if [ $((round % 2)) = 1 ]; then order="$1 $2"; else order="$2 $1"; fi
    for name in $order; do
      figures=$(boot "$name")
      echo "$figures" >>"$work/$name.times"
      printf '  round %d  %-10s  %s\n' "$round" "$name" "$figures"
    done
  done
}
# median NAME COLUMN
median() {
  awk -v c="$2" '$c != "-" { print $c }' "$work/$1.times" | sort -n |
    awk '{ v[NR] = $1 } END { if (NR) printf "%.3f", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; else print "-" }'
}
