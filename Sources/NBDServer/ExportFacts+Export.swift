// SPDX-License-Identifier: Apache-2.0
import BlockBackends
import BlockServer
import NBDProtocol

/// The longest READ and WRITE. Source: NBD `doc/proto.md`, "Block size constraints": less than
/// 2^25 must never be the limit for a client that has not asked.
let payloadByteCountMaximum: UInt32 = 32 << 20

extension ExportFacts {
  /// What NBD says of an export to a client that has named its attachment, or has not.
  init(_ export: Export, isAttached: Bool, requestByteCountMaximum: UInt32) {
    let geometry = export.geometry(isAttached: isAttached)
    self.init(
      name: export.name, description: export.description, byteCount: geometry.byteCount,
      flags: TransmissionFlags(geometry),
      blockSizes: BlockSizes(
        minimum: geometry.blockSizes.minimum, preferred: geometry.blockSizes.preferred,
        maximumPayload: min(requestByteCountMaximum, payloadByteCountMaximum)))
  }
}

extension TransmissionFlags {
  init(_ geometry: ExportGeometry) {
    var flags: TransmissionFlags = [.hasFlags]
    // To bring nothing into memory is right, too.
    flags.insert(.sendCache)
    if geometry.isReadOnly {
      flags.insert(.readOnly)
    } else {
      flags.formUnion([.sendFlush, .sendFUA, .sendWriteZeroes])
      if geometry.capabilities.contains(.trim) { flags.insert(.sendTrim) }
      if geometry.capabilities.contains(.fastZeroes) { flags.insert(.sendFastZero) }
    }
    if geometry.capabilities.contains(.rotational) { flags.insert(.rotational) }
    // Without an attachment an overlay is the session's own: a second connection would see other
    // bytes.
    if geometry.capabilities.contains(.isShared) { flags.insert(.canMultiConn) }
    self = flags
  }
}
