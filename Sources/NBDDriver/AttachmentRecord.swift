// SPDX-License-Identifier: Apache-2.0
// What sysfs cannot tell of an attachment: whose export it is. Left in /run/rootlink/nbdN by
// whoever attached, for `rootlink status` and for a process that reconnects later.
//
// One `key=value` line each; in values, bytes that are not printable ASCII and `\` are written as
// `\xNN`. Unknown keys are ignored. A record counts only while the device still shows the thread
// and the identifier in it: somebody else may have attached the device since.

public import LinuxSystem
public import WireFormat

public struct AttachmentRecord: Equatable, Sendable {
  public static let byteCountMaximum = 65_536

  /// `192.0.2.1:10809`, as connected to.
  public var server: ByteString
  public var export: ByteString
  /// Seconds since 1970; 0 when the clock was not known.
  public var attachedSeconds: UInt64
  /// As the device's `pid` file had it.
  public var ownerThread: UInt32
  public var backendIdentifier: ByteString
  public var connectionCount: UInt32

  public init(
    server: ByteString, export: ByteString, attachedSeconds: UInt64, ownerThread: UInt32,
    backendIdentifier: ByteString, connectionCount: UInt32
  ) {
    self.server = server
    self.export = export
    self.attachedSeconds = attachedSeconds
    self.ownerThread = ownerThread
    self.backendIdentifier = backendIdentifier
    self.connectionCount = connectionCount
  }

  public var encoded: ByteString {
    var text: ByteString = ""
    func add(_ key: ByteString, _ value: ByteString) {
      text += key + "=" + ByteString(value.printable(limit: Self.byteCountMaximum)) + "\n"
    }
    add("server", server)
    add("export", export)
    add("attached-seconds", ByteString("\(attachedSeconds)"))
    add("pid", ByteString("\(ownerThread)"))
    add("backend", backendIdentifier)
    add("connections", ByteString("\(connectionCount)"))
    return text
  }

  /// Nil when `text` is not a record: a key missing, a number that is none, a bad escape.
  public init?(decoding text: ByteString) {
    guard text.count <= Self.byteCountMaximum else { return nil }
    var values: [ByteString: ByteString] = [:]
    for line in text.fields(separatedBy: 0x0a) where !line.isEmpty {
      guard let (key, value) = line.cut(at: 0x3d), let plain = value.unescapingHexadecimal else {
        return nil
      }
      values[key] = plain
    }
    guard let server = values["server"], let export = values["export"],
      let seconds = values["attached-seconds"]?.decimal(),
      let thread = values["pid"]?.decimal(maximum: UInt64(Int32.max)),
      let identifier = values["backend"],
      let connections = values["connections"]?.decimal(maximum: UInt64(UInt32.max))
    else { return nil }
    self.init(
      server: server, export: export, attachedSeconds: seconds, ownerThread: UInt32(thread),
      backendIdentifier: identifier, connectionCount: UInt32(connections))
  }
}

extension NBDDevice {
  static let recordDirectory: ByteString = "/run/rootlink"
  var recordPath: ByteString { root + Self.recordDirectory + "/" + name }

  /// The record of the present attachment, if it was left by us.
  public var record: AttachmentRecord? {
    guard let text = try? readFile(recordPath, limit: AttachmentRecord.byteCountMaximum),
      let record = AttachmentRecord(decoding: text), isAttached,
      record.ownerThread == ownerThread,
      backendIdentifier == nil || backendIdentifier == record.backendIdentifier
    else { return nil }
    return record
  }

  public func write(_ record: AttachmentRecord) throws(SystemError) {
    try makeDirectories(root + Self.recordDirectory)
    try replaceFile(recordPath, with: record.encoded)
  }

  public func removeRecord() {
    do { try removeFile(recordPath) } catch {}  // None is as good.
  }
}

extension ByteString {
  /// Undoes `printable`; nil when a `\` begins anything but `\xNN`.
  public var unescapingHexadecimal: ByteString? {
    var result: [UInt8] = []
    var position = 0
    func digit(_ byte: UInt8) -> UInt8? {
      switch byte {
      case 0x30...0x39: byte - 0x30
      case 0x61...0x66: byte - 0x61 + 10
      default: nil
      }
    }
    while position < count {
      guard bytes[position] == 0x5c else {
        result.append(bytes[position])
        position += 1
        continue
      }
      guard position + 3 < count, bytes[position + 1] == 0x78,
        let high = digit(bytes[position + 2]), let low = digit(bytes[position + 3])
      else { return nil }
      result.append(high << 4 | low)
      position += 4
    }
    return ByteString(result)
  }
}
