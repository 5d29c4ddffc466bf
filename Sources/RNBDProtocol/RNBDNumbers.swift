// SPDX-License-Identifier: Apache-2.0
// The numbers that both halves share. Source: Linux 6.12 `drivers/block/rnbd/rnbd-proto.h`, as
// everything in this module where nothing else is said. All fields are little-endian.

/// The module's numbers; see the head of this file.
public enum RNBD {
  /// Sizes and addresses are in sectors, whatever the blocks of a device are.
  public static let sectorByteCount: UInt64 = 512
  /// Both sides use the lower of their versions. Below 2 an I/O message has no priority.
  public static let version: UInt8 = 2
  /// The longest message of a user, and with the longest of RTRS behind it the least that a
  /// server's header size must hold.
  public static let messageByteCountMaximum = OpenRequest.byteCount
  /// A server that announces less makes reads of Linux's client fail, which keeps 16 bytes for
  /// each of its 128 segments beside both messages. Source: `rtrs_clt_request` in `rtrs-clt.c`.
  public static let headerByteCountForLinux: UInt32 = 4096
}

/// First of every message, in 16 bits with 2 bytes of padding behind. Source: `enum rnbd_msg_type`.
enum MessageType {
  static let byteCount = 4
  static let sessionInformation: UInt16 = 0
  static let sessionInformationAnswer: UInt16 = 1
  static let open: UInt16 = 2
  static let openAnswer: UInt16 = 3
  static let io: UInt16 = 4
  static let close: UInt16 = 5
}

/// What a device is opened for. Source: `enum rnbd_access_mode`.
public enum AccessMode: UInt8, Equatable, Sendable {
  /// The server refuses writes of every kind.
  case readOnly = 0
  /// One client at a time.
  case readWrite = 1
  /// A second writer, while a virtual machine moves from one client to another.
  case migration = 2

  /// As people write it: `access_mode=` of the boot parameter and of Linux's map_device.
  public var name: String {
    switch self {
    case .readOnly: "ro"
    case .readWrite: "rw"
    case .migration: "migration"
    }
  }
}
