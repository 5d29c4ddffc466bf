// SPDX-License-Identifier: Apache-2.0
// What a test finds around it: programs, its own scratch directory, whether skipping is allowed.

import Foundation

/// The path of a program: itself when it has a slash, else the first in PATH or the system's
/// directories. Nil when there is none.
public func findProgram(_ name: String) -> String? {
  if name.contains("/") { return FileManager.default.isExecutableFile(atPath: name) ? name : nil }
  let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
  for directory in path.split(separator: ":") + ["/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
    let candidate = "\(directory)/\(name)"
    if FileManager.default.isExecutableFile(atPath: candidate) { return candidate }
  }
  return nil
}

/// For `.enabled(if:)`: true when all programs are there. With ROOTLINK_REQUIRE_ALL=1 always true,
/// so that the test runs and fails instead of being skipped.
public func programsAreThere(_ names: String...) -> Bool {
  mayNotSkip || names.allSatisfy { findProgram($0) != nil }
}

/// Nothing may be skipped: ROOTLINK_REQUIRE_ALL is 1.
public var mayNotSkip: Bool {
  ProcessInfo.processInfo.environment["ROOTLINK_REQUIRE_ALL"] == "1"
}

/// The path of a program that this package builds, beside the tests themselves.
public func builtProgram(_ name: String) throws -> String {
  let tests = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
  return URL(fileURLWithPath: tests).deletingLastPathComponent().appendingPathComponent(name).path
}

/// A directory of the test's own, removed with the object. Paths in it are short enough for
/// Unix sockets.
public final class TemporaryDirectory: Sendable {
  public let path: String

  /// `inMemory`: for disks that a server makes durable again and again. What else is written to the
  /// machine's disk meanwhile would hold the server up for as long as a dead one is waited for.
  public init(inMemory: Bool = false) throws {
    let base =
      inMemory && FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm" : "/tmp"
    path = "\(base)/rootlink-test-" + String(UInt64.random(in: .min ... .max), radix: 36)
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  public func path(_ name: String) -> String { "\(path)/\(name)" }

  /// Creates a file and gives its path.
  @discardableResult
  public func file(_ name: String, _ contents: [UInt8] = []) throws -> String {
    try Data(contents).write(to: URL(fileURLWithPath: path(name)))
    return path(name)
  }
}
