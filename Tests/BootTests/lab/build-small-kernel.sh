#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A kernel as one is made for a board of little memory: everything that it needs is built in, and
# nothing else. Debian's own asks for 68 MiB before it starts anything: by its header, 16 MiB that it
# leaves free and 52 to unpack itself. Prints the path of the image.
#
# Takes seven minutes of two processors the first time.
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

name=linux-source-6.12
config="$lab/small-kernel.config"
need apt-get apt-cache dpkg make gcc flex bison bc xz tar
version=$(apt-cache show --no-all-versions "$name" | sed -n 's/^Version: //p' | head -n 1)
[ -n "$version" ] || fail "apt knows no $name; is bookworm-security among its sources?"

build() {
  work="$1"
  say "building a small kernel from $name $version"
  (cd "$work" && apt-get -o APT::Sandbox::User=root -qq download "$name=$version" >&2 &&
    dpkg -x "$name"_*.deb .) ||
    fail "apt-get could not download $name $version; run apt-get update and try again"
  tar -C "$work" -xJf "$work/usr/src/$name.tar.xz"
  cd "$work/$name"
  {
    make -s tinyconfig
    cat "$config" >>.config
    # It says that what is there twice counts as it stands last.
    make -s olddefconfig 2>/dev/null
    sed -n 's/^\(CONFIG_.*=y\)$/\1/p' "$config" | while read -r line; do
      grep -qx "$line" .config || fail "$line of small-kernel.config is not taken"
    done
    nice make -s -j"$(nproc)" bzImage
  } >&2 || fail "the small kernel does not build; the lines above say why"
  mv arch/x86/boot/bzImage "$work/result"
}

kernel="$cache/small-kernel/$version-$(digest <"$config")"
made "$kernel" build
echo "$kernel"
