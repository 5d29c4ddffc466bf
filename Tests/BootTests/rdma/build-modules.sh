#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Linux's own RNBD, client and server, which Debian's kernels leave out: five modules, built from
# Debian's source package against the headers of the stock kernel that the guests run. Prints the
# directory that holds them.
#
# Usage: build-modules.sh VERSION      (as fetch-kernels.sh prints it: 6.12.117+deb12-amd64)
set -eu
# shellcheck source=../lab/common.sh
. "$(dirname "$0")/../lab/common.sh"

recipe=1
version="$1"
case "$version" in
  6.12.*) name=linux-source-6.12 ;;
  *) fail "no recipe for the modules of $version" ;;
esac
need apt-get apt-cache dpkg make gcc xz tar strip

# fetch PACKAGE DIRECTORY: unpacks the package in the version that belongs to the kernel.
fetch() {
  (cd "$2" && apt-get -o APT::Sandbox::User=root -qq download "$1=$package_version" >&2 &&
    dpkg -x "$1"_*.deb . && rm -f "$1"_*.deb) ||
    fail "apt-get could not download $1 $package_version; run apt-get update and try again"
}

# Linux's makefiles do not stand a directory with spaces or colons; the cache has none.
build() {
  work="$1"
  package_version=$(apt-cache show --no-all-versions "linux-headers-$version" | sed -n 's/^Version: //p' | head -n 1)
  [ -n "$package_version" ] || fail "apt knows no linux-headers-$version; is bookworm-security among its sources?"
  base="${version%-amd64}"
  say "building RNBD for $version"
  for package in "linux-headers-$version" "linux-headers-$base-common" "linux-kbuild-$base" "$name"; do
    fetch "$package" "$work"
  done
  # The headers of one architecture include the common ones by the path where dpkg puts them.
  headers="$work/usr/src/linux-headers-$version"
  sed -i "s#^include .*/usr/src/#include $work/usr/src/#" "$headers/Makefile"
  mkdir "$work/source" "$work/result"
  tar -C "$work/source" -xJf "$work/usr/src/$name.tar.xz" --strip-components=1 \
    "$name/drivers/infiniband/ulp/rtrs" "$name/drivers/block/rnbd"
  modules="$work/modules"
  mkdir "$modules"
  mv "$work/source/drivers/infiniband/ulp/rtrs" "$work/source/drivers/block/rnbd" "$modules/"
  echo 'obj-y += rtrs/ rnbd/' >"$modules/Kbuild"
  # rnbd includes rtrs.h by its place in the tree. No type information: vmlinux is not at hand.
  nice make -s -C "$headers" M="$modules" KCFLAGS="-I$modules/rtrs" CONFIG_DEBUG_INFO_BTF_MODULES= \
    CONFIG_INFINIBAND_RTRS=m CONFIG_INFINIBAND_RTRS_CLIENT=m CONFIG_INFINIBAND_RTRS_SERVER=m \
    CONFIG_BLK_DEV_RNBD=y CONFIG_BLK_DEV_RNBD_CLIENT=m CONFIG_BLK_DEV_RNBD_SERVER=m modules >&2 ||
    fail "the modules of $version do not build; the lines above say why"
  for module in "$modules"/*/*.ko; do
    strip -g -o "$work/result/${module##*/}" "$module"
  done
}

made "$cache/rnbd/$version-$recipe" build
echo "$cache/rnbd/$version-$recipe"
