#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Packs the initramfs of the tiny guest: busybox, a few modules of a stock kernel, our program,
# Debian's nbd-client, a scenario.
#
# Usage: build-initramfs.sh KERNEL_TREE VERSION ROOTLINK SCENARIO OUTPUT [PROGRAM...]
# Programs of this machine come along, with their libraries.
set -eu

tree="$1" version="$2" rootlink="$3" scenario="$4" output="$5"
shift 5
here=$(cd "$(dirname "$0")" && pwd)
cache="${ROOTLINK_CACHE:-$HOME/.cache/rootlink}"
export PATH="$PATH:/usr/sbin:/sbin"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$cache"

fail() {
  echo "build-initramfs.sh: $*" >&2
  exit 1
}
for tool in busybox cpio depmod modprobe flock; do
  command -v "$tool" >/dev/null || fail "$tool is missing; install what Tests/debian-packages.txt lists"
done

# Modules with what they need, once a kernel; decompressed, as busybox loads them.
modules="$cache/tiny-modules-3-$version"
exec 9>"$cache/.tiny-lock"
flock 9
if [ ! -d "$modules" ]; then
  rm -rf "$modules.new"
  for module in virtio_pci virtio_net nbd ext4 loop ublk_drv nf_tables nft_reject_ipv4; do
    # ublk_drv is not in every series.
    modprobe -d "$tree" -S "$version" --show-depends "$module" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p'
  done | sort -u | while read -r path; do
    target="$modules.new/${path#"$tree"/}"
    mkdir -p "$(dirname "$target")"
    case "$path" in
      *.xz) xz -dc "$path" >"${target%.xz}" ;;
      *.zst) zstd -qdc "$path" >"${target%.zst}" ;;
      *) cp "$path" "$target" ;;
    esac
  done
  cp "$tree/lib/modules/$version/modules.builtin" "$tree/lib/modules/$version/modules.order" \
    "$modules.new/lib/modules/$version/"
  depmod -b "$modules.new" "$version" 2>/dev/null
  mv -T "$modules.new" "$modules"
fi
# Debian's own client: the installed one, else unpacked beside.
client=$(command -v nbd-client || echo "$cache/nbd-client/sbin/nbd-client")
if [ ! -x "$client" ]; then
  rm -rf "$cache/nbd-client.new"
  mkdir -p "$cache/nbd-client.new"
  (cd "$cache/nbd-client.new" && apt-get -o APT::Sandbox::User=root -qq download nbd-client >&2 &&
    dpkg -x nbd-client_*.deb . && rm -f nbd-client_*.deb) || fail "apt-get could not download nbd-client"
  [ -d "$cache/nbd-client.new/sbin" ] || ln -s usr/sbin "$cache/nbd-client.new/sbin"
  rm -rf "$cache/nbd-client"
  mv -T "$cache/nbd-client.new" "$cache/nbd-client"
fi
flock -u 9

mkdir -p "$work/bin" "$work/sbin" "$work/dev" "$work/proc" "$work/sys" "$work/run" "$work/etc"
cp "$(command -v busybox)" "$work/bin/busybox"
ln -s ../bin/busybox "$work/sbin/modprobe"
cp -r "$modules/lib" "$work/lib"
install -m 755 "$rootlink" "$work/sbin/rootlink"
install -m 755 "$here/init" "$work/init"
install -m 644 "$here/faults" "$work/faults"
cp "$scenario" "$work/scenario"
install -m 755 "$client" "$work/sbin/nbd-client"
# The real blkdiscard can write zeroes, busybox's cannot; sysvinit's killall5 can spare somebody.
programs="$client $(command -v blkdiscard) $(command -v killall5)"
for program in "$@"; do
  programs="$programs $(command -v "$program")" || fail "$program is missing; install what Tests/debian-packages.txt lists"
done
for program in $programs; do
  [ "$program" = "$client" ] || install -m 755 "$program" "$work/sbin/"
done
# shellcheck disable=SC2086 # Words, each a program.
ldd $programs | sed -n 's/.*=> \([^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) .*/\1/p' | sort -u | while read -r library; do
  mkdir -p "$work$(dirname "$library")"
  cp -L "$library" "$work$library"
done
mknod "$work/dev/console" c 5 1 2>/dev/null || true
(cd "$work" && find . | cpio -o -H newc --quiet) >"$output"
