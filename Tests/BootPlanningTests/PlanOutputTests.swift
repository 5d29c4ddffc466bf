// SPDX-License-Identifier: Apache-2.0
// What `rootlink plan` prints, and what the hooks evaluate.

import BootPlanning
import Foundation
import TestSupport
import Testing
import WireFormat

@Suite("A plan")
struct PlanOutputTests {
  private func object(_ row: Row) throws -> NSDictionary {
    let json = try plan(for: row.input()).json
    return try #require(JSONSerialization.jsonObject(with: Data(json)) as? NSDictionary)
  }

  @Test("has the documented keys, with null for what nobody said")
  func keys() throws {
    let line = "nbdroot=10.0.2.2/root root=/dev/nbd0p1 ro"
    let plan = try object(Row("", line, ""))
    let target = try #require((plan["targets"] as? [NSDictionary])?.first)
    let expected: NSDictionary = [
      "protocol": "nbd", "exports": ["root"], "tls": false, "device": "/dev/nbd0", "driver": "nbd",
      "connections": 1, "accessMode": "rw", "origin": "nbdroot=", "pending": false,
      "paths": [["source": NSNull(), "server": "10.0.2.2", "port": 10809] as NSDictionary],
    ]
    #expect(target == expected)
    let root: NSDictionary = [
      "device": "/dev/nbd0p1", "fstype": NSNull(), "flags": NSNull(), "readOnly": true,
      "overlay": false, "rootLink": false,
    ]
    #expect(plan["root"] as? NSDictionary == root)
    #expect(plan["warnings"] as? [String] == [])
  }

  @Test("says which lease named the server, and in which field")
  func serverOrigin() throws {
    let plan = try object(Row("", "nbdroot=/root", ""))
    let target = try #require((plan["targets"] as? [NSDictionary])?.first)
    #expect(target["serverOrigin"] as? String == "lease:eth0")
    #expect(target["serverOriginDetail"] as? String == "ROOTSERVER in /run/net-eth0.conf")
  }

  @Test("has the keys of RNBD")
  func rnbd() throws {
    let line = "ibnbd-root=sessname=s,path=ip:10.0.0.1@ip:10.0.0.2,device_path=d nbdroot=h/x"
    let plan = try object(Row("", line, ""))
    let target = try #require((plan["targets"] as? [NSDictionary])?.first)
    #expect(target["protocol"] as? String == "rnbd")
    #expect(target["session"] as? String == "s")
    #expect(target["devicePath"] as? String == "d")
    #expect(target["ioMode"] as? String == "blockio")
    #expect(target["driver"] as? String == "ublk")
    #expect((target["paths"] as? [NSDictionary])?.first?["source"] as? String == "10.0.0.1")
    #expect((plan["fallbackTargets"] as? [NSDictionary])?.count == 1)
  }

  @Test("is valid JSON for every row of every table, as a lease's root-path too")
  func everyRow() throws {
    for row in NBDRootTests.rows + DracutTests.rows + RNBDTests.rows + RootTests.rows {
      guard let plan = try? plan(for: row.input()) else { continue }
      #expect(throws: Never.self) { try JSONSerialization.jsonObject(with: Data(plan.json)) }
    }
  }

  @Test("becomes assignments that say the same to a hook")
  func shell() throws {
    let line = "root=nbd:192.0.2.1:foo:ext4:noatime,rw ip=:::::eth0:dhcp"
    let text = String(
      decoding: try plan(for: Row("", line, "").input()).shellAssignments, as: UTF8.self)
    #expect(
      text == """
        ROOTLINK_TARGETS=1
        ROOTLINK_NETWORK=yes
        ROOTLINK_DEVICE='/dev/nbd0'
        ROOTLINK_ROOT='/dev/nbd0'
        ROOTLINK_FSTYPE='ext4'
        ROOTLINK_FLAGS='noatime'
        ROOTLINK_READONLY='n'
        ROOTLINK_INTERFACE='eth0'

        """)
  }

  static let hostile = [
    "a'b", "';touch${IFS}X;'", "$(touch${IFS}X)", "`touch${IFS}X`", #"\"#, "a\"b", "--", "'", "''",
    "a&b|c;d", "*", "~", "!x",
  ]

  @Test("cannot make a shell run anything, whatever the value is", arguments: hostile)
  func hostileValues(value: String) throws {
    let plan = try plan(
      for: PlanningInput(commandLine: ByteString("nbdroot=h/a rootflags=\(value)")))
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("rootlink-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    let script = directory.appendingPathComponent("plan")
    try (Data(plan.shellAssignments) + Data("printf %s \"$ROOTLINK_FLAGS\"".utf8)).write(to: script)
    let shell = Process()
    shell.executableURL = URL(fileURLWithPath: "/bin/sh")
    shell.arguments = [script.path]
    shell.currentDirectoryURL = directory
    let output = Pipe()
    shell.standardOutput = output
    try shell.run()
    let printed = output.fileHandleForReading.readDataToEndOfFile()
    shell.waitUntilExit()
    #expect(String(decoding: printed, as: UTF8.self) == value)
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == ["plan"])
  }
}
