// SPDX-License-Identifier: Apache-2.0
// A process that guards itself like one that a root device depends on, and stays until it is
// killed. What it could not apply goes to standard output, then `ready`.

import LinuxSystem
import WireFormat

becomeKeeper(named: "guard-probe", keeping: [1])
var report: ByteString = ""
for failure in TaskGuard.applyAll() {
  report += ByteString("\(failure.guard.text): \(failure.error.text)\n")
}
_ = writeStandardOutput(report + "ready\n")
while true { pause(milliseconds: 1000) }
