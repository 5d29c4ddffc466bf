#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# apt for another architecture, from this machine's sources, but with lists of its own below the
# cache: nothing is installed, and this machine's own apt does not notice.
#
# Usage: apt.sh ARCHITECTURE get|cache ARGUMENT...
set -eu
architecture="$1" program="apt-$2"
shift 2
state="${ROOTLINK_CACHE:-$HOME/.cache/rootlink}/apt-$architecture"
mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
: >>"$state/status"
# `apt-get download` drops its rights to the user _apt, who has no way into the cache.
exec "$program" -o APT::Sandbox::User=root \
  -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" \
  -o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache" "$@"
