// SPDX-License-Identifier: Apache-2.0
import NetlinkProtocol
public import WireFormat

/// The identifier by which the kernel ties a reconnection to an attachment. It is one short line
/// in sysfs, while export names have up to 4096 bytes of any kind: long ones end in a checksum.
public func backendIdentifier(server: ByteString, export: ByteString) -> ByteString {
  let text = ByteString((server + "/" + export).printable(limit: 16_384))
  let limit = NBDFamily.backendIdentifierByteCountMaximum
  guard text.count > limit else { return text }
  // FNV-1a, 64 bits: tells names apart, proves nothing. Source: draft-eastlake-fnv.
  var sum: UInt64 = 0xcbf2_9ce4_8422_2325
  for byte in text.bytes { sum = (sum ^ UInt64(byte)) &* 0x100_0000_01b3 }
  return ByteString(text.bytes.prefix(limit - 17)) + ByteString("#" + String(sum, radix: 16))
}
