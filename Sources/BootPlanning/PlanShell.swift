// SPDX-License-Identifier: Apache-2.0
// The plan for the hooks: assignments that a POSIX shell may evaluate. Every value from outside
// stands in single quotes, where nothing is special but the quote itself.

import WireFormat

extension AttachmentPlan {
  /// Lines `NAME='value'`, each with its line end.
  public var shellAssignments: [UInt8] {
    var lines: [UInt8] = []
    func line(_ name: String, _ value: ByteString) {
      lines += Array(name.utf8)
      lines.append(.equals)
      lines += Self.quoted(value)
      lines.append(.newline)
    }
    lines += Array("ROOTLINK_TARGETS=\(targets.count)\n".utf8)
    lines += Array("ROOTLINK_NETWORK=\(needsNetwork ? "yes" : "no")\n".utf8)
    line("ROOTLINK_DEVICE", targets.first?.device.map { ByteString($0.path) } ?? ByteString())
    line("ROOTLINK_ROOT", root.device ?? ByteString())
    line("ROOTLINK_FSTYPE", root.fileSystem ?? ByteString())
    line("ROOTLINK_FLAGS", root.flags ?? ByteString())
    line("ROOTLINK_READONLY", root.isReadOnly.map { $0 ? "y" : "n" } ?? ByteString())
    line("ROOTLINK_INTERFACE", interface ?? ByteString())
    return lines
  }

  /// In single quotes; a quote inside becomes `'\''`. NUL, which no shell can hold, is left out.
  static func quoted(_ value: ByteString) -> [UInt8] {
    var quoted: [UInt8] = [.apostrophe]
    for byte in value.bytes where byte != 0 {
      if byte == .apostrophe {
        quoted += [.apostrophe, .backslash, .apostrophe, .apostrophe]
      } else {
        quoted.append(byte)
      }
    }
    quoted.append(.apostrophe)
    return quoted
  }
}
