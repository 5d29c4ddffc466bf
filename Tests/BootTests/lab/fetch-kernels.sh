#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Stock Debian kernels for the guests: the newest 6.1 and the newest 6.12 that apt knows, unpacked
# once below the cache. Prints a line `VERSION TREE` for each series; a tree holds
# boot/vmlinuz-VERSION and lib/modules/VERSION with its dependency lists made.
#
# Usage: fetch-kernels.sh [--arm64] [6.1|6.12]...     (default: both, for amd64)
#
# Two may run at once: a lock makes the second wait for the first. A tree appears whole or not at
# all: it is built beside its place and renamed.
set -eu

export PATH="$PATH:/usr/sbin:/sbin"
cache="${ROOTLINK_CACHE:-$HOME/.cache/rootlink}/kernels"
mkdir -p "$cache"

fail() {
  echo "fetch-kernels.sh: $*" >&2
  exit 1
}

for tool in apt-get apt-cache dpkg depmod flock; do
  command -v "$tool" >/dev/null || fail "$tool is missing; install what Tests/debian-packages.txt lists"
done

architecture=amd64
if [ "${1:-}" = --arm64 ]; then
  architecture=arm64
  shift
fi
other="$(cd "$(dirname "$0")" && pwd)/../../../cross/apt.sh"
apt() { # get|cache ARGUMENT...
  if [ "$architecture" = amd64 ]; then
    program="apt-$1"
    shift
    # `apt-get download` drops its rights to the user _apt, who has no way into the cache.
    "$program" -o APT::Sandbox::User=root "$@"
  else
    "$other" "$architecture" "$@"
  fi
}

# The newest version that apt offers: not the -dbg, -unsigned, -rt and -cloud packages of it.
newest() {
  case "$1" in
    6.1) pattern="^linux-image-6\\.1\\.0-[0-9]+-$architecture\$" ;;
    6.12) pattern="^linux-image-6\\.12\\.[0-9]+\\+deb12-$architecture\$" ;;
    *) fail "no series '$1': 6.1 or 6.12" ;;
  esac
  apt cache pkgnames linux-image-6. | grep -E "$pattern" | sort -V | tail -n 1
}

unpack() (
  package="$1" version="$2"
  work=$(mktemp -d "$cache/.building.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work"
  mkdir "$work/tree" "$work/deb"
  (cd "$work/deb" && apt get -qq download "$package" >&2) ||
    fail "apt-get could not download $package; run apt-get update and try again"
  dpkg -x "$work"/deb/*.deb "$work/tree"
  if [ ! -d "$work/tree/lib/modules" ]; then # A package of a merged /usr.
    ln -s usr/lib "$work/tree/lib"
  fi
  depmod -b "$work/tree" "$version"
  mv -T "$work/tree" "$cache/$version"
)

exec 9>"$cache/.lock"
flock 9
[ $# -gt 0 ] || set -- 6.1 6.12
for series; do
  package=$(newest "$series")
  if [ -z "$package" ]; then
    apt get -qq update >&2 || true
    package=$(newest "$series")
  fi
  [ -n "$package" ] || fail "apt knows no Debian kernel of series $series for $architecture; is bookworm-security among its sources?"
  version="${package#linux-image-}"
  [ -d "$cache/$version" ] || unpack "$package" "$version"
  echo "$version $cache/$version"
done
