#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sourced in dracut's shutdown stage, where the root is unmounted and this image is the system
# again: ends the attachments, so that the server hears a farewell. A device that is still in use
# is refused, and tried again; the last time, with `final` set, rootlink says why.
# shellcheck disable=SC2154 # final is dracut's.

_left=0
for _keep in /run/rootlink/*.keep; do
  [ -e "$_keep" ] || continue
  _device=${_keep##*/}
  _device=${_device%.keep}
  if [ -n "$final" ]; then
    rootlink detach "$_device" || _left=1
  elif rootlink detach "$_device" 2>/dev/null; then
    echo "rootlink: $_device is detached"
  else
    _left=1
  fi
done
[ "$_left" = 0 ]
