// SPDX-License-Identifier: Apache-2.0
import Testing

@testable import BootExecution

@Suite("What the kernel says of a socket that it was handed")
struct HandOverWitnessTests {
  /// Records as Linux 6.1 and 6.12 write them to /dev/kmsg.
  static let records: [(record: String, isIt: Bool)] = [
    ("6,812,29033221,-;block nbd1: reconnected socket\n SUBSYSTEM=block\n DEVICE=b43:32\n", true),
    ("nbd1: reconnected socket", true),
    ("6,812,29033221,-;block nbd11: reconnected socket\n SUBSYSTEM=block\n", false),
    ("6,812,29033221,-;block xnbd1: reconnected socket\n", false),
    ("3,813,29033222,-;block nbd1: Receive control failed (result -32)\n", false),
    ("6,812,29033221,-;block nbd1: reconnected socke", false),
    ("", false),
  ]

  @Test("is found in the records of its own device", arguments: records)
  func found(record: String, isIt: Bool) {
    #expect(contains(Array("nbd1: reconnected socket".utf8), Array(record.utf8).span) == isIt)
  }

  @Test("is not known without the log")
  func noLog() {
    var bytes = [UInt8](repeating: 0, count: 64)
    let witness = HandOverWitness(descriptor: -1, device: Array("nbd1".utf8))
    witness.begin()
    let verdict = unsafe bytes.withUnsafeMutableBufferPointer { memory in
      // SAFETY: the array's own storage.
      unsafe witness.verdict(memory)
    }
    #expect(verdict == .unknown)
  }
}
