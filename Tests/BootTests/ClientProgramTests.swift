// SPDX-License-Identifier: Apache-2.0
// What is promised of the programs that go into an initramfs: one file that needs no other, and small.

import Foundation
import TestSupport
import Testing

@Suite("The client's program")
struct ClientProgramTests {
  static var programs: [(file: URL, byteCountMaximum: Int, make: String)] {
    [
      (BootLab.client, 899_999, "make"), (BootLab.smallClient, 699_999, "make"),
      (RDMAClientLab.program, 2_000_000, "make rdma"),
    ]
  }
  static let missing = programs.first { findProgram($0.file.path) == nil }

  @Test(
    "is small, needs no library and opens none when it runs",
    .enabled(
      if: missing == nil || mayNotSkip,
      "\(missing?.file.path ?? "") is missing; run \(missing?.make ?? "")"))
  func needsNothing() throws {
    for (file, byteCountMaximum, _) in Self.programs {
      let bytes = [UInt8](try Data(contentsOf: file))
      #expect(bytes.count <= byteCountMaximum, "\(file.lastPathComponent)")
      // Source: elf(5): e_phoff, e_phentsize and e_phnum of a 64-bit file, then p_type of each.
      func number(_ offset: Int, _ count: Int) -> Int {
        (0..<count).reduce(0) { $0 | Int(bytes[offset + $1]) << (8 * $1) }
      }
      let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2))
      let types = (0..<count).map { number(start + $0 * size, 4) }
      #expect(types.contains(1), "PT_LOAD")
      #expect(!types.contains(2) && !types.contains(3), "PT_DYNAMIC, PT_INTERP")
      // Whoever opens a library names it, and says so when he cannot.
      for text in [".so.", "shared object", "libibverbs.d"] {
        #expect(Data(bytes).range(of: Data(text.utf8)) == nil, "\(file.lastPathComponent): \(text)")
      }
    }
  }
}
