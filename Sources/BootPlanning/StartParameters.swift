// SPDX-License-Identifier: Apache-2.0
// What PID 1 of our own reads from the command line besides what is to be attached: which
// interfaces to bring up, how to mount the root, what to start on it.
//
// The planner knows what to attach and which device the root is; these words are about what other
// initramfs programs do around it, so only PID 1 asks for them. Source: Linux
// `Documentation/admin-guide/kernel-parameters.txt`; dracut.cmdline(7) for `vlan=`.

import WireFormat

/// A writable layer in memory over a root that stays as it is.
public struct MemoryOverlay: Equatable, Sendable {
  public enum Size: Equatable, Sendable {
    /// What tmpfs takes by itself: half of the memory.
    case usual
    /// 1 to 2^50.
    case bytes(UInt64)
    /// Of the memory, 1 to 100.
    case percent(UInt8)
  }
  public var size = Size.usual

  public init(size: Size = .usual) { self.size = size }
}

/// An interface on top of another one.
public struct VLANRequest: Equatable, Sendable {
  /// Ends with the identifier: `vlan5`, `eth0.0005`.
  public var name: ByteString
  /// The interface that it lies on.
  public var parent: ByteString
  /// 1 to 4094. Source: IEEE 802.1Q, table 9-2.
  public var identifier: UInt16

  public init(name: ByteString, parent: ByteString, identifier: UInt16) {
    self.name = name
    self.parent = parent
    self.identifier = identifier
  }
}

/// What PID 1 of our own reads of one command line. Nil, empty and the defaults: the word is not
/// there. Of words that come twice the last one counts, but interfaces, VLANs, name servers and
/// modules add up.
public struct StartParameters: Equatable, Sendable {
  /// Of each list; what comes behind it is passed over.
  public static let repeatCountMaximum = 64
  /// A week.
  public static let timeMaximumSeconds: UInt64 = 604_800

  /// In the order of the line.
  public var interfaces: [InterfaceRequest] = []
  /// In the order of the line.
  public var vlans: [VLANRequest] = []
  /// `BOOTIF=`: the address of the interface that the machine was booted from.
  public var bootHardwareAddress: [UInt8]?
  /// `bootdev=`: the interface of every `ip=` that names none.
  public var bootDevice: ByteString?
  /// `nameserver=`: in place of those of the lease and of `ip=`.
  public var nameServers: [ServerAddress] = []
  /// `hostname=`, or the fifth field of `ip=`: the last on the line.
  public var hostName: ByteString?

  /// `root=` as it stands there.
  public var root: ByteString?
  /// To be tried in this order; empty: what lies on the device says it.
  public var rootFileSystems: [ByteString] = []
  /// `rootflags=`, as mount(8) takes them behind `-o`.
  public var rootFlags: ByteString?
  /// Nil when neither `ro` nor `rw` is there.
  public var isReadOnly: Bool?
  /// `rootwait`, for ever, or `rootwait=SECONDS`.
  public var rootWait = DeviceWait.usual
  /// To be waited before the root is looked for.
  public var rootDelaySeconds: UInt32 = 0
  /// `rootlink.overlay=`. Nil: none, unless the plan has one.
  public var overlay: MemoryOverlay?

  /// `init=`. Nil: the first of those that the kernel tries.
  public var initProgram: ByteString?
  /// The words behind `--`.
  public var initArguments: [ByteString] = []
  /// Seconds until the machine is restarted when nothing helps; nil: it stays as it is.
  public var restartSeconds: UInt32?
  /// `rd.break` or `break`: a shell is wanted before the root is started, whatever place the word
  /// names.
  public var wantsShell = false
  /// With `_` for every `-`, as the kernel names them.
  public var blacklistedModules: [ByteString] = []

  public init() {}

  /// Malformed words that decide what is started or from where are errors; those that boot loaders
  /// add by themselves (`BOOTIF=`) are passed over.
  public init(commandLine: ByteString) throws(PlanError) {
    guard commandLine.count <= PlanningInput.commandLineByteCountMaximum else {
      throw .commandLineTooLong(
        byteCount: commandLine.count, maximum: PlanningInput.commandLineByteCountMaximum)
    }
    for word in KernelParameter.split(commandLine) { try read(word) }
    initArguments = KernelParameter.wordsForInit(commandLine)
  }

  private mutating func read(_ word: KernelParameter) throws(PlanError) {
    guard let value = word.value else {
      readFlag(word)
      return
    }
    if word.isNamed("ip") || word.isNamed("nfsaddrs") {
      let request = try Self.read(word, with: InterfaceGrammar.request)
      if let name = request.hostName { hostName = name }
      Self.append(request, to: &interfaces)
    } else if word.isNamed("vlan") {
      Self.append(try Self.read(word, with: StartGrammar.vlan), to: &vlans)
    } else if word.isNamed("BOOTIF") {
      bootHardwareAddress = HardwareAddress.bootInterface(value.bytes[...])
    } else if word.isNamed("bootdev") {
      bootDevice = value
    } else if word.isNamed("nameserver") {
      Self.append(try Self.read(word, with: StartGrammar.nameServer), to: &nameServers)
    } else if word.isNamed("hostname") {
      hostName = ServerGrammar.strictHostName(value.bytes[...]) ?? hostName
    } else {
      try readRoot(word, value)
    }
  }

  private mutating func readFlag(_ word: KernelParameter) {
    if word.isNamed("ro") {
      isReadOnly = true
    } else if word.isNamed("rw") {
      isReadOnly = false
    } else if word.isNamed("rootwait") {
      rootWait = .forEver
    } else if word.isNamed("rd.break") || word.isNamed("break") {
      wantsShell = true
    }
  }

  private mutating func readRoot(
    _ word: KernelParameter, _ value: ByteString
  ) throws(PlanError) {
    if word.isNamed("root") {
      root = value
    } else if word.isNamed("rootfstype") {
      rootFileSystems = []
      for name in value.fields(separatedBy: .comma) where !name.isEmpty {
        Self.append(name, to: &rootFileSystems)
      }
    } else if word.isNamed("rootflags") {
      rootFlags = value
    } else if word.isNamed("rootwait") {
      rootWait = .seconds(try Self.read(word, with: StartGrammar.seconds))
    } else if word.isNamed("rootdelay") {
      rootDelaySeconds = try Self.read(word, with: StartGrammar.seconds)
    } else if word.isNamed("init") {
      initProgram = value.isEmpty ? nil : value
    } else if word.isNamed("rootlink.overlay") {
      overlay = try Self.read(word, with: StartGrammar.overlay)
    } else if word.isNamed("rootlink.panic") {
      restartSeconds = try Self.read(word, with: StartGrammar.seconds)
    } else if word.isNamed("rd.break") || word.isNamed("break") {
      wantsShell = true
    } else if word.isNamed("modprobe.blacklist") || word.isNamed("module_blacklist") {
      for name in value.fields(separatedBy: .comma) where !name.isEmpty {
        let module = ByteString(name.bytes.map { $0 == .minus ? .underscore : $0 })
        if !blacklistedModules.contains(module) { Self.append(module, to: &blacklistedModules) }
      }
    }
  }

  private static func append<Element>(_ element: Element, to list: inout [Element]) {
    if list.count < repeatCountMaximum { list.append(element) }
  }

  private static func read<Value>(
    _ word: KernelParameter, with grammar: (Text) throws(SyntaxError) -> Value
  ) throws(PlanError) -> Value {
    do throws(SyntaxError) {
      return try grammar(word.valueText)
    } catch {
      throw .malformed(
        parameter: word.name, value: word.value ?? ByteString(), column: word.offset + 1, error)
    }
  }
}

enum StartGrammar {
  static let vlanIdentifierMaximum: UInt64 = 4094

  static func seconds(_ text: Text) throws(SyntaxError) -> UInt32 {
    try ServerGrammar.number(text, maximum: StartParameters.timeMaximumSeconds)
  }

  static func nameServer(_ text: Text) throws(SyntaxError) -> ServerAddress {
    if text.first == .openBracket {
      let (server, rest) = try ServerGrammar.bracketed(text)
      guard rest.isEmpty else { throw SyntaxError(at: rest, expected: .endOfValue) }
      return server
    }
    if let address = ServerGrammar.ipv6(text) { return address }
    guard let address = IPv4Address(text) else { throw SyntaxError(at: text, expected: .ipv4) }
    return .ipv4(address)
  }

  /// `vlan5:eth0`, `vlan0005:eth0`, `eth0.5:eth0`, `eth0.0005:eth0`: the digits at the end are the
  /// identifier.
  static func vlan(_ text: Text) throws(SyntaxError) -> VLANRequest {
    guard let (name, parent) = text.cut(at: .colon), ServerGrammar.isInterfaceName(parent) else {
      throw SyntaxError(at: text, expected: .vlan)
    }
    guard ServerGrammar.isInterfaceName(name) else {
      throw SyntaxError(at: name, expected: .interfaceName)
    }
    var start = name.endIndex
    while start > name.startIndex, name[start - 1].isDigit { start -= 1 }
    guard start > name.startIndex else { throw SyntaxError(at: name, expected: .vlan) }
    let identifier = try ServerGrammar.number(
      name[start...], minimum: 1, maximum: vlanIdentifierMaximum)
    return VLANRequest(
      name: ByteString(name), parent: ByteString(parent),
      identifier: UInt16(truncatingIfNeeded: identifier))
  }

  /// `tmpfs` or `tmpfs,size=...`: bytes with k, m, g behind or without, or a part of the memory
  /// with `%`. Source: Linux `Documentation/filesystems/tmpfs.rst`.
  static func overlay(_ text: Text) throws(SyntaxError) -> MemoryOverlay {
    let (kind, options) = text.cut(at: .comma) ?? (text, text[text.endIndex...])
    guard kind.isEqual(to: "tmpfs") else { throw SyntaxError(at: kind, expected: .overlay) }
    guard kind.endIndex < text.endIndex else { return MemoryOverlay() }
    guard options.hasPrefix("size=") else { throw SyntaxError(at: options, expected: .overlay) }
    let size = options.dropFirst(5)
    if size.last == .percent {
      let part = try ServerGrammar.number(size.dropLast(), minimum: 1, maximum: 100)
      return MemoryOverlay(size: .percent(UInt8(truncatingIfNeeded: part)))
    }
    var shift: UInt64 = 0
    switch size.last.map({ $0 | 0x20 }) {
    case 0x6b: shift = 10
    case 0x6d: shift = 20
    case 0x67: shift = 30
    default: break
    }
    let digits = shift == 0 ? size : size.dropLast()
    guard let count = digits.decimal(maximum: (1 << 50) >> shift), count > 0 else {
      throw SyntaxError(at: size, expected: .overlay)
    }
    return MemoryOverlay(size: .bytes(count << shift))
  }
}
