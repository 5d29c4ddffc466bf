// SPDX-License-Identifier: Apache-2.0
// In PID 1 a trap is a kernel panic without a word, so no command line and no lease may cause one.
// A million lines and a hundred thousand lease files, most of them nearly right, in shards.

import BootPlanning
import Foundation
import TestSupport
import Testing
import WireFormat

@Suite("Whatever the bytes are")
struct RandomInputTests {
  static let shards = Array(0..<10)
  static let linesAShard = 100_000
  static let leasesAShard = 10_000
  /// One seed for all shards, printed once.
  static let seed: UInt64 = {
    var generator = SeededGenerator(printingAs: "BootPlanning random input")
    return generator.next()
  }()

  static let alphabet =
    Array(
      " =:/,@[]%.-_?#&;\"'\\$(){}!+*~\n\t0123456789abcdefnNpxU".utf8) + [0, 0x7f, 0x80, 0xa0, 0xff]

  static let lines: [[UInt8]] =
    (NBDRootTests.rows + DracutTests.rows + DracutTests.aliases + RNBDTests.rows + RNBDTests.more
    + RootTests.rows + KernelParameterTests.values.filter { $0.line.utf8.count < 400 })
    .map { Array($0.line.utf8) }
    + URITests.rows.map { Array("nbdroot=\($0.line)".utf8) }
    + NetworkParameterTests.cases.map { Array("nbdroot=/foo \($0.line)".utf8) }

  static let rootPaths =
    (NBDRootTests.rows + DracutTests.rows).compactMap(\.rootPath) + URITests.rows.map(\.line)

  @Test("a command line is planned or refused, and refused at a place inside it", arguments: shards)
  func commandLines(shard: Int) throws {
    var mutator = ByteMutator(
      samples: Self.lines, alphabet: Self.alphabet, seed: Self.seed &+ UInt64(shard))
    var input = PlanningInput(commandLine: ByteString())
    let leases = [[Row.lease(rootPath: "")]] + Self.rootPaths.map { [Row.lease(rootPath: $0)] }
    var planned = 0
    for index in 0..<Self.linesAShard {
      let line = ByteString(mutator.next())
      input.commandLines[0] = line
      if index % 64 == 0 {
        input.leaseFiles = index / 64 % 4 == 0 ? leases[index / 256 % leases.count] : []
        input.environment = [.bare, .dracut, .initramfsTools][index / 64 % 3]
        input.allowsMissingLease = index / 64 % 5 == 0
      }
      do {
        let plan = try plan(for: input)
        if !plan.isEmpty { planned += 1 }
        if index % 32 == 0 { try check(plan, line) }
      } catch let error as PlanError {
        if case .malformed(_, let value, let column, let syntax) = error {
          let isInside = syntax.offset <= value.count && (column ?? 1) <= line.count + 1
          if !isInside { Issue.record("\(error) for \(line.bytes)") }
        }
        if index % 32 == 0 { _ = error.report }
      }
    }
    // Mutants that are never planned would test nothing but refusals.
    #expect(planned > Self.linesAShard / 10)
  }

  private func check(_ plan: AttachmentPlan, _ line: ByteString) throws {
    #expect(throws: Never.self, "\(line.bytes)") {
      _ = try JSONSerialization.jsonObject(with: Data(plan.json))
    }
    // Every line of the shell form is a name, `=`, and one quoted word or a plain one of ours.
    #expect(plan.shellAssignments.last == 0x0a)
    for warning in plan.warnings { _ = warning.text }
  }

  @Test("a lease is read or left out", arguments: shards)
  func leases(shard: Int) throws {
    var input = LeaseTests.input("nbdroot=dhcp", [])
    for (number, sample) in LeaseTests.samples.enumerated() {
      var mutator = ByteMutator(
        samples: [sample.text.bytes], alphabet: Self.alphabet,
        seed: Self.seed &+ UInt64(1000 + shard * 16 + number))
      for index in 0..<(Self.leasesAShard / LeaseTests.samples.count) {
        let file = LeaseFile(
          path: sample.path, bytes: ByteString(mutator.next()),
          modificationTime: index % 2 == 0 ? 0 : .max)
        input.leaseFiles = [file]
        let plan = try? plan(for: input)
        if index % 32 == 0, let plan { try check(plan, file.bytes) }
      }
    }
  }
}
