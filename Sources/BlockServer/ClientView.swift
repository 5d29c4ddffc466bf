// SPDX-License-Identifier: Apache-2.0
// What one client may see and open, for a protocol in which it names exports: one place decides for
// lists and lookups alike.

import LinuxSystem
import WireFormat

/// What one client of the server sees: the exports and found devices for its address.
public struct ClientView: Sendable {
  private let directory: DeviceDirectory
  private let access: WriteAccess
  private let address: ClientAddress

  /// `client`: as it is called in the log.
  public init(_ directory: DeviceDirectory, _ access: WriteAccess, client: ByteString) {
    self.directory = directory
    self.access = access
    address = ClientAddress(client)
  }

  /// For a list.
  public var exports: [Export] { directory.exports(for: address) }

  /// What the client calls itself, where it does: the 32 digits of its attachment.
  private func identity(_ attachment: AttachmentToken?) -> ClientIdentity {
    ClientIdentity(address: address, sessionName: attachment?.hexadecimal)
  }

  /// Nil for what is not found among the exports: looking for it further may take a while.
  public func offered(_ name: ByteString) -> Export? { directory.offered(name, for: address) }

  /// May wait for a disk.
  public func find(
    _ name: ByteString, by attachment: AttachmentToken?
  ) throws(DeviceRefusal) -> Export {
    try directory.findExport(name, for: identity(attachment))
  }

  /// Nil where nothing is written that others have, too.
  public func takeForWriting(
    _ export: Export, by attachment: AttachmentToken?
  ) throws(DeviceRefusal) -> WriteGrant? {
    try export.takeForWriting(by: Writer(address: address, attachment: attachment), in: access)
  }
}
