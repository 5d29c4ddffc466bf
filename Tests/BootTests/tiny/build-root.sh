#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The root of a one-file boot: an ext4 file system of 12 MiB with busybox and an init that says what
# it finds.
#
# Usage: build-root.sh plain|partitioned UUID OUTPUT [BUSYBOX]     (default: this machine's)
set -eu
kind="$1" uuid="$2" output="$3"
here=$(cd "$(dirname "$0")" && pwd)
export PATH="$PATH:/usr/sbin:/sbin"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for directory in bin sbin dev proc sys run tmp mnt; do mkdir "$work/$directory"; done
cp "${4:-$(command -v busybox)}" "$work/bin/busybox"
ln -s busybox "$work/bin/sh"
install -m 755 "$here/root-init" "$work/sbin/root-init"
# As on a Debian, a link that leads nowhere outside of the root.
ln -s /sbin/root-init "$work/sbin/init"
rm -f "$output"
truncate -s 16M "$output"
offset=0
if [ "$kind" = partitioned ]; then
  printf 'label: gpt\nstart=2048, size=2048\nstart=6144, name="one file"\n' | sfdisk --quiet "$output"
  offset=3145728
fi
mkfs.ext4 -q -F -U "$uuid" -L onefile -E "offset=$offset" -d "$work" "$output" 12M
