// SPDX-License-Identifier: Apache-2.0

/// The one screen of help; rootlink(8) has the rest and a test compares the two.
let usage = """
  Usage: rootlink attach [TARGET] [--device DEVICE] [--driver auto|nbd|ublk] [--connections N]
                         [--silence SECONDS] [--answer SECONDS] [--timeout SECONDS] [--once]
                         [--no-keep] [--interface auto|netlink|ioctl]
                         [--cmdline TEXT | --cmdline-file FILE]
         rootlink attach --keep DEVICE
         rootlink plan   [--cmdline TEXT | --cmdline-file FILE] [--root DIR]
                         [--format json|shell] [--without-lease]
         rootlink status [DEVICE] [--json] [--root DIR]
         rootlink detach DEVICE [--force]
         rootlink init   (as the first process of a machine, under any name)
         rootlink --version | --help
  Attaches the root device that the kernel command line or a DHCP lease names.
    TARGET               What to attach instead: nbd://HOST[:PORT]/EXPORT, or what nbdroot= and
                         ibnbd-root= take.
    --device DEVICE      Attach as DEVICE (default: as the command line says, else /dev/nbd0).
    --driver NAME        Who carries the data: the kernel (nbd) or a process of ours (ublk).
    --connections N      Up to N connections, if the server allows several (default 1, at most 16).
    --silence SECONDS    How long the server's machine may say nothing (default 6).
    --answer SECONDS     How long the server may owe an answer (default 10; 4 with several connections).
    --timeout SECONDS    Give up after SECONDS (default 180; 0: never), instead of rootlink.timeout=.
    --once               Try once and do not repeat.
    --keep DEVICE        Reconnect DEVICE from now on: its own keeper is gone, or is to be replaced.
    --no-keep            Leave nobody who reconnects: a lost server means I/O errors.
    --interface NAME     How to talk to the kernel: auto (default), netlink or ioctl.
    --cmdline TEXT       Read TEXT instead of /proc/cmdline.
    --cmdline-file FILE  Read FILE instead of /proc/cmdline.
    --root DIR           Read leases, /proc and /sys below DIR.
    --format FORMAT      json (default), or shell: assignments for a hook.
    --without-lease      Plan before the network is up: what a lease must say is left open.
    --json               Print JSON.
    --force              Detach even when the device is in use.
  Exit status: 0 done, 1 could not be done, 2 the request is wrong. Manual: rootlink(8).

  """

/// Raised with each release, together with the changelog of the packages.
let version = "rootlink 0.1.0\n"
