// SPDX-License-Identifier: Apache-2.0
// What goes into an image, decided before a byte of it is written.

import Foundation
import ImageBuilder

struct ImageContents {
  private(set) var archive = CPIOArchive()
  /// Lines of /etc/rootlink/modules.
  private var moduleLines: [String] = []
  private var present: Set<String> = []

  private mutating func add(_ entry: CPIOEntry) throws {
    do { try archive.add(entry) } catch { throw Failure.archive(error) }
  }

  mutating func add(file data: Data, at path: String, permissions: UInt16) throws {
    try add(CPIOEntry(path, .file(Array(data)), permissions: permissions))
  }

  /// The program, and the one device that the kernel opens before anything is mounted.
  mutating func addProgram(_ path: String) throws {
    try add(file: try Tools.read(path), at: "init", permissions: 0o755)
    try add(CPIOEntry("dev/console", .characterDevice(major: 5, minor: 1), permissions: 0o600))
  }

  /// `names` and what they need, to be loaded as the group `group`.
  mutating func addModules(
    _ names: [String], group: String, from tree: KernelTree, stripped isStripped: Bool
  ) throws {
    let order: [KernelModule]
    do { order = try tree.index.loadOrder(of: names) } catch { throw Failure.module(error) }
    for module in order {
      let path = tree.imagePath(of: module)
      moduleLines.append("\(group) /\(path)")
      guard present.insert(path).inserted else { continue }
      let file = try Tools.decompressed(tree.directory + "/" + module.path)
      try add(file: isStripped ? try Tools.stripped(file) : file, at: path, permissions: 0o644)
    }
  }

  mutating func addModuleList() throws {
    guard !moduleLines.isEmpty else { return }
    try add(
      file: Data((moduleLines.joined(separator: "\n") + "\n").utf8), at: "etc/rootlink/modules",
      permissions: 0o644)
  }

  /// A static busybox, and a link for each of its commands.
  mutating func addShell(_ path: String) throws {
    try add(file: try Tools.read(path), at: "bin/busybox", permissions: 0o755)
    for name in Self.commands(of: path) {
      try add(CPIOEntry("bin/\(name)", .symbolicLink(target: "busybox"), permissions: 0o777))
    }
  }

  /// Without those that a program for another kind of machine could name, the shell alone.
  private static func commands(of path: String) -> [String] {
    let process = Process()
    let pipe = Pipe()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = ["--list"]
    process.standardOutput = pipe
    process.standardError = FileHandle.nullDevice
    guard (try? process.run()) != nil else { return ["sh"] }
    let data = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    var names: Set<String> = ["sh"]
    for name in String(decoding: data, as: UTF8.self).split(separator: "\n")
    where name.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || "-_[.".contains($0)) }) {
      names.insert(String(name))
    }
    names.remove("busybox")
    return names.sorted()
  }

  /// `name` is below /lib/firmware, where it may be compressed.
  mutating func addFirmware(_ name: String, root: String) throws {
    let path = root + "/lib/firmware/" + name
    for candidate in [path, path + ".zst", path + ".xz"]
    where FileManager.default.fileExists(atPath: candidate) {
      try add(
        file: try Tools.decompressed(candidate), at: "lib/firmware/\(name)", permissions: 0o644)
      return
    }
    throw Failure.unreadable(path: path, reason: "it is not there")
  }

  /// One line a file, in the order of the image.
  var listing: String {
    var text = ""
    var count = 0
    for entry in archive.sortedEntries {
      switch entry.content {
      case .file(let bytes):
        count += bytes.count
        text += "\(pad(bytes.count))  /\(entry.path)\n"
      case .symbolicLink, .directory: break
      case .characterDevice, .blockDevice: text += "\(pad(0))  /\(entry.path)\n"
      }
    }
    return text + "\(pad(count))  bytes in files\n"
  }
}

func pad(_ number: Int) -> String {
  let text = String(number)
  return String(repeating: " ", count: max(0, 10 - text.count)) + text
}
