// SPDX-License-Identifier: Apache-2.0
// What sysfs cannot tell of an attachment: whose export it is. Left in /run/rootlink/nbdN by
// whoever attached, for `rootlink status` and for a process that reconnects later.
//
// One `key=value` line each; in values, bytes that are not printable ASCII and `\` are written as
// `\xNN`. Unknown keys are ignored. A record counts only while the device still shows the thread
// and the identifier in it: somebody else may have attached the device since.

public import LinuxSystem
public import WireFormat

/// Whose export a device shows, and since when.
public struct AttachmentRecord: Equatable, Sendable {
  /// Of its file; a longer one is no record.
  public static let byteCountMaximum = 65_536

  /// `192.0.2.1:10809`, as connected to.
  public var server: ByteString
  /// As it was asked for; empty is the server's default export.
  public var export: ByteString
  /// Seconds since 1970; 0 when the clock was not known.
  public var attachedSeconds: UInt64
  /// As the device's `pid` file had it.
  public var ownerThread: UInt32
  /// Compared with what the device shows, if it shows one.
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

  /// What `init(decoding:)` takes.
  public var encoded: ByteString {
    var lines = NamedLines()
    lines.add("server", server)
    lines.add("export", export)
    lines.add("attached-seconds", attachedSeconds)
    lines.add("pid", UInt64(ownerThread))
    lines.add("backend", backendIdentifier)
    lines.add("connections", UInt64(connectionCount))
    return lines.encoded
  }

  /// Nil when `text` is not a record: a key missing, a number that is none, a bad escape.
  public init?(decoding text: ByteString) {
    guard let lines = NamedLines(decoding: text, limit: Self.byteCountMaximum),
      let server = lines["server"], let export = lines["export"],
      let seconds = lines.number("attached-seconds"),
      let thread = lines.number("pid", maximum: UInt64(Int32.max)),
      let identifier = lines["backend"],
      let connections = lines.number("connections", maximum: UInt64(UInt32.max))
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

  /// Makes the directory, and puts the file there whole.
  public func write(_ record: AttachmentRecord) throws(SystemError) {
    try makeDirectories(root + Self.recordDirectory)
    try replaceFile(recordPath, with: record.encoded)
  }

  /// One that is not there, or stays, is no failure: it counts no more once the device is detached.
  public func removeRecord() {
    do { try removeFile(recordPath) } catch {}  // None is as good.
  }
}
