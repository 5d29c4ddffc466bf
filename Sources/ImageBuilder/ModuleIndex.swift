// SPDX-License-Identifier: Apache-2.0
// The kernel's modules as depmod(8) lists them: what each needs, what is built in, what hardware
// each is for. Out of it comes the order in which a machine without modprobe loads them.
// Source: modules.dep(5), modprobe.d(5) for soft dependencies, kmod's `libkmod`.

/// A module's file, and its name as the kernel has it.
public struct KernelModule: Hashable, Sendable {
  /// With `_` for every `-`, without `.ko` and what compresses it.
  public let name: String
  /// Below the module directory: `kernel/drivers/net/virtio_net.ko.xz`.
  public let path: String

  /// `path` is below the module directory.
  public init(path: String) {
    self.path = path
    name = Self.name(of: path)
  }

  /// The kernel's name of a file or of what somebody typed.
  public static func name(of path: some StringProtocol) -> String {
    var name = ""
    for character in path {
      if character == "/" { name = "" } else { name.append(character == "-" ? "_" : character) }
    }
    return String(name.prefix { $0 != "." })
  }
}

/// Why there is no order of modules; of the files of depmod(8), lines are counted from 1.
public enum ModuleIndexError: Error, Equatable, Sendable {
  case malformed(file: String, line: Int)
  /// Neither a module nor built in; `neededBy` names the module that asks for it.
  case notFound(String, neededBy: String?)
  /// Modules that need each other.
  case circle([String])

  public var report: (reason: String, advice: String) {
    switch self {
    case .malformed(let file, let line):
      ("line \(line) of \(file) cannot be read", "run depmod for this kernel again")
    case .notFound(let name, let neededBy):
      (
        "there is no module \(name)" + (neededBy.map { ", which \($0) needs" } ?? ""),
        "check its name and the kernel version; run depmod when modules were added"
      )
    case .circle(let names):
      (
        "modules need each other: " + names.joined(separator: ", "),
        "run depmod for this kernel again"
      )
    }
  }
}

/// The modules of one kernel.
public struct ModuleIndex: Sendable {
  private struct SoftDependencies {
    var before: [String] = []
    var after: [String] = []
  }

  private var modules: [String: KernelModule] = [:]
  /// By name, in the order of the file.
  private var needs: [String: [String]] = [:]
  private var builtin: Set<String> = []
  private var soft: [String: SoftDependencies] = [:]
  private var aliases: [(pattern: [UInt8], module: String)] = []
  /// Those that are no patterns, with `_` for every `-`.
  private var modulesByAlias: [String: [String]] = [:]

  /// The contents of `modules.dep`, `modules.builtin`, `modules.softdep` and `modules.alias`; the
  /// last three may be empty.
  public init(
    dependencies: String, builtin: String = "", softDependencies: String = "", aliases: String = ""
  ) throws(ModuleIndexError) {
    for (number, line) in Self.lines(dependencies) {
      guard let colon = line.firstIndex(of: ":"), colon > line.startIndex else {
        throw .malformed(file: "modules.dep", line: number)
      }
      let module = KernelModule(path: String(line[..<colon]))
      modules[module.name] = module
      needs[module.name] = line[line.index(after: colon)...].split(separator: " ").map {
        KernelModule.name(of: $0)
      }
    }
    for (_, line) in Self.lines(builtin) { self.builtin.insert(KernelModule.name(of: line)) }
    for (number, line) in Self.lines(softDependencies) {
      try readSoft(line.split(separator: " "), number)
    }
    for (number, line) in Self.lines(aliases) {
      // An alias may have spaces: those of sound cards in Linux 6.12 for arm64 do.
      guard line.hasPrefix("alias "), let end = line.lastIndex(of: " "),
        case let alias = line[..<end].dropFirst("alias ".count), !alias.isEmpty
      else { throw .malformed(file: "modules.alias", line: number) }
      let module = KernelModule.name(of: line[line.index(after: end)...])
      self.aliases.append((Array(alias.utf8), module))
      if !alias.contains(where: { "*?[".contains($0) }) {
        modulesByAlias[KernelModule.name(of: alias), default: []].append(module)
      }
    }
  }

  /// Without empty lines and comments, counted from 1.
  private static func lines(_ text: String) -> [(Int, Substring)] {
    var lines: [(Int, Substring)] = []
    for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated()
    where !line.isEmpty && !line.hasPrefix("#") {
      lines.append((index + 1, line))
    }
    return lines
  }

  /// `softdep NAME pre: A B post: C`.
  private mutating func readSoft(_ words: [Substring], _ number: Int) throws(ModuleIndexError) {
    guard words.count >= 2, words[0] == "softdep" else {
      throw .malformed(file: "modules.softdep", line: number)
    }
    let name = KernelModule.name(of: words[1])
    var found = soft[name] ?? SoftDependencies()
    var isAfter: Bool?
    for word in words.dropFirst(2) {
      if word == "pre:" {
        isAfter = false
      } else if word == "post:" {
        isAfter = true
      } else if let isAfter {
        if isAfter {
          found.after.append(KernelModule.name(of: word))
        } else {
          found.before.append(KernelModule.name(of: word))
        }
      }
      // A word before either is passed over, as modprobe(8) does: Debian's cifs has such lines.
    }
    soft[name] = found
  }

  /// `names` and all that they need, each after what it needs; what is built in is left out. What
  /// a module only likes to have (soft dependencies) is left out when it is not there or in
  /// `excluded`. The order depends on nothing but the arguments and the files.
  public func loadOrder(
    of names: [String], excluding excluded: Set<String> = []
  ) throws(ModuleIndexError) -> [KernelModule] {
    var order = Order(excluded: Set(excluded.map { KernelModule.name(of: $0) }))
    for name in names {
      try visit(KernelModule.name(of: name), neededBy: nil, &order)
    }
    return order.modules
  }

  private struct Order {
    let excluded: Set<String>
    var modules: [KernelModule] = []
    var done: Set<String> = []
    /// From the first module asked for to the one being visited.
    var way: [String] = []
  }

  private func visit(
    _ name: String, neededBy: String?, _ order: inout Order
  ) throws(ModuleIndexError) {
    guard !order.done.contains(name) else { return }
    guard let module = modules[name] else {
      guard builtin.contains(name) else { throw .notFound(name, neededBy: neededBy) }
      return
    }
    if let start = order.way.firstIndex(of: name) {
      throw .circle(Array(order.way[start...]))
    }
    order.way.append(name)
    for wish in soft[name]?.before ?? [] { try visitWish(wish, of: name, &order) }
    for need in needs[name] ?? [] { try visit(need, neededBy: name, &order) }
    order.way.removeLast()
    order.modules.append(module)
    order.done.insert(name)
    for wish in soft[name]?.after ?? [] { try visitWish(wish, of: name, &order) }
  }

  /// Soft dependencies may go in circles; those are cut. One may be an alias, `crypto-crc32c`, of
  /// several modules, and which of them this or that processor can use is seen when they are loaded.
  private func visitWish(
    _ wish: String, of name: String, _ order: inout Order
  ) throws(ModuleIndexError) {
    let meant = modules[wish] != nil ? [wish] : modulesByAlias[wish] ?? []
    for module in meant
    where modules[module] != nil && !order.excluded.contains(module) && !order.way.contains(module)
    {
      var trial = order
      do throws(ModuleIndexError) {
        try visit(module, neededBy: name, &trial)
        order = trial
      } catch {
        // Nothing that is needed: the module goes without it.
      }
    }
  }

  /// The modules for a device, by what its `modalias` in sysfs says; each once, in the order of
  /// the file.
  public func modules(forModalias modalias: String) -> [String] {
    let text = Array(modalias.utf8)
    var found: [String] = []
    for (pattern, module) in aliases
    where !found.contains(module) && AliasPattern.matches(pattern, text) {
      found.append(module)
    }
    return found
  }
}
