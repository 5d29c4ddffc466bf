// SPDX-License-Identifier: Apache-2.0
// The client program for initramfs that have a first process and a network of their own: what the
// hooks put there as `rootlink`. A quarter smaller, for it has no `init`.

import ClientCommands
import LinuxSystem

exitProcess(runCommand(commandLineArguments().dropFirst()))
