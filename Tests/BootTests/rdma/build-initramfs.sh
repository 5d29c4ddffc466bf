#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Packs the initramfs of a guest with RDMA: busybox, modules of a stock kernel, Linux's own RNBD,
# programs with their libraries, files.
#
# Usage: build-initramfs.sh KERNEL_TREE VERSION RNBD_MODULES OUTPUT [PROGRAM...] [NAME=FILE...]
# PROGRAM: a name or path on this machine, put into /usr/bin. NAME=FILE: a program called otherwise.
set -eu
# shellcheck source=../lab/common.sh
. "$(dirname "$0")/../lab/common.sh"

recipe=2
tree="$1" version="$2" rnbd="$3" output="$4"
shift 4
need busybox cpio depmod modprobe ldd rdma blkdiscard

# What every guest has, once for a kernel.
base() {
  guest="$1/result"
  modules="$guest/lib/modules/$version"
  mkdir -p "$guest/bin" "$guest/sbin" "$guest/usr/bin" "$guest/dev" "$guest/proc" "$guest/sys" "$modules/extra"
  for module in virtio_pci virtio_net virtio_blk crc32_generic ib_uverbs rdma_ucm rdma_rxe brd loop ext4 ublk_drv nbd; do
    modprobe -d "$tree" -S "$version" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
  done | sort -u | while read -r path; do
    target="$guest/${path#"$tree"/}"
    mkdir -p "$(dirname "$target")"
    xz -dc "$path" >"${target%.xz}"
  done
  cp "$rnbd"/*.ko "$modules/extra/"
  cp "$tree/lib/modules/$version/modules.builtin" "$tree/lib/modules/$version/modules.order" "$modules/"
  depmod -b "$guest" "$version" 2>/dev/null
  cp "$(command -v busybox)" "$guest/bin/busybox"
  ln -s ../bin/busybox "$guest/sbin/modprobe"
  # Which library speaks to soft-RoCE. (Debian's kernels have no soft-iWARP.)
  mkdir -p "$guest/etc/libibverbs.d"
  cp /etc/libibverbs.d/rxe.driver "$guest/etc/libibverbs.d/"
  # The real blkdiscard can write zeroes, busybox's cannot.
  add "$guest" rdma blkdiscard
  for library in /usr/lib/*/libibverbs/librxe-*.so; do
    install -D "$library" "$guest$library"
    libraries "$guest" "$library"
  done
}

# libraries ROOT FILE: those that it is linked with.
libraries() {
  ldd "$2" 2>/dev/null | sed -n 's/.*=> \([^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) .*/\1/p' | while read -r library; do
    [ -e "$1$library" ] || install -D "$(readlink -f "$library")" "$1$library"
  done
}

# add ROOT PROGRAM...
add() {
  root="$1"
  shift
  for program; do
    name="${program%%=*}"
    file=$(command -v "${program#*=}") || fail "${program#*=} is missing; install what Tests/debian-packages.txt lists"
    # Without symbols: ours is four times as large with them.
    strip -o "$root/usr/bin/${name##*/}" "$file" 2>/dev/null || cp "$file" "$root/usr/bin/${name##*/}"
    chmod 755 "$root/usr/bin/${name##*/}"
    libraries "$root" "$file"
  done
}

kept="$cache/rdma-guest/$version-$recipe-$(basename "$rnbd" | digest)"
made "$kept" base
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/usr/bin"
install -m 755 "$lab/init" "$work/root/init"
add "$work/root" "$@"
# The kernel unpacks one archive after the other.
(cd "$kept" && find . | cpio -o -H newc --quiet) >"$output"
(cd "$work/root" && find . | cpio -o -H newc --quiet) >>"$output"
