#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes an initramfs for a stock kernel in the builder root, with the hooks that are asked for, and
# prints its path. Kept in the cache under a key of what went into it.
#
# Usage: make-initramfs.sh [--kernel 6.1|6.12] [--generator GENERATOR] [--hook HOOK]
#                          [--modules most|netboot] [--rootlink PROGRAM]
#   GENERATOR  initramfs-tools (default); dracut, with the network module that it picks by itself
#              (networkd); dracut-legacy (dhclient); dracut-nm (NetworkManager)
#   HOOK       rootlink (default), nbd-client (Debian's own), both, none
#   PROGRAM    the client (default out/rootlink, with out/rootlink-attach)
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

series=6.1 generator=initramfs-tools hook=rootlink modules=most program="$repository/out/rootlink" small="$repository/out/rootlink-attach"
while [ $# -gt 0 ]; do
  case "$1" in
    --kernel) series="$2" ;;
    --generator) generator="$2" ;;
    --hook) hook="$2" ;;
    --modules) modules="$2" ;;
    --rootlink) program="$2" small= ;;
    *) fail "unknown option '$1'; the head of this file lists them" ;;
  esac
  shift 2
done
case "$generator" in initramfs-tools | dracut | dracut-legacy | dracut-nm) ;; *) fail "no generator '$generator'" ;; esac
case "$hook" in rootlink | nbd-client | both | none) ;; *) fail "no hook '$hook'" ;; esac
need_root
need flock unshare

line=$("$lab/fetch-kernels.sh" "$series")
version="${line%% *}" kernel="${line#* }"
builder=$("$lab/build-root.sh" builder)

# Ours, as `make install` puts it in place.
install_rootlink() {
  for file in "$program" ${small:+"$small"}; do
    [ -x "$file" ] || fail "$file is not there; run make first, or give --rootlink"
  done
  make -s -C "$repository" install-hooks DESTDIR="$1" PREFIX=/usr >&2
  install -D -m 755 "$program" "$1/usr/sbin/rootlink"
  [ -z "$small" ] || install -D -m 755 "$small" "$1/usr/lib/rootlink/rootlink-attach"
}

# Hard links: no generator writes into a file that is there already.
build() {
  root="$1/root"
  cp -al "$builder" "$root"
  mkdir -p "$root/lib/modules" "$root/boot"
  cp -al "$kernel/lib/modules/$version" "$root/lib/modules/"
  cp -al "$kernel/boot/." "$root/boot/"
  case "$hook" in
    rootlink | none) find "$root/usr/share/initramfs-tools" -name '*nbd*' -type f -delete ;;
  esac
  case "$hook" in
    rootlink | both) install_rootlink "$root" ;;
  esac
  mkdir -p "$root/etc/initramfs-tools/conf.d"
  # Compressed in haste: how small an image gets is not what a boot shows.
  printf 'MODULES=%s\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n' "$modules" >"$root/etc/initramfs-tools/conf.d/lab"
  case "$generator" in
    initramfs-tools) set -- "$1" mkinitramfs -o /result "$version" ;;
    *)
      # What is not installed cannot be picked.
      [ "$generator" = dracut-nm ] || rm -f "$root/usr/sbin/NetworkManager" \
        "$root/usr/libexec/nm-initrd-generator" "$root/usr/lib/NetworkManager/nm-initrd-generator"
      set -- "$1" dracut --quiet --force --no-hostonly --compress "zstd -q -1" --kver "$version"
      case "$generator" in dracut-legacy) set -- "$@" --add network-legacy ;; esac
      case "$hook" in nbd-client | both) set -- "$@" --add nbd ;; none) ;; esac
      set -- "$@" /result
      ;;
  esac
  work="$1"
  shift
  say "making an initramfs: $generator, Linux $version, hook $hook"
  # A private mount namespace, so that nothing stays mounted whatever happens.
  # shellcheck disable=SC2016
  unshare --mount sh -euc '
    root="$1"; shift
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/tmp"
    exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"' sh "$root" "$@" >&2
  mv "$root/result" "$work/result"
  chmod 644 "$work/result"
}

key=$({
  cat "$0"
  echo "$builder $version $generator $hook $modules"
  case "$hook" in
    rootlink | both)
      sha256sum "$program" ${small:+"$small"} | cut -d' ' -f1
      cd "$repository" && find initramfs-hooks dracut -type f | LC_ALL=C sort | xargs sha256sum
      ;;
  esac
} | digest)
made "$cache/initramfs/$generator-$version-$hook-$modules-$key" build
echo "$cache/initramfs/$generator-$version-$hook-$modules-$key"
