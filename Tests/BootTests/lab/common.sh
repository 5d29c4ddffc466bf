# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What the lab's scripts share: where results are kept, how one is named after what went into it,
# and how it is put in place whole. To be read with `.`, after `set -eu`.

export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C
lab=$(cd "$(dirname "$0")" && pwd)
# shellcheck disable=SC2034 # Used by the scripts that read this file.
repository=$(cd "$lab/../../.." && pwd)
cache="${ROOTLINK_CACHE:-$HOME/.cache/rootlink}/lab"
mkdir -p "$cache"

fail() {
  echo "${0##*/}: $*" >&2
  exit 1
}

say() { echo "${0##*/}: $*" >&2; }

need_root() {
  [ "$(id -u)" = 0 ] || fail "building a Debian root needs root's rights (chroot, mknod, chown)"
}

need() {
  for tool; do
    command -v "$tool" >/dev/null ||
      fail "$tool is missing; install what Tests/debian-packages.txt lists"
  done
}

# The first 16 digits of a checksum over standard input: the name of what is built from that input.
digest() { sha256sum | cut -c 1-16; }

# The versions of the named packages that would be installed now, for a key.
package_versions() {
  # shellcheck disable=SC2086,SC2048 # Package names are words.
  apt-cache policy $* | grep -E '^[^ ]|Candidate'
}

# made PATH COMMAND...: runs COMMAND with a fresh directory as its last argument, and renames what it
# leaves there as `result` to PATH. Does nothing if PATH exists; a second caller waits for the first.
made() {
  made_path="$1"
  shift
  [ ! -e "$made_path" ] || return 0
  mkdir -p "$(dirname "$made_path")"
  (
    exec 9>"$made_path.lock"
    flock 9
    [ ! -e "$made_path" ] || exit 0
    work=$(mktemp -d "$made_path.building.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' INT TERM
    chmod 755 "$work"
    "$@" "$work"
    mv -T "$work/result" "$made_path"
  ) || return 1
}
