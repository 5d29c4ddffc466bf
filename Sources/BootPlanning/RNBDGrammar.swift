// SPDX-License-Identifier: Apache-2.0
// `ibnbd-root=`: the `key=value` words of the RNBD driver's control file, made one word.
//
//   sessname=S,path=ip:SOURCE@ip:DESTINATION,path=...,device_path=D,access_mode=rw,port=1234
//
// White space counts as a comma, so that the driver's own line works in quotes. A token that
// starts with `ip:` or `gid:` belongs to the `path=` before it. Source of the keys:
// `rnbd_clt_map_device` in Linux `Documentation/ABI/testing/sysfs-class-rnbd-client`.

import WireFormat

/// What one `ibnbd-root=` says.
struct RNBDRequest: Equatable {
  /// Nil server: the lease's.
  struct Path: Equatable {
    var source: ServerAddress?
    var server: ServerAddress?
  }

  var session: ByteString?
  /// Empty: one path to the lease's server.
  var paths: [Path] = []
  var devicePath = ByteString()
  var accessMode: AttachmentTarget.AccessMode?
  var ioMode: AttachmentTarget.IOMode?
  var port: UInt16?
  var queueCount: UInt32?
  var device: DeviceName?
}

struct RNBDGrammar {
  static let textByteCountMaximum = 255
  /// As many as the kernel's driver takes.
  static let pathCountMaximum = 6
  static let queueCountMaximum: UInt64 = 999

  private var request = RNBDRequest()
  /// The addresses of the `path=` that is being read; nil when the last key was another one.
  private var openPath: [ServerAddress?]?

  static func request(from value: Text) throws(SyntaxError) -> RNBDRequest {
    var grammar = RNBDGrammar()
    var rest = value
    var isFirst = true
    while true {
      rest = skippingSpace(rest)
      if !isFirst, rest.first == .comma { rest = skippingSpace(rest.dropFirst()) }
      if rest.isEmpty, isFirst || value.last != .comma { break }
      isFirst = false
      let end = rest.firstIndex { $0 == .comma || $0.isKernelSpace } ?? rest.endIndex
      try grammar.read(rest[..<end])
      rest = rest[end...]
    }
    try grammar.closePath()
    guard !grammar.request.devicePath.isEmpty else {
      throw SyntaxError(at: value[value.endIndex...], expected: .devicePath)
    }
    return grammar.request
  }

  private static func skippingSpace(_ text: Text) -> Text {
    text.drop { $0.isKernelSpace }
  }

  private mutating func read(_ token: Text) throws(SyntaxError) {
    guard let (key, value) = token.cut(at: .equals) else {
      guard let path = openPath, token.hasPrefix("ip:") || token.hasPrefix("gid:") else {
        throw SyntaxError(at: token, expected: .keyAndValue)
      }
      guard path.count < 2 else { throw SyntaxError(at: token, expected: .atMostTwoAddresses) }
      let address = try address(token)
      try checkFamily(source: path[0], destination: address, at: token)
      openPath = path + [address]
      return
    }
    guard !value.isEmpty else { throw SyntaxError(at: value, expected: .value) }
    try closePath()
    if key.isEqual(to: "path") {
      guard request.paths.count < Self.pathCountMaximum else {
        throw SyntaxError(at: token, expected: .atMostPaths(Self.pathCountMaximum))
      }
      openPath = try addresses(value)
    } else {
      try read(key, value)
    }
  }

  private mutating func read(_ key: Text, _ value: Text) throws(SyntaxError) {
    if key.isEqual(to: "sessname") {
      try once(key, isNew: request.session == nil)
      request.session = try text(value)
    } else if key.isEqual(to: "device_path") {
      try once(key, isNew: request.devicePath.isEmpty)
      request.devicePath = try text(value)
    } else if key.isEqual(to: "access_mode") {
      try once(key, isNew: request.accessMode == nil)
      if value.isEqual(to: "ro") {
        request.accessMode = .readOnly
      } else if value.isEqual(to: "rw") {
        request.accessMode = .readWrite
      } else if value.isEqual(to: "migration") {
        request.accessMode = .migration
      } else {
        throw SyntaxError(at: value, expected: .accessMode)
      }
    } else if key.isEqual(to: "io_mode") {
      try once(key, isNew: request.ioMode == nil)
      if value.isEqual(to: "blockio") {
        request.ioMode = .block
      } else if value.isEqual(to: "fileio") {
        request.ioMode = .file
      } else {
        throw SyntaxError(at: value, expected: .ioMode)
      }
    } else if key.isEqual(to: "port") || key.isEqual(to: "dest_port") {
      try once(key, isNew: request.port == nil)
      request.port = try ServerGrammar.port(value)
    } else if key.isEqual(to: "queues") || key.isEqual(to: "nr_poll_queues") {
      try once(key, isNew: request.queueCount == nil)
      request.queueCount = try ServerGrammar.number(value, maximum: Self.queueCountMaximum)
    } else if key.isEqual(to: "dev") {
      try once(key, isNew: request.device == nil)
      guard let device = DeviceName(value), device.partition == nil else {
        throw SyntaxError(at: value, expected: .device)
      }
      request.device = device
    } else {
      throw SyntaxError(at: key, expected: .knownKey)
    }
  }

  private func once(_ key: Text, isNew: Bool) throws(SyntaxError) {
    if !isNew { throw SyntaxError(at: key, expected: .keyOnce) }
  }

  private func text(_ value: Text) throws(SyntaxError) -> ByteString {
    let text = try NBDURI.decoded(value, nul: .noNUL)
    guard text.count <= Self.textByteCountMaximum else {
      throw SyntaxError(at: value, expected: .textWithinLimit(maximum: Self.textByteCountMaximum))
    }
    return text
  }

  /// `DESTINATION` or `SOURCE@DESTINATION`.
  private func addresses(_ value: Text) throws(SyntaxError) -> [ServerAddress?] {
    guard let (source, destination) = value.cut(at: .at) else { return [try address(value)] }
    guard let first = try address(source) else {
      throw SyntaxError(at: source, expected: .address)
    }
    let second = try address(destination)
    try checkFamily(source: first, destination: second, at: destination)
    return [first, second]
  }

  /// Nil for `dhcp`.
  private func address(_ text: Text) throws(SyntaxError) -> ServerAddress? {
    if text.isEqual(to: "dhcp") { return nil }
    if text.hasPrefix("gid:") {
      let inside = text.dropFirst(4)
      guard let identifier = IPv6Address(inside) else {
        throw SyntaxError(at: inside, expected: .ipv6)
      }
      return .gid(identifier)
    }
    guard text.hasPrefix("ip:") else { throw SyntaxError(at: text, expected: .address) }
    let inside = text.dropFirst(3)
    if inside.first == .openBracket {
      let (address, rest) = try ServerGrammar.bracketed(inside)
      guard rest.isEmpty else { throw SyntaxError(at: rest, expected: .keyAndValue) }
      return address
    }
    if let address = ServerGrammar.ipv6(inside) { return address }
    guard let address = IPv4Address(inside) else {
      throw SyntaxError(at: inside, expected: inside.contains(.colon) ? .ipv6 : .ipv4)
    }
    return .ipv4(address)
  }

  private func checkFamily(
    source: ServerAddress?, destination: ServerAddress?, at text: Text
  ) throws(SyntaxError) {
    guard let source else { throw SyntaxError(at: text, expected: .keyAndValue) }
    let isSame =
      switch (source, destination) {
      case (.ipv4, .ipv4), (.ipv6, .ipv6), (.gid, .gid), (.ipv4, nil), (.ipv6, nil): true
      default: false
      }
    guard isSame else { throw SyntaxError(at: text, expected: .samePathFamily) }
  }

  private mutating func closePath() throws(SyntaxError) {
    guard let path = openPath else { return }
    openPath = nil
    request.paths.append(
      path.count == 2
        ? RNBDRequest.Path(source: path[0], server: path[1])
        : RNBDRequest.Path(source: nil, server: path[0]))
  }
}
