// SPDX-License-Identifier: Apache-2.0
// What an export's bytes are made of, as somebody asked for it: a file, or a stack of several.

import WireFormat

/// How files and devices are read and written. RNBD's words.
public enum IOMode: String, Sendable, CaseIterable {
  /// Past the page cache, as to a disk.
  case blockIO = "blockio"
  /// Through the page cache, as to a file.
  case fileIO = "fileio"
}

/// What a medium is made of, down to its files; the server opens it when it starts or reloads.
public indirect enum BackendDefinition: Equatable, Sendable {
  /// A regular file or a block device.
  case file(path: ByteString)
  /// A block device, and nothing else.
  case device(path: ByteString)
  /// Zeroes at first, gone with the server.
  case memory(byteCount: UInt64)
  /// One behind the other.
  case linear([BackendDefinition])
  /// Chunks in turns.
  case stripe([BackendDefinition], chunkByteCount: UInt64)
  /// The same bytes in each.
  case mirror([BackendDefinition], MirrorSettings)
  /// What is written goes to a file that is kept, for all clients.
  case overlay(base: BackendDefinition, layer: ByteString)

  /// Of a linear or striped medium; mirrors have a lower limit of their own.
  public static let memberCountMaximum = 64
  /// How deep stacks may be.
  public static let depthMaximum = 8
  /// In bytes, for `stripe`; the chunk is a power of two besides.
  public static let chunkByteCountRange: ClosedRange<Int> = 4096...(64 << 20)

  /// For people: `mirror(/dev/sda, /dev/sdb)`.
  public var text: ByteString {
    switch self {
    case .file(let path), .device(let path): path
    case .memory: "memory"
    case .linear(let members): "linear(" + Self.list(members) + ")"
    case .stripe(let members, _): "stripe(" + Self.list(members) + ")"
    case .mirror(let members, _): "mirror(" + Self.list(members) + ")"
    case .overlay(let base, let layer): "overlay(" + base.text + ", " + layer + ")"
    }
  }

  private static func list(_ members: [BackendDefinition]) -> ByteString {
    var text = ByteString()
    for (index, member) in members.enumerated() {
      if index > 0 { text += ", " }
      text += member.text
    }
    return text
  }

  /// Every file and device that is opened for it, layers and bitmaps aside.
  public var paths: [ByteString] {
    switch self {
    case .file(let path), .device(let path): [path]
    case .memory: []
    case .linear(let members), .stripe(let members, _), .mirror(let members, _):
      members.flatMap(\.paths)
    case .overlay(let base, _): base.paths
    }
  }
}

/// How a mirror is kept.
public struct MirrorSettings: Equatable, Sendable {
  /// The file that remembers what is not the same yet.
  public var state: ByteString
  /// While a half is brought up to date; 0: as many as can be. Nil: what the mirror has by itself.
  public var resyncBytesPerSecond: UInt64?
  /// When a half that failed is tried again; 0: never. Nil: what the mirror has by itself.
  public var retrySeconds: UInt64?

  /// A mirror has 2 to so many halves.
  public static let memberCountMaximum = 8
  /// See `retrySeconds`.
  public static let retrySecondsRange: ClosedRange<UInt64> = 0...86_400

  public init(
    state: ByteString, resyncBytesPerSecond: UInt64? = nil, retrySeconds: UInt64? = nil
  ) {
    self.state = state
    self.resyncBytesPerSecond = resyncBytesPerSecond
    self.retrySeconds = retrySeconds
  }
}
