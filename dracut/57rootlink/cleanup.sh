#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The fallback for systemd-networkd is for the initramfs only; the real root has its own rules.
rm -f /run/systemd/network/zz-rootlink.network /run/systemd/network/*.network.d/rootlink.conf
rootlink plan >/run/rootlink/plan.json 2>/dev/null || :
