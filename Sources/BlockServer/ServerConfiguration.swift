// SPDX-License-Identifier: Apache-2.0
// Everything a server is told before it starts, from the command line or a file. Decided here,
// carried out elsewhere.

import WireFormat

/// What the command line and the configuration file say together; see `validate`.
public struct ServerConfiguration: Equatable, Sendable {
  /// Where layers without a name are kept.
  public static let standardOverlayDirectory: ByteString = "/var/tmp"
  /// Where `rootlinkd status` asks when nothing is said.
  public static let standardControlPath: ByteString = "/run/rootlinkd.sock"
  /// Of `limits.connections` and `limits.connections_per_client`, both from 1 on.
  public static let connectionCountMaximumLimit = 100_000
  /// Of `limits.handshake_seconds`, from 1 on.
  public static let handshakeSecondsLimit: UInt64 = 3600
  /// Of `limits.idle_seconds`; 0: a session is never ended for it.
  public static let idleSecondsRange: ClosedRange<UInt64> = 0...30 * 86_400
  /// Its upper end is what NBD's clients may count on without having asked: less is for those that
  /// ask. Source: NBD `doc/proto.md`, "Block size constraints".
  public static let requestByteCountRange: ClosedRange<Int> = 65_536...33_554_432
  /// Beside its longest request: what a connection has of buffers.
  public static let connectionByteCount: UInt64 = 21 << 20
  /// Of `limits.silence_seconds`.
  public static let silenceSecondsRange: ClosedRange<UInt64> = 3...86_400
  /// Of `limits.drain_seconds`, from 1 on.
  public static let drainSecondsLimit: UInt64 = 3600
  /// Of `limits.absent_seconds`, from 0 on.
  public static let absentSecondsLimit: UInt64 = 30 * 86_400
  /// Of `limits.absent_attachments`, from 0 on.
  public static let absentCountLimit = 100_000

  /// In the order in which clients see them.
  public var exports: [ExportDefinition] = []
  /// Empty: `ListenAddress.standard`.
  public var listen: [ListenAddress] = []
  /// Where layers without a name are kept; taken up by exports that are opened from then on.
  public var overlayDirectory = standardOverlayDirectory
  /// Where `rootlinkd status` asks. Nil: the standard path, and no error when it cannot be used.
  public var controlPath: ByteString?
  /// What a client gets that names no export; nil: the one without a name, or the only one.
  public var defaultExport: ByteString?
  /// What clients may make the server spend.
  public var limits = ConnectionLimits()
  /// A client that a TCP connection has heard nothing from for so long is gone.
  public var silenceSeconds: UInt64 = 120
  /// How long sessions may take to end by themselves when the server stops.
  public var drainSeconds: UInt64 = 10
  /// How long a client that has lost its connections keeps its layer.
  public var absentSeconds: UInt64 = 600
  /// How many such clients there may be. Nil: twice as many as connections, so that a network that
  /// fails for everybody costs nobody his layer.
  public var absentCount: Int?
  /// What NBD's clients find beside the exports.
  public var nbdSearch = DeviceDirectory.Search()
  /// Whether or not the server listens on an RDMA device.
  public var rdma = RDMASettings()
  /// Where metrics are told; nil: nowhere.
  public var metricsAddress: ListenAddress?
  /// Of the server's own messages; not taken up while it runs.
  public var log = LogSettings()

  /// `absentSeconds` and `absentCount` as the table of attachments takes them.
  public var attachmentLimits: Attachments.Limits {
    var limits = Attachments.Limits()
    limits.absentSeconds = absentSeconds
    limits.absentCount = absentCount ?? 2 * self.limits.connectionCountMaximum
    return limits
  }

  /// Nothing is served, and everything else is as by default.
  public init() {}

  /// The keys that a running server does not take up.
  public func keysForStart(differingFrom old: ServerConfiguration) -> [String] {
    var keys: [String] = []
    if listen != old.listen { keys.append("listen") }
    if controlPath != old.controlPath { keys.append("control") }
    if silenceSeconds != old.silenceSeconds { keys.append("limits.silence_seconds") }
    if metricsAddress != old.metricsAddress { keys.append("metrics.listen") }
    if log != old.log { keys.append("log") }
    var (rdma, oldRDMA) = (rdma, old.rdma)
    rdma.search = DeviceDirectory.Search()
    oldRDMA.search = DeviceDirectory.Search()
    if rdma != oldRDMA { keys.append("rdma") }
    return keys
  }

  /// What is wrong with the whole though every part of it is well-formed.
  public enum ValidationError: Error, Equatable, Sendable {
    /// Nor is there a search path, without which nothing can be opened.
    case noExports
    /// Two exports have this name.
    case duplicateExport(ByteString)
    /// Too long, or with a NUL. Source: NBD `doc/proto.md`, "Values".
    case exportName(ByteString)
    /// The description of this export is too long, or has a NUL.
    case description(ByteString)
    /// This export has no path, or one with a NUL.
    case path(ByteString)
    /// This export has a directory for layers and is no overlay.
    case layersWithoutOverlay(ByteString)
    /// The directory for this export's layers is empty or has a NUL.
    case layersDirectory(ByteString)
    /// `defaultExport` is none of the exports.
    case unknownDefault(ByteString)
    /// This export is both.
    case bothSyncAndAsync(ByteString)
    /// This export is never written to, so there is nothing to acknowledge early.
    case asyncReadOnly(ByteString)
    /// The blocks of this export are no power of two from 512 to 65536.
    case blockByteCount(ByteString, UInt32)
    /// The size given for this export is no multiple of its blocks.
    case sizeMisaligned(ByteString)
    /// This export has a backend, whose parts say how large it is.
    case sizeOfBackend(ByteString)
    /// This export would go past the page cache and through it.
    case directAndFileIO(ByteString)
    /// `limits.memory` is less than one connection with the longest request needs, in bytes.
    case memoryForNobody(needed: UInt64)

    /// The export that it is about; nil: none, or all.
    public var export: ByteString? {
      switch self {
      case .noExports, .unknownDefault, .memoryForNobody: nil
      case .duplicateExport(let name), .exportName(let name), .description(let name),
        .path(let name), .layersWithoutOverlay(let name), .layersDirectory(let name),
        .bothSyncAndAsync(let name), .asyncReadOnly(let name), .blockByteCount(let name, _),
        .sizeMisaligned(let name), .sizeOfBackend(let name), .directAndFileIO(let name):
        name
      }
    }

    /// What is wrong, with the names given, and what to write instead.
    public var report: (reason: String, advice: String) {
      switch self {
      case .noExports:
        ("there is nothing to serve", "name an export: --export NAME=PATH, or [export.NAME]")
      case .duplicateExport(let name):
        ("there are two exports '\(name.printable)'", "give each export a name of its own")
      case .exportName(let name):
        (
          "the export name '\(name.printable)' is too long or holds a NUL",
          "use a name of at most 4096 bytes"
        )
      case .description(let name):
        (
          "the description of '\(name.printable)' is too long or holds a NUL",
          "use at most 4096 bytes"
        )
      case .path(let name):
        ("the export '\(name.printable)' has no path", "write NAME=PATH, or path = \"PATH\"")
      case .layersWithoutOverlay(let name):
        (
          "the export '\(name.printable)' has a directory for layers and is no overlay",
          "write 'overlay' too, or leave 'layers' out"
        )
      case .layersDirectory(let name):
        (
          "the directory for the layers of '\(name.printable)' is empty or holds a NUL",
          "write layers=DIRECTORY"
        )
      case .unknownDefault(let name):
        (
          "the default export '\(name.printable)' is none of the exports",
          "name one of them with default_export, or leave it out"
        )
      case .memoryForNobody(let needed):
        (
          "limits.memory is less than the \(needed) bytes of one connection",
          "raise it, or lower limits.request_size"
        )
      case .bothSyncAndAsync(let name):
        ("the export '\(name.printable)' is both sync and async", "choose one of them")
      case .asyncReadOnly(let name):
        ("the export '\(name.printable)' is ro and async", "leave 'async' out")
      case .blockByteCount(let name, let count):
        (
          "the blocks of '\(name.printable)' would have \(count) bytes",
          "give a power of two from 512 to 65536"
        )
      case .sizeMisaligned(let name):
        (
          "the size of '\(name.printable)' is not a multiple of its blocks",
          "give another size or blocksize"
        )
      case .sizeOfBackend(let name):
        (
          "the size of '\(name.printable)' is given, and it is made of several parts",
          "leave 'size' out: the parts say it"
        )
      case .directAndFileIO(let name):
        (
          "the export '\(name.printable)' is direct and has io mode fileio",
          "choose one: blockio is direct, fileio is through the page cache"
        )
      }
    }
  }

  /// Looks at the whole; the first thing found is thrown. Opens nothing.
  public func validate() throws(ValidationError) {
    var names: Set<ByteString> = []
    for export in exports {
      // Source: NBD `doc/proto.md`, "Values": strings are at most 4096 bytes.
      guard export.name.count <= 4096, !export.name.bytes.contains(0) else {
        throw .exportName(export.name)
      }
      guard export.description.count <= 4096, !export.description.bytes.contains(0) else {
        throw .description(export.name)
      }
      guard !export.path.isEmpty, !export.path.bytes.contains(0) else { throw .path(export.name) }
      if let directory = export.layersDirectory {
        guard export.access == .overlay else { throw .layersWithoutOverlay(export.name) }
        guard !directory.isEmpty, !directory.bytes.contains(0) else {
          throw .layersDirectory(export.name)
        }
      }
      guard names.insert(export.name).inserted else { throw .duplicateExport(export.name) }
      try export.validateOptions()
    }
    let needed = Self.connectionByteCount + UInt64(limits.requestByteCountMaximum)
    if let memory = limits.memoryByteCountMaximum, memory < needed {
      throw .memoryForNobody(needed: needed)
    }
    if let defaultExport, !names.contains(defaultExport) { throw .unknownDefault(defaultExport) }
    // Last, for a file may have all but this: the command line adds to it.
    guard !exports.isEmpty || rdma.search.path != nil || nbdSearch.path != nil else {
      throw .noExports
    }
  }
}

extension ExportDefinition {
  fileprivate func validateOptions() throws(ServerConfiguration.ValidationError) {
    guard !isSync || !isAsync else { throw .bothSyncAndAsync(name) }
    guard !isAsync || access != .readOnly else { throw .asyncReadOnly(name) }
    guard !isDirect || ioMode != .fileIO else { throw .directAndFileIO(name) }
    if let count = blockByteCount {
      guard (512...65_536).contains(count), count & (count - 1) == 0 else {
        throw .blockByteCount(name, count)
      }
      guard (byteCount ?? 0) % UInt64(count) == 0 else { throw .sizeMisaligned(name) }
    }
    guard backend == nil || byteCount == nil else { throw .sizeOfBackend(name) }
  }
}

/// How the log is written.
public struct LogSettings: Equatable, Sendable {
  /// Of each line.
  public enum Format: String, Sendable, CaseIterable {
    /// Sentences for people.
    case text
    /// `key=value`, one line an event.
    case logfmt
    /// One JSON object a line.
    case json
  }
  /// What is written at all; each includes those behind it.
  public enum Level: String, Sendable, CaseIterable {
    /// In rising order of importance.
    case debug, info, warning, error
  }

  /// By default sentences.
  public var format = Format.text
  /// The least important that is written; debug is left out by default.
  public var level = Level.info

  /// Text, from info on.
  public init() {}
}
