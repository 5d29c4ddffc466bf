#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Debian packages of another architecture, the newest that apt has, unpacked once below the cache.
# Prints the directory in which they lie together.
#
# Usage: unpack.sh ARCHITECTURE PACKAGE...    (Debian's name for it: arm64)
set -eu
architecture="$1"
shift
cache="${ROOTLINK_CACHE:-$HOME/.cache/rootlink}"
here=$(cd "$(dirname "$0")" && pwd)
apt() { "$here/apt.sh" "$architecture" "$@"; }
fail() {
  echo "unpack.sh: $*" >&2
  exit 1
}
for tool in apt-get dpkg flock; do
  command -v "$tool" >/dev/null || fail "$tool is missing: another architecture is built with Debian's packages of it"
done
mkdir -p "$cache"
exec 9>"$cache/.lock-$architecture"
flock 9

# One line a package, its version in it.
names() { apt get -qq download --print-uris "$@" 2>/dev/null; }
list=$(names "$@") || { apt get -qq update >&2 && list=$(names "$@"); } ||
  fail "apt offers not all of $* for $architecture; do its sources have that architecture?"
tree="$cache/$architecture-$(echo "$list" | cksum | cut -d ' ' -f 1)"
if [ ! -d "$tree" ]; then
  work=$(mktemp -d "$cache/.building.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/tree"
  cd "$work"
  apt get -qq download "$@" >&2 ||
    fail "apt-get could not download $* for $architecture; $here/apt.sh $architecture get update, and try again"
  for package in ./*.deb; do dpkg -x "$package" tree; done
  mv -T tree "$tree"
fi
echo "$tree"
