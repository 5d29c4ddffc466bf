// SPDX-License-Identifier: Apache-2.0
// Boots that must fail say why on the console, in one line that a person can act on. The parameter
// panic=1 makes the initramfs reboot when it gives up, which ends QEMU.

import Foundation
import Testing

@Suite("A boot that cannot work", .enabled(if: BootLab.isEnabled, "\(BootLab.reason)"))
struct FailingBootTests {
  struct Failure: Sendable {
    let name: String
    let parameters: String
    let sentences: [String]
  }

  static let failures: [Failure] = [
    Failure(
      name: "unknown-export", parameters: "nbdroot=10.0.2.2/nothere rootlink.timeout=5",
      sentences: ["the server has no export 'nothere'", "rootlink attached no root device"]),
    Failure(
      name: "no-server", parameters: "nbdroot=10.0.2.2:10810/root rootlink.timeout=5",
      sentences: [
        "10.0.2.2:10810 refuses the connection: nothing listens there", "gave up after 5 s",
        "rootlink attached no root device",
      ]),
    Failure(
      name: "malformed", parameters: "nbdroot=10.0.2.2:99999/root",
      sentences: [
        "nbdroot=10.0.2.2:99999/root: character 10 of the value", "a port from 1 to 65535 expected",
        "rootlink cannot use the boot parameters",
      ]),
  ]

  @Test("says why on the console", arguments: failures)
  func saysWhy(failure: Failure) async throws {
    let guest = BootGuest(name: failure.name, parameters: failure.parameters)
    let outcome = try await guest.bootFromServer()
    for sentence in failure.sentences { outcome.expectConsole(contains: sentence) }
    #expect(!outcome.problems.isEmpty)
  }

  @Test("because the device is in use says by whom")
  func deviceInUse() async throws {
    var guest = BootGuest(name: "device-in-use", parameters: "nbdroot=10.0.2.2/root")
    guest.initramfsFilter = "occupy-device.sh"
    let outcome = try await guest.boot { network, disk in
      [
        try await network.serve(disk),
        try await network.serve(disk, options: ",overlay", port: 10810),
      ]
    }
    outcome.expectConsole(contains: "/dev/nbd0 is in use: ")
    outcome.expectConsole(contains: "rootlink attached no root device")
  }
}
