// SPDX-License-Identifier: Apache-2.0
// The client program, which can also be the whole initramfs: as the first process of a machine it
// brings up the network, attaches, mounts and starts the system, under any name.

import ClientCommands
import LinuxSystem
import MachineStart

let arguments = commandLineArguments()
if isFirstProcess, arguments.count < 2 || !commandNames.contains(arguments[1]) {
  startMachine(arguments)
}
exitProcess(runCommand(arguments.dropFirst()))
