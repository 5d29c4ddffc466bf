// SPDX-License-Identifier: Apache-2.0
import NBDProtocol
import Testing

@testable import BootExecution

@Suite("What the kernel is told of a server's answer")
struct UblkLimitsTests {
  /// Source: NBD `doc/proto.md`, "Error values"; the numbers of Linux `errno.h`.
  @Test(
    "is the length, 0, or the errno of that name",
    arguments: [
      (error: UInt32(0), command: CommandCode.read, result: Int32(4096)),
      (0, .write, 4096), (0, .flush, 0), (0, .trim, 0), (0, .writeZeroes, 0),
      (1, .write, -1), (5, .read, -5), (12, .read, -12), (22, .read, -22), (28, .write, -28),
      (75, .writeZeroes, -75), (95, .writeZeroes, -95), (17, .read, -22), (.max, .read, -22),
    ])
  func results(error: UInt32, command: CommandCode, result: Int32) {
    #expect(UblkLimits.result(ErrorNumber(rawValue: error), command, 4096) == result)
  }
}
