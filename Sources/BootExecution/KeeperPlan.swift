// SPDX-License-Identifier: Apache-2.0
// What a keeper must know to bring a connection back: written beside the record of the attachment,
// so that another keeper can take the device up when this one is gone.
//
// One `key=value` line each, like the record itself. Addresses are the bytes that connect(2) takes,
// in hexadecimal: the file is for programs on this machine, in this boot.

import CLinux
import LinuxSystem
import NBDDriver
import NBDProtocol
import WireFormat

/// One way to a server.
struct KeeperPath: Sendable {
  var address: SocketAddress
  var source: SocketAddress?
  /// Paths of one number lead to one server and may be used together; others hold a copy of the
  /// image and are used when that server stays away.
  var site: UInt32
  /// A connection of its own goes this way; the others are further addresses of the same host.
  var isMain = true
}

/// A connection that works, and where it leads.
struct LiveConnection {
  var descriptor: CInt
  /// Its number among the plan's paths.
  var path: Int
  /// When this value was made: nothing was out then.
  let counts: AnswerCounts

  init(descriptor: CInt, path: Int) {
    self.descriptor = descriptor
    self.path = path
    counts = AnswerCounts(ofSocket: descriptor)
  }
}

struct KeeperPlan: Sendable {
  static let byteCountMaximum = 65_536
  static let pathCountMaximum = 16

  var deviceIndex: UInt32
  var backendIdentifier: ByteString
  var export: ByteString
  var paths: [KeeperPath]
  var connectionCount: UInt32
  var byteCount: UInt64
  var flags: TransmissionFlags
  /// The device's: the server's minimum may not grow above it.
  var blockByteCount: UInt64
  /// The largest request that the kernel makes.
  var payloadByteCount: UInt64
  var token: SessionToken
  var identity: ContentIdentity
  /// As it was asked for; 0 leaves it to `detection`.
  var requestTimeoutSeconds: UInt64
  /// 0 is for ever.
  var deadTimeSeconds: UInt64
  /// How long a system that goes down waits for a connection; 0 is for ever.
  var shutdownTimeSeconds = ShutdownPatience.absenceSecondsDefault
  var detection = Detection()

  var encoded: ByteString {
    var lines = NamedLines()
    lines.add("device", UInt64(deviceIndex))
    lines.add("backend", backendIdentifier)
    lines.add("export", export)
    for path in paths {
      lines.add(
        "path",
        ByteString("\(path.site) ") + (path.isMain ? "main " : "spare ")
          + hexadecimal(path.address) + " "
          + (path.source.map(hexadecimal) ?? "-"))
    }
    lines.add("connections", UInt64(connectionCount))
    lines.add("size", byteCount)
    lines.add("flags", UInt64(flags.rawValue))
    lines.add("block", blockByteCount)
    lines.add("payload", payloadByteCount)
    lines.add("token-high", token.high)
    lines.add("token-low", token.low)
    lines.add("identity-first", identity.words.first)
    lines.add("identity-second", identity.words.second)
    lines.add("identity-count", UInt64(identity.count))
    lines.add("request-timeout", requestTimeoutSeconds)
    lines.add("dead-time", deadTimeSeconds)
    lines.add("shutdown-time", shutdownTimeSeconds)
    lines.add("silence", detection.silenceSeconds)
    lines.add("answer", detection.answerSeconds ?? 0)
    return lines.encoded
  }
}

extension KeeperPlan {
  /// Nil when `text` is no such file, whole: it is written in one piece.
  init?(decoding text: ByteString) {
    guard let lines = NamedLines(decoding: text, limit: Self.byteCountMaximum) else {
      return nil
    }
    var paths: [KeeperPath] = []
    for text in lines.all("path") {
      guard let path = Self.path(text), paths.count < Self.pathCountMaximum else { return nil }
      paths.append(path)
    }
    guard !paths.isEmpty, let device = lines.number("device", maximum: UInt64(UInt32.max)),
      let backend = lines["backend"], let export = lines["export"],
      let connections = lines.number("connections", maximum: UInt64(connectionCountMaximum)),
      connections > 0, let size = lines.number("size"),
      let flags = lines.number("flags", maximum: UInt64(UInt16.max)),
      let block = lines.number("block"),
      let payload = lines.number("payload"), let high = lines.number("token-high"),
      let low = lines.number("token-low"), let first = lines.number("identity-first"),
      let second = lines.number("identity-second"),
      let count = lines.number("identity-count", maximum: UInt64(UInt32.max)),
      let timeout = lines.number("request-timeout"), let deadTime = lines.number("dead-time"),
      let shutdownTime = lines.number("shutdown-time", maximum: UInt64(UInt32.max)),
      let silence = lines.number("silence", maximum: Detection.secondsMaximum), silence > 0,
      let answer = lines.number("answer", maximum: Detection.secondsMaximum)
    else { return nil }
    self.init(
      deviceIndex: UInt32(device), backendIdentifier: backend, export: export, paths: paths,
      connectionCount: UInt32(connections), byteCount: size,
      flags: TransmissionFlags(rawValue: UInt16(flags)), blockByteCount: block,
      payloadByteCount: payload, token: SessionToken(high: high, low: low),
      identity: ContentIdentity(first: first, second: second, count: UInt32(count)),
      requestTimeoutSeconds: timeout, deadTimeSeconds: deadTime,
      shutdownTimeSeconds: shutdownTime,
      detection: Detection(
        silenceSeconds: silence, answerSeconds: answer == 0 ? nil : answer))
  }

  private static func path(_ text: ByteString) -> KeeperPath? {
    let words = text.fields(separatedBy: 0x20)
    guard words.count == 4, let site = words[0].decimal(maximum: 255),
      words[1] == "main" || words[1] == "spare",
      let address = socketAddress(hexadecimal: words[2])
    else { return nil }
    var path = KeeperPath(
      address: address, source: nil, site: UInt32(site), isMain: words[1] == "main")
    if words[3] == "-" { return path }
    guard let source = socketAddress(hexadecimal: words[3]) else { return nil }
    path.source = source
    return path
  }

  /// The path that a connection is to go: the main ones of the server take turns.
  func homePath(ofConnection number: Int, site: UInt32) -> Int {
    var mains: [Int] = []
    for index in paths.indices where paths[index].site == site && paths[index].isMain {
      mains.append(index)
    }
    return mains.isEmpty ? 0 : mains[number % mains.count]
  }

  func write() throws(SystemError) {
    try makeDirectories("/run/rootlink")
    try replaceFile(NBDDevice(index: deviceIndex).keeperFilePath, with: encoded)
  }
}

func hexadecimal(_ address: SocketAddress) -> ByteString {
  let digits = Array("0123456789abcdef".utf8)
  var text: [UInt8] = []
  for byte in address.bytes {
    text.append(digits[Int(byte >> 4)])
    text.append(digits[Int(byte & 15)])
  }
  return ByteString(text)
}

func socketAddress(hexadecimal text: ByteString) -> SocketAddress? {
  guard text.count % 2 == 0 else { return nil }
  func digit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case 0x30...0x39: byte - 0x30
    case 0x61...0x66: byte - 0x61 + 10
    default: nil
    }
  }
  var bytes: [UInt8] = []
  for index in stride(from: 0, to: text.count, by: 2) {
    guard let high = digit(text.bytes[index]), let low = digit(text.bytes[index + 1]) else {
      return nil
    }
    bytes.append(high << 4 | low)
  }
  return SocketAddress(bytes: bytes)
}
