// SPDX-License-Identifier: Apache-2.0
// The benchmark still runs: every server starts and answers, its figures arrive in the tables, and
// its generator would notice wrong data.

import Foundation
import TestSupport
import Testing

@Suite("The benchmark", .serialized)
struct BenchmarkTests {
  static let sources = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appendingPathComponent("Benchmarks/server").path
  static let programs = programsAreThere("gcc", "nbdkit", "qemu-nbd", "nbd-server")
  static let comment: Comment = "gcc, nbdkit, qemu-nbd or nbd-server is missing"

  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// Built once, beside the tests, and again when a source is newer.
  static func programsDirectory() throws -> String { try builtProgram("bench-programs") }

  /// A look at a few workloads, all data compared. What is measured in so short a time means nothing.
  private func bench(_ arguments: [String]) throws -> FinishedProcess {
    try run(
      "\(Self.sources)/bench.py",
      ["--quick", "--seconds", "0.05", "--verify", "--rootlinkd", builtProgram("rootlinkd")]
        + ["--programs", Self.programsDirectory(), "--out", directory.path] + arguments,
      seconds: 240)
  }

  /// The table's rows, by the names of its columns.
  private func rows(_ name: String) throws -> [[String: String]] {
    let text = try String(contentsOfFile: directory.path(name), encoding: .utf8)
    let lines = text.split(separator: "\n").map { line in
      line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
    }
    let heads = try #require(lines.first)
    return lines.dropFirst().map { Dictionary(uniqueKeysWithValues: zip(heads, $0)) }
  }

  @Test("gets figures of every server in every setting", .enabled(if: programs, comment))
  func allServers() throws {
    let ended = try bench(["--sockets", "tcp", "--workloads", "read-4k-q32", "--size", "8388608"])
    #expect(ended.exitStatus == 0, "\(ended.standardError)")
    let runs = try rows("runs.tsv")
    #expect(
      Set(runs.compactMap { $0["server"] })
        == ["rootlinkd", "limit", "nbdkit", "qemu-nbd", "nbd-server"])
    for run in runs {
      #expect(run["failed"] == "", "\(run)")
      #expect(Double(run["rate"] ?? "") ?? 0 > 0, "\(run)")
      #expect(Double(run["cpu"] ?? "") ?? 0 > 0, "\(run)")
    }
    let summary = try rows("summary.tsv")
    #expect(summary.map { $0["socket"] } == ["tcp"])
    for row in summary { #expect(Double(row["ours_per_peer"] ?? "") ?? 0 > 0, "\(row)") }
    let plot = try String(contentsOfFile: directory.path("ratios.svg"), encoding: .utf8)
    #expect(plot.contains("4 KiB random read, QD 32") && plot.hasSuffix("</svg>\n"))
  }

  static let loads = [
    (
      "tmpfs", "tcp",
      ["read-4k-4xq32", "write-1m-q8", "handshakes", "read-64k-100", "storm", "mixed"], 6
    ),
    ("disk", "unix", ["read-4k-4xq32", "write-4k-q32", "write-1m-q8"], 2),
    ("overlay", "unix", ["storm-overlay"], 1),
  ]

  @Test("gets right data in every kind of load", .enabled(if: programs, comment), arguments: loads)
  func allWorkloads(
    medium: String, socket: String, workloads: [String], settingCount: Int
  ) throws {
    // The clients of the storm read 64 MiB each.
    let ended = try bench([
      "--servers", "rootlinkd,limit", "--sockets", socket, "--media", medium, "--workloads",
      workloads.joined(separator: ","), "--size", "67108864",
    ])
    #expect(ended.exitStatus == 0, "\(ended.standardError)")
    let runs = try rows("runs.tsv")
    #expect(runs.count == workloads.count * settingCount)
    for run in runs { #expect(run["failed"] == "", "\(run)") }
  }

  /// A bare responder of 1 MiB, and how the generator is run against it.
  private func responder() throws -> (image: String, process: RunningProcess, load: [String]) {
    // Builds the programs, if it is the first.
    let built = try bench(["--servers", "limit", "--workloads", "handshakes", "--size", "1048576"])
    #expect(built.exitStatus == 0, "\(built.standardError)")
    let load = try Self.programsDirectory() + "/load"
    let image = directory.path("image")
    #expect(try run(load, ["--fill", image, "1048576"]).exitStatus == 0)
    let process = try RunningProcess(
      Self.programsDirectory() + "/limit", ["unix:\(directory.path("s"))", image])
    try wait("the socket of the responder") {
      FileManager.default.fileExists(atPath: directory.path("s"))
    }
    return (image, process, [load, "--seconds=0.05", "unix:\(directory.path("s"))"])
  }

  @Test("notices a wrong byte", .enabled(if: programs, comment))
  func wrongByte() throws {
    let (image, process, load) = try responder()
    let arguments = load.dropFirst() + ["--verify", "read,sequential,block=65536"]
    let right = try run(load[0], Array(arguments))
    #expect(right.exitStatus == 0, "\(right.standardError)")
    let file = try FileHandle(forUpdating: URL(fileURLWithPath: image))
    try file.seek(toOffset: 700_001)
    let byte = try #require(try file.read(upToCount: 1)?.first)
    try file.seek(toOffset: 700_001)
    try file.write(contentsOf: [byte ^ 1])
    let wrong = try run(load[0], Array(arguments))
    #expect(wrong.exitStatus == 1)
    #expect(wrong.standardError.contains("wrong data between byte"))
    #expect(process.exitStatus == nil)
  }

  #if arch(x86_64)
    @Test("counts a server's instructions and lets it go", .enabled(if: programs, comment))
    func instructions() throws {
      let (_, process, load) = try responder()
      struct Output: Decodable {
        struct Job: Decodable { var done: Double }
        struct Server: Decodable { var instructions: Double }
        var jobs: [Job]
        var server: Server
      }
      let ended = try run(
        load[0],
        load.dropFirst()
          + [
            "--seconds=60", "--steps", "--server=\(process.processIdentifier)",
            "read,random,depth=2",
          ], seconds: 300)
      #expect(ended.exitStatus == 0, "\(ended.standardError)")
      let output = try JSONDecoder().decode(Output.self, from: Data(ended.standardOutput.utf8))
      let each = try output.server.instructions / #require(output.jobs.first).done
      // About 130 when this was written; what a compiler makes of it may vary.
      #expect((20...500).contains(each), "\(each)")
      let after = try run(load[0], load.dropFirst() + ["read,random,depth=32"])
      #expect(after.exitStatus == 0, "\(after.standardError)")
      #expect(process.exitStatus == nil)
    }
  #endif
}
