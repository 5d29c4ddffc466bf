#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The main job, shown: a stock Debian without a disk boots from rootlinkd. Says how long each step
# took, and ends with status 0 if the guest booted and powered off.
#
# Usage: demo.sh [6.1|6.12]      (`make demo` builds the programs first)
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

series="${1:-6.1}"
logs="$repository/out/logs"
mkdir -p "$logs"
server=
cleanup() { [ -z "$server" ] || kill "$server" 2>/dev/null || true; }
trap cleanup EXIT
trap 'exit 1' INT TERM

seconds() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%8.2f s", b - a }'; }
step() { # step DESCRIPTION COMMAND...: runs it, says how long it took, leaves its last line in $result
  local description="$1" before
  shift
  before=$EPOCHREALTIME
  result=$("$@" 2>>"$logs/demo.build.log" | tail -n 1)
  [ -n "$result" ] || fail "this failed: $*; see $logs/demo.build.log"
  echo "$(seconds "$before" "$EPOCHREALTIME")  $description"
}

: >"$logs/demo.build.log"
[ -x "$repository/out/rootlinkd" ] || fail "out/rootlinkd is not there; run make demo"
echo "On this machine (what is in the cache takes no time):"
step "the kernel: Debian's linux-image of $series" "$lab/fetch-kernels.sh" "$series"
version="${result%% *}" tree="${result#* }"
step "the disk: Debian 12 with systemd, ext4" "$lab/make-image.sh" plain
image="$result"
step "the initramfs: one program and the modules that it needs" "$lab/make-one-file.sh" "$series"
initramfs="$result"

# A port that nobody has; the guest sees this machine's loopback as 10.0.2.2.
for port in $(seq 10809 10899); do
  (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
done
before=$EPOCHREALTIME
"$repository/out/rootlinkd" serve --export "debian=$image,overlay" --listen "tcp:127.0.0.1:$port" \
  >"$logs/demo.server.log" 2>&1 &
server=$!
until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
  kill -0 "$server" 2>/dev/null || fail "rootlinkd did not start: $(tail -n 1 "$logs/demo.server.log")"
  sleep 0.05
done
echo "$(seconds "$before" "$EPOCHREALTIME")  rootlinkd serves it as 'debian', a fresh overlay for each client"

parameters="nbdroot=10.0.2.2:$port/debian bootcheck=demo"
echo
echo "A machine without a disk starts Linux $version with the kernel line: $parameters"
before=$EPOCHREALTIME
timeout --kill-after=5 900 "$lab/boot.sh" --kernel "$tree/boot/vmlinuz-$version" \
  --initramfs "$initramfs" --append "$parameters" 2>&1 |
  tee "$logs/demo.console.log" | tr -d '\r' |
  grep --line-buffered -aE 'rootlink: |boot-check: |Run /init|\(nbd0\): mounted|reboot: Power down' || true
after=$EPOCHREALTIME

# The guest's clock: seconds since its kernel started.
at() { tr -d '\r' <"$logs/demo.console.log" | grep -aE "$1" | sed -nE 's/^\[ *([0-9.]+)\].*/\1/p' | head -n 1; }
init=$(at 'Run /init')
attached=$(at 'rootlink: /dev/nbd0 is attached')
mounted=$(at 'EXT4-fs \(nbd0\): mounted')
up=$(tr -d '\r' <"$logs/demo.console.log" | sed -nE 's/.*boot-check: systemd: up after ([0-9.]+) s.*/\1/p')
off=$(at 'reboot: Power down')
passed=$(grep -ac 'boot-check: passed demo' "$logs/demo.console.log" || true)

echo
if [ -n "$init" ] && [ -n "$mounted" ] && [ -n "$up" ] && [ -n "$off" ]; then
  echo "In the guest:"
  echo "$(seconds 0 "$init")  kernel: until it runs /init"
  if [ -n "$attached" ]; then
    echo "$(seconds "$init" "$attached")  initramfs: drivers, lease, /dev/nbd0 attached; of this, by rootlink's own clock:"
    tr -d '\r' <"$logs/demo.console.log" | grep -a 'rootlink: /dev/nbd0 is attached' | head -n 1 |
      sed -E 's/^.*; (lease .*)$/\1/' | tr ',' '\n' | sed -E 's/^ *(.*) ([0-9]+) ms$/              \2 ms  \1/'
    echo "$(seconds "$attached" "$mounted")  initramfs: root mounted"
  fi
  echo "$(seconds "$mounted" "$up")  Debian: systemd has started everything"
  echo "$(seconds "$up" "$off")  Debian: 8 MiB written and read back, powered off"
  echo "$(seconds "$before" "$after")  altogether, emulated without KVM"
  echo
fi
if [ "$passed" != 0 ] && [ -n "$off" ] && ! grep -aqE 'I/O error' "$logs/demo.console.log"; then
  echo "booted: a diskless Debian 12 ran from rootlinkd and powered off without an I/O error"
else
  tail -n 30 "$logs/demo.console.log"
  echo "NOT booted: the console is in $logs/demo.console.log"
  exit 1
fi
