// SPDX-License-Identifier: Apache-2.0
// Compression is done by the programs that every Linux has.

import Foundation

enum Tools {
  /// A directory of its own for `body`, gone when it is done.
  static func inDirectory<Value>(_ body: (URL) throws -> Value) throws -> Value {
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("rootlink-mkinitramfs-\(UUID().uuidString)")
    do {
      try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    } catch { throw Failure.unwritable(path: directory.path, reason: error.localizedDescription) }
    defer { try? FileManager.default.removeItem(at: directory) }
    return try body(directory)
  }

  static func write(_ data: Data, to file: URL) throws {
    do { try data.write(to: file, options: .atomic) } catch {
      throw Failure.unwritable(path: file.path, reason: error.localizedDescription)
    }
  }

  /// A module without what only debuggers, BPF and backtraces read, and without its signature, which
  /// would not fit it any more. The kernel sorts what is there for backtraces when it loads a module:
  /// 14,000 entries for ext4.
  static func stripped(_ module: Data) throws -> Data {
    try inDirectory { directory in
      let file = directory.appendingPathComponent("module")
      try write(module, to: file)
      _ = try output(
        "objcopy", ["--strip-unneeded"] + Self.unneededSections.flatMap { ["-R", $0] },
        of: file.path)
      return try read(file.path)
    }
  }

  /// Source: Linux `arch/x86/kernel/module.c`, which does without them.
  private static let unneededSections = [".BTF", ".orc_unwind", ".orc_unwind_ip", ".orc_header"]

  /// What `program` prints for the file `path`.
  static func output(_ program: String, _ options: [String], of path: String) throws -> Data {
    let process = Process()
    let pipe = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [program] + options + ["--", path]
    process.standardOutput = pipe
    do { try process.run() } catch {
      throw Failure.tool(name: program, reason: error.localizedDescription)
    }
    let data = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw Failure.tool(name: program, reason: "exit status \(process.terminationStatus)")
    }
    return data
  }

  static func read(_ path: String) throws -> Data {
    do { return try Data(contentsOf: URL(fileURLWithPath: path)) } catch {
      throw Failure.unreadable(path: path, reason: error.localizedDescription)
    }
  }

  /// The file as the kernel is to see it, whatever its name says that compresses it.
  static func decompressed(_ path: String) throws -> Data {
    switch URL(fileURLWithPath: path).pathExtension {
    case "xz": try output("xz", ["-dc"], of: path)
    case "zst": try output("zstd", ["-qdc"], of: path)
    case "gz": try output("gzip", ["-dc"], of: path)
    default: try read(path)
    }
  }
}
