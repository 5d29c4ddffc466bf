// SPDX-License-Identifier: Apache-2.0
// The client program, without what only the first process of a machine needs: rootlink-init has it.

import ClientCommands
import LinuxSystem

exitProcess(runCommand(commandLineArguments().dropFirst()))
