// SPDX-License-Identifier: Apache-2.0
// Reads what an archive of the newc form holds, to show it and to check what was written.

extension CPIOArchive {
  /// The entries up to the trailer, in the archive's order. What lies behind the trailer is not
  /// looked at: further archives may follow.
  public static func entries(of bytes: [UInt8]) throws(CPIOError) -> [CPIOEntry] {
    var entries: [CPIOEntry] = []
    var offset = 0
    while true {
      let header = try Header(bytes, at: offset)
      let nameStart = offset + headerByteCount
      let nameEnd = nameStart + header.nameByteCount
      guard nameEnd <= bytes.count, bytes[nameEnd - 1] == 0 else {
        throw .malformed(offset: nameStart)
      }
      let name = String(decoding: bytes[nameStart..<(nameEnd - 1)], as: UTF8.self)
      let dataStart = (nameEnd + 3) & ~3
      guard header.byteCount <= bytes.count, dataStart <= bytes.count - header.byteCount else {
        throw .malformed(offset: dataStart)
      }
      if name == trailerName { return entries }
      let data = Array(bytes[dataStart..<(dataStart + header.byteCount)])
      guard let content = header.content(data) else { throw .malformed(offset: offset) }
      entries.append(
        CPIOEntry(
          name, content, permissions: UInt16(truncatingIfNeeded: header.mode & 0o7777)))
      offset = (dataStart + header.byteCount + 3) & ~3
    }
  }

  private struct Header {
    var mode: UInt32
    var byteCount: Int
    var device: (major: UInt32, minor: UInt32)
    /// With its NUL: at least 1.
    var nameByteCount: Int

    init(_ bytes: [UInt8], at offset: Int) throws(CPIOError) {
      guard offset <= bytes.count, bytes.count - offset >= headerByteCount,
        bytes[offset..<(offset + 6)].elementsEqual(magic.utf8)
      else { throw .malformed(offset: offset) }
      mode = try Self.field(1, bytes, offset)
      byteCount = Int(try Self.field(6, bytes, offset))
      device = (try Self.field(9, bytes, offset), try Self.field(10, bytes, offset))
      nameByteCount = Int(try Self.field(11, bytes, offset))
      guard nameByteCount >= 1, nameByteCount <= pathByteCountMaximum + 1 else {
        throw .malformed(offset: offset + 6 + 11 * 8)
      }
    }

    /// Eight hexadecimal digits, which may be capital.
    static func field(_ index: Int, _ bytes: [UInt8], _ offset: Int) throws(CPIOError) -> UInt32 {
      var value: UInt32 = 0
      let start = offset + 6 + index * 8
      for place in start..<(start + 8) {
        let digit: UInt8
        switch bytes[place] {
        case 0x30...0x39: digit = bytes[place] - 0x30
        case 0x41...0x46, 0x61...0x66: digit = (bytes[place] | 0x20) - 0x57
        default: throw .malformed(offset: place)
        }
        value = value << 4 | UInt32(digit)
      }
      return value
    }

    func content(_ data: [UInt8]) -> CPIOEntry.Content? {
      switch mode & 0o170000 {
      case 0o040000: .directory
      case 0o100000: .file(data)
      case 0o120000: .symbolicLink(target: String(decoding: data, as: UTF8.self))
      case 0o020000: .characterDevice(major: device.major, minor: device.minor)
      case 0o060000: .blockDevice(major: device.major, minor: device.minor)
      default: nil
      }
    }
  }
}
