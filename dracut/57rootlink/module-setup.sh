#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Attaches the root device that the kernel command line or a lease names, under any of dracut's
# network modules. The hooks parse nothing: they ask rootlink, and rootlink attaches.

check() {
  require_binaries rootlink || return 1
  # In an image for this host only, or for a mount point of it: when the root is on nbd or ublk now.
  # shellcheck disable=SC2154 # dracut's own variables.
  if [[ $hostonly ]] || [[ $mount_needs ]]; then
    local device
    device=$(find_root_block_device) || return 255
    [[ -b /dev/block/$device ]] || return 255
    check_block_and_slaves block_is_ours "$device" || return 255
  fi
  return 0
}

# The smaller one, which does what a hook asks; the build with RDMA comes without it.
rootlink_program() {
  local small=/usr/lib/rootlink/rootlink-attach
  if [[ -x $small ]]; then echo "$small"; else type -P rootlink; fi
}

# Of either driver; the argument is MAJOR:MINOR.
block_is_ours() {
  block_is_nbd "$1" && return 0
  [[ $(readlink "/sys/dev/block/$1") == */ublkb* ]]
}

depends() {
  echo network rootfs-block shutdown
}

installkernel() {
  # The network module brings the network drivers, by its own hostonly rules.
  hostonly='' instmods nbd ublk_drv # The second for rootlink.driver=ublk; may be missing.
  # For ibnbd-root=, which only the larger build of rootlink carries out.
  if grep -q ibverbs "$(rootlink_program)"; then
    hostonly='' instmods ib_uverbs rdma_ucm rdma_rxe siw crc32_generic mlx4_ib mlx5_ib
  fi
}

# shellcheck disable=SC2154 # moddir, initdir and systemdutildir are dracut's.
install() {
  inst_binary "$(rootlink_program)" /usr/sbin/rootlink
  # 90, because /sbin/netroot runs the 90s again when a lease has come; before parse-nbdroot.sh of
  # dracut's nbd module, which then finds nothing left to do.
  inst_hook cmdline 90 "$moddir/ask-rootlink.sh"
  inst_hook pre-udev 50 "$moddir/request-root-path.sh"
  inst_hook initqueue/online 50 "$moddir/online.sh"
  inst_hook initqueue/settled 50 "$moddir/settled.sh"
  inst_hook cleanup 50 "$moddir/cleanup.sh"
  inst_hook shutdown 50 "$moddir/detach.sh"
  inst_script "$moddir/rootlinkroot.sh" /sbin/rootlinkroot
  if dracut_module_included systemd-initrd; then
    inst_script "$moddir/rootlink-generator.sh" \
      "$systemdutildir/system-generators/dracut-rootlink-generator"
    # request-root-path.sh looks at what systemd-network-generator has written.
    mkdir -p "$initdir/etc/systemd/system/systemd-network-generator.service.d"
    printf '[Unit]\nBefore=dracut-pre-udev.service\n' \
      >"$initdir/etc/systemd/system/systemd-network-generator.service.d/rootlink.conf"
  fi
  dracut_need_initqueue
}
