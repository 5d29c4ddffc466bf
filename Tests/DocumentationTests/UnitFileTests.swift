// SPDX-License-Identifier: Apache-2.0
// The units of the server: as systemd reads them, and how much they leave open.

import Foundation
import TestSupport
import Testing

@Suite("The units of the server")
struct UnitFileTests {
  static let hasTool =
    ManualTests.mustRunAll
    || FileManager.default.isExecutableFile(atPath: "/usr/bin/systemd-analyze")

  static func path(_ unit: String) -> String {
    ManualTests.repository.appendingPathComponent("systemd/\(unit)").path
  }

  @Test(
    "are read by systemd without a complaint about what is in them",
    .enabled(if: hasTool, "systemd-analyze is missing: install systemd"),
    arguments: ["rootlinkd.service", "rootlinkd.socket"])
  func verify(unit: String) throws {
    let result = try run("systemd-analyze", ["verify", "--man=no", Self.path(unit)])
    // The program need not be installed here, and other units are none of ours.
    let complaints = (result.standardOutput + result.standardError).split(separator: "\n").filter {
      $0.contains("rootlinkd") && !$0.contains("is not executable")
    }
    #expect(complaints.isEmpty, "\(complaints)")
  }

  @Test(
    "leave the service little to do harm with",
    .enabled(if: hasTool, "systemd-analyze is missing: install systemd"))
  func exposure() throws {
    let result = try run(
      "systemd-analyze",
      ["security", "--offline=true", "--no-pager", Self.path("rootlinkd.service")])
    let line = try #require(
      result.standardOutput.split(separator: "\n").first { $0.contains("Overall exposure level") },
      "\(result.standardError)")
    let score = try #require(line.firstMatch(of: /: ([0-9.]+)/).flatMap { Double($0.1) })
    #expect(score < 3)
  }

  @Test("are installed, and name the program where it is")
  func installation() throws {
    let makefile = try String(
      contentsOf: ManualTests.repository.appendingPathComponent("Makefile"), encoding: .utf8)
    #expect(makefile.contains("systemd/rootlinkd.service"))
    #expect(makefile.contains("systemd/rootlinkd.socket"))
    let unit = try String(contentsOfFile: Self.path("rootlinkd.service"), encoding: .utf8)
    #expect(unit.contains("ExecStart=/usr/sbin/rootlinkd serve\n"))
    // What systemd is told by the server, it must expect.
    #expect(unit.contains("Type=notify\n") && unit.contains("WatchdogSec="))
  }
}
