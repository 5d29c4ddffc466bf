#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Boots a diskless guest under TCG, its console on standard output, until it powers off or its kernel
# panics. The exit status is QEMU's; what happened is on the console.
#
# Usage: boot.sh --kernel 6.1|6.12|FILE --initramfs FILE --append PARAMETERS [QEMU-OPTION...]
#
# Without a -netdev among the QEMU options the guest has the user-mode network: DHCP, the host's
# loopback as 10.0.2.2, which is also the lease's next-server.
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

series=6.1 initramfs='' parameters=''
while [ $# -gt 0 ]; do
  case "$1" in
    --kernel) series="$2" ;;
    --initramfs) initramfs="$2" ;;
    --append) parameters="$2" ;;
    *) break ;;
  esac
  shift 2
done
[ -f "$initramfs" ] || fail "give --initramfs FILE; make-initramfs.sh prints one"
need qemu-system-x86_64
if [ -f "$series" ]; then
  kernel="$series"
else
  line=$("$lab/fetch-kernels.sh" "$series")
  kernel="${line#* }/boot/vmlinuz-${line%% *}"
fi

case " $* " in
  *" -netdev "*) ;;
  *) set -- "$@" -netdev user,id=n0 -device virtio-net-pci,netdev=n0,romfile= ;;
esac
# `panic=1` with -no-reboot: a guest that gives up ends QEMU instead of waiting at a shell.
# `no_timer_check`: on a busy machine the kernel finds a timer broken that is only late.
# `mitigations=off` and this CPU: emulation takes a tenth and a quarter less than without, and with `max`.
[ "${BOOT_CONSOLE:-}" = stdin ] || exec </dev/null
exec qemu-system-x86_64 -machine pc,accel=tcg -cpu qemu64 -smp "${BOOT_SMP:-1}" -m "${BOOT_MEMORY:-768}" \
  -nodefaults -no-user-config -display none -no-reboot -serial stdio \
  -kernel "$kernel" -initrd "$initramfs" \
  -append "console=ttyS0 panic=1 no_timer_check mitigations=off $parameters" "$@"
