#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sourced when network-legacy or NetworkManager has an interface up.
[ -d /run/rootlink ] && : >/run/rootlink/online
