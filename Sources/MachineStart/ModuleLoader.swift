// SPDX-License-Identifier: Apache-2.0
// The kernel modules that came with the image, in the order that was found when it was built. No
// dependency is looked up here.
//
// /etc/rootlink/modules: a line is a group and a path. The group `start` is loaded at once; the
// others have the name of what needs them (`ext4`, `overlay`, `8021q`) and wait until it is needed.

import BootPlanning
import CLinux
import LinuxSystem
import WireFormat

struct ModuleLoader {
  static let listPath: ByteString = "/etc/rootlink/modules"
  static let listByteCountMaximum = 1 << 20
  static let startGroup: ByteString = "start"

  private let entries: [(group: ByteString, path: ByteString)]
  /// Names with `_`, not to be loaded.
  private let blacklist: [ByteString]
  private(set) var words: [KernelParameter]
  private var loaded: [ByteString] = []
  private let log: Log

  /// Without a list there is nothing to load: the kernel has it all built in.
  init(commandLine: ByteString, blacklist: [ByteString], log: Log) {
    let list = (try? readFile(Self.listPath, limit: Self.listByteCountMaximum)) ?? ""
    entries = Self.entries(list)
    self.blacklist = blacklist
    words = KernelParameter.split(commandLine)
    self.log = log
  }

  static func entries(_ list: ByteString) -> [(group: ByteString, path: ByteString)] {
    var entries: [(group: ByteString, path: ByteString)] = []
    for line in list.fields(separatedBy: 0x0a) {
      guard let (group, path) = line.trimmed.cut(at: 0x20), !path.isEmpty else { continue }
      entries.append((group, path))
    }
    return entries
  }

  /// The kernel's name of a module's file.
  static func name(of path: ByteString) -> ByteString {
    var name: [UInt8] = []
    for byte in path.bytes {
      if byte == 0x2f { name = [] } else { name.append(byte == 0x2d ? 0x5f : byte) }
    }
    if let dot = name.firstIndex(of: 0x2e) { name = Array(name[..<dot]) }
    return ByteString(name)
  }

  /// `nbd.max_part=15` on the line is `max_part=15` to the module nbd. Source: modprobe(8).
  static func parameters(of module: ByteString, in words: [KernelParameter]) -> ByteString {
    var text = ByteString()
    for word in words {
      guard let (prefix, name) = word.name.cut(at: 0x2e), !name.isEmpty,
        Self.name(of: prefix) == module
      else { continue }
      if !text.isEmpty { text += " " }
      text += name
      guard let value = word.value else { continue }
      text += value.bytes.contains(0x20) ? "=\"" + value + "\"" : "=" + value
    }
    return text
  }

  /// As if these words were on the command line, where it does not say otherwise.
  mutating func prefer(_ text: ByteString) {
    for word in KernelParameter.split(text) {
      var isThere = false
      for other in words where other.name == word.name { isThere = true }
      if !isThere { words.append(word) }
    }
  }

  /// Loads a group; with nothing of that name it is built in, or missing, which its user will see.
  mutating func load(_ group: ByteString) {
    for entry in entries where entry.group == group {
      let name = Self.name(of: entry.path)
      guard !loaded.contains(name), !blacklist.contains(name) else { continue }
      loaded.append(name)
      do { try insert(entry.path, Self.parameters(of: name, in: words)) } catch .exists {
      } catch {
        // ENODEV: a faster way to do something, for a processor that is not this one.
        if error.errno == 19 { continue }
        log.write(.warning, "the module \(name.printable) is not loaded: \(error.text)")
      }
    }
  }

  /// Loads the file system that will be needed, when there can be no doubt which, while this process
  /// waits for the network. The child's number, to be waited for; nil when there is none.
  func loadAhead(_ fileSystems: [ByteString]) -> CInt? {
    var groups: [ByteString] = []
    for entry in entries
    where entry.group != Self.startGroup && !Self.notFileSystems.contains(entry.group) {
      if !groups.contains(entry.group) { groups.append(entry.group) }
    }
    if groups.count > 1 { groups = groups.filter { fileSystems.first == $0 } }
    guard let group = groups.first else { return nil }
    let child = clinux_fork()
    if child == 0 {
      var loader = self
      loader.load(group)
      clinux_exit_now(0)
    }
    return child > 0 ? child : nil
  }

  private static let notFileSystems: [ByteString] = ["overlay", "8021q", "ublk_drv"]

  private func insert(_ path: ByteString, _ parameters: ByteString) throws(SystemError) {
    let file = try FileDescriptor.open(path)
    let number = file.rawValue
    // SAFETY: a terminated copy.
    _ = try unsafe withCString(parameters) { unsafe clinux_load_module(number, $0) }
  }
}
