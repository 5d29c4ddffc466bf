// SPDX-License-Identifier: Apache-2.0

import WireFormat

/// What one NBD value says, before leases and other parameters fill in what it left out.
struct NBDRequest: Equatable {
  /// Nil: the value leaves the server to the lease.
  var server: ServerAddress?
  /// Nil: the default, or `nbdport=`.
  var port: UInt16?
  /// In the order in which they are tried; at least one.
  var exports: [ByteString] = [ByteString()]
  var device: DeviceName?
  var tls: TLSPolicy?
  var accessMode = AttachmentTarget.AccessMode.readWrite
  /// The three last fields of dracut's form.
  var fileSystem: ByteString?
  var mountOptions = MountOptions()
  var options = NBDOptions()
  var warnings: [PlanWarning] = []

  /// Source: NBD `doc/proto.md`, "Protocol phases": strings have at most 4096 bytes.
  static let exportByteCountMaximum = 4096

  static func checkedExport(_ text: Text) throws(SyntaxError) -> ByteString {
    guard text.count <= exportByteCountMaximum else {
      throw SyntaxError(
        at: text, expected: .exportWithinLimit(maximum: exportByteCountMaximum))
    }
    if let index = text.firstIndex(of: 0) {
      throw SyntaxError(at: text[index...], expected: .exportWithoutNUL)
    }
    return ByteString(text)
  }

  /// A name that begins with a slash, and the same without it: which one is meant depends on who
  /// wrote the line. The server answers an unknown name with an error and stays connected.
  static func candidates(
    withSlash text: Text, slashFirst: Bool
  ) throws(SyntaxError) -> [ByteString] {
    let whole = try checkedExport(text)
    let rest = ByteString(text.dropFirst())
    return slashFirst ? [whole, rest] : [rest, whole]
  }
}

/// A comma list of mount options with `ro` and `rw` taken out.
struct MountOptions: Equatable {
  /// Joined by commas again; empty when there are none.
  var flags = ByteString()
  /// What the last `ro` or `rw` says.
  var isReadOnly: Bool?

  init() {}

  init(_ text: Text) {
    for field in text.fields(separatedBy: .comma) where !field.isEmpty {
      if field.isEqual(to: "ro") {
        isReadOnly = true
      } else if field.isEqual(to: "rw") {
        isReadOnly = false
      } else {
        if !flags.isEmpty { flags.bytes.append(.comma) }
        flags.bytes.append(contentsOf: field)
      }
    }
  }
}
