// SPDX-License-Identifier: Apache-2.0
// What is offered by name, and the table of it. No protocol here: NBD and RNBD ask the same table.

import BlockBackends
import LinuxSystem
import WireFormat

/// How clients may use an export.
public enum AccessMode: String, Sendable, CaseIterable {
  /// Nothing is written; several clients may have it.
  case readOnly = "ro"
  /// One client at a time writes to the medium.
  case readWrite = "rw"
  /// Two may, while a virtual machine moves from one to the other.
  case migration
  /// Writes go to a layer that is fresh for each session and dropped at its end; connections of
  /// one attachment share one.
  case overlay

  /// What a client writes goes to the medium, where others see it.
  public var writesToMedium: Bool { self == .readWrite || self == .migration }
}

/// An export as somebody asked for it: the command line or the configuration.
public struct ExportDefinition: Equatable, Sendable {
  /// What clients call it; empty for the default export.
  public var name: ByteString
  /// Of the file or device; of an export that is made of several, what people call it.
  public var path: ByteString
  /// Nil: the file or device at `path`.
  public var backend: BackendDefinition?
  public var description = ByteString()
  /// By default one client at a time may write.
  public var access = AccessMode.readWrite
  /// Every write is durable before it is answered.
  public var isSync = false
  /// A flush is answered before what it is about is durable.
  public var isAsync = false
  /// Past the page cache.
  public var isDirect = false
  /// `blockIO` is the same as `isDirect`; nil says nothing of it.
  public var ioMode: IOMode?
  /// What offsets and lengths must be multiples of; nil: what the medium wants.
  public var blockByteCount: UInt32?
  /// Serve so many bytes; nil: all of the file or device.
  public var byteCount: UInt64?
  /// Where the layers of attachments are kept so that they outlive the server; nil: nowhere.
  public var layersDirectory: ByteString?
  /// Whose clients see it.
  public var allow = AllowList.everybody

  /// All other properties as they are by default.
  public init(name: ByteString, path: ByteString) {
    self.name = name
    self.path = path
  }

  /// What of it a client is told, or kept from: all but where the bytes are and how they are kept.
  /// Two definitions that are alike but for it can share an open medium.
  var withoutManners: ExportDefinition {
    var plain = self
    plain.description = ByteString()
    plain.allow = .everybody
    return plain
  }
}

/// An export whose medium is open.
public final class Export: Sendable {
  /// What clients call it; empty for the default export.
  public let name: ByteString
  /// Text for people, which clients can ask for; perhaps empty.
  public let description: ByteString
  /// What clients may do with it: `readOnly`, whatever was wanted, for a found file that may only
  /// be read.
  public let access: AccessMode
  /// Where the bytes come from, for `status`.
  public let path: ByteString
  private let base: any BlockBackend
  private let overlayDirectory: ByteString
  private let layersDirectory: ByteString?
  private let isSync: Bool
  /// When the image was last written to; 0 where nothing tells, as for a device.
  private let modifiedSeconds: UInt64
  /// What it has in common with other names for the same bytes: at least one.
  public let media: [MediumIdentity]
  /// The clients that see it.
  public let allow: AllowList
  /// What it was made from; nil for one that was found, or made by a test.
  public let definition: ExportDefinition?
  /// Those that its medium is made of.
  private let mirrors: [MirrorBackend]

  /// For tests, and for media that are not files.
  public init(
    name: ByteString, description: ByteString = "", access: AccessMode = .readWrite,
    path: ByteString = "", base: any BlockBackend, overlayDirectory: ByteString = "/var/tmp",
    layersDirectory: ByteString? = nil, isSync: Bool = false, modifiedSeconds: UInt64 = 0,
    media: [MediumIdentity] = [], allow: AllowList = .everybody,
    definition: ExportDefinition? = nil, mirrors: [MirrorBackend] = []
  ) {
    self.name = name
    self.description = description
    self.access = access
    self.path = path
    self.base = base
    self.overlayDirectory = overlayDirectory
    self.layersDirectory = layersDirectory
    self.isSync = isSync
    self.modifiedSeconds = modifiedSeconds
    self.media = media.isEmpty ? [.other(.random(in: 0 ... .max))] : media
    self.allow = allow
    self.definition = definition
    self.mirrors = mirrors
  }

  /// The same medium under a definition that differs only in what clients are told or kept from;
  /// nil for any other one.
  public func redefined(as definition: ExportDefinition) -> Export? {
    guard let own = self.definition, own.withoutManners == definition.withoutManners else {
      return nil
    }
    if own == definition { return self }
    return Export(
      name: name, description: definition.description, access: access, path: path, base: base,
      overlayDirectory: overlayDirectory, layersDirectory: layersDirectory, isSync: isSync,
      modifiedSeconds: modifiedSeconds, media: media, allow: definition.allow,
      definition: definition, mirrors: mirrors)
  }

  /// The export as every session sees it before it writes. `isAttached`: the session is one of an
  /// attachment, whose connections see one layer.
  public func geometry(isAttached: Bool = false) -> ExportGeometry {
    ExportGeometry(
      byteCount: base.byteCount,
      blockSizes: access == .overlay
        ? BackendBlockSizes(minimum: 1, preferred: max(4096, base.blockSizes.preferred))
        : base.blockSizes,
      isReadOnly: access == .readOnly,
      capabilities: access == .overlay
        ? (isAttached ? [.write, .trim, .isShared] : [.write, .trim])
        : access == .readOnly
          ? base.capabilities.subtracting([.write, .trim, .fastZeroes])
          // All sessions have the same object, whatever it is made of.
          : base.capabilities.union(.isShared))
  }

  /// The backend of one session: the shared medium, or an overlay of its own.
  public func open() throws(LayerError) -> any BlockBackend {
    guard access == .overlay else { return base }
    return try OverlayBackend(over: base, layerIn: overlayDirectory)
  }

  /// The backend of a connection of an attachment.
  public func open(_ connection: AttachmentConnection) -> any BlockBackend {
    connection.layer ?? base
  }

  /// Long work on its medium: halves of mirrors that are brought up to date.
  public var work: [WorkProgress] {
    mirrors.flatMap { mirror in
      let status = mirror.status
      return status.halves.filter { $0.state == .resyncing }.map { half in
        WorkProgress(
          what: "resync of \(half.summary.printable)",
          doneBytes: status.byteCount - min(half.staleByteCount, status.byteCount),
          totalBytes: status.byteCount)
      }
    }
  }
  /// The parts of a medium that is made of several.
  public var parts: [ServerStatus.Medium] {
    mirrors.flatMap { mirror in
      mirror.status.halves.map { half in
        let stale = half.staleByteCount > 0 ? ", \(half.staleByteCount) bytes are old" : ""
        return ServerStatus.Medium(
          path: half.summary.printable, role: "half of a mirror",
          state: half.state.rawValue + (half.state == .good ? "" : stale))
      }
    }
  }
  /// Says on the halves that they are the same; for the end of the server, after `flush`.
  public func close() {
    for mirror in mirrors { mirror.close() }
  }
  /// Writes are acknowledged before they are durable.
  public var isAsync: Bool { definition?.isAsync ?? false }

  /// Whether the definition would open the same bytes again, as far as can be told from outside: not
  /// when the file has been replaced, or has another size, or is the image under layers and has
  /// been written to.
  public var isCurrent: Bool {
    guard let definition, definition.backend == nil else { return true }
    guard let status = try? fileStatus(definition.path),
      let medium = MediumIdentity(status)
    else { return false }
    guard media == [medium] else { return false }
    guard status.kind == .regular else { return true }
    if access == .overlay, UInt64(bitPattern: status.modifiedSeconds) != modifiedSeconds {
      return false
    }
    return definition.byteCount != nil || status.byteCount / 65_536 == base.byteCount / 65_536
  }

  /// Makes the medium durable, for the end of the server. A layer is its attachment's.
  public func flush() throws(BackendError) {
    guard access.writesToMedium else { return }
    // It answers its clients' flushes without doing anything; the end of the server is another matter.
    try ((base as? AsyncBackend)?.base ?? base).flush()
  }

  /// The right to write to the medium, for a client whose protocol has no word for what it opens an
  /// export for; nil where nothing is written to it.
  public func takeForWriting(
    by writer: Writer, in access: WriteAccess
  ) throws(DeviceRefusal) -> WriteGrant? {
    guard self.access.writesToMedium else { return nil }
    let claim: WriteAccess.Claim = self.access == .migration ? .migration : .exclusive
    guard let grant = access.take(media, claim, by: writer) else { throw .inUse }
    return grant
  }
}

// Layers of attachments.
extension Export {
  /// The layer of an attachment that has none open; nil for exports without layers.
  func openLayer(for claim: AttachmentClaim) throws(AttachmentRefusal) -> OverlayBackend? {
    guard access == .overlay else { return nil }
    do {
      guard let path = layerPath(of: claim.token) else {
        if claim.isResuming { throw AttachmentRefusal.layerGone }
        return try OverlayBackend(over: base, layerIn: overlayDirectory)
      }
      return try OverlayBackend(
        over: base, layerAt: path, identity(of: claim.token), mustExist: claim.isResuming,
        isSync: isSync)
    } catch let refusal as AttachmentRefusal {
      throw refusal
    } catch let error as LayerError {
      let report = error.report
      switch error {
      case .gone: throw .layerGone
      case .foreign, .torn: throw .layerUnusable(reason: report.reason, advice: report.advice)
      case .cannotKeep, .inUse: throw .noLayer(reason: report.reason, advice: report.advice)
      }
    } catch {
      throw .layerGone
    }
  }

  /// Removes what an attachment has left, if it has left anything.
  func discardLayer(of token: AttachmentToken) {
    if let path = layerPath(of: token) { try? OverlayBackend.discardLayer(at: path) }
  }

  /// Whose layers an earlier server has left, in the order of the last writes; and files that have the name of one and are none.
  func keptLayers() -> (tokens: [AttachmentToken], foreign: [ByteString]) {
    guard let layersDirectory,
      let names = try? listDirectory(layersDirectory, limit: Self.keptLayerCountMaximum)
    else { return ([], []) }
    var found: [(token: AttachmentToken, modifiedSeconds: Int64)] = []
    var foreign: [ByteString] = []
    for name in names where name.hasSuffix(Self.layerSuffix) {
      guard let token = AttachmentToken(hexadecimal: ByteString(name.bytes.prefix(32))),
        let path = layerPath(of: token), path.hasSuffix("/" + name)
      else { continue }
      if OverlayBackend.isLayer(path, of: identity(of: token)) {
        found.append((token, (try? fileStatus(path))?.modifiedSeconds ?? 0))
      } else {
        foreign.append(path)
      }
    }
    found.sort { $0.modifiedSeconds < $1.modifiedSeconds }
    return (found.map(\.token), foreign)
  }

  /// Nil when this user cannot make layers; for the start of the server.
  public func checkLayers() throws(LayerError) {
    guard access == .overlay else { return }
    guard let path = layerPath(of: AttachmentToken(high: .random(in: 0 ... .max), low: 0)) else {
      _ = try OverlayBackend(over: base, layerIn: overlayDirectory)
      return
    }
    defer { try? OverlayBackend.discardLayer(at: path) }
    let token = AttachmentToken(high: 0, low: 0)
    _ = try OverlayBackend(over: base, layerAt: path, identity(of: token), mustExist: false)
  }

  private static let layerSuffix: ByteString = ".layer"
  private static let keptLayerCountMaximum = 1_000_000

  /// Exports may share a directory: the name tells them apart, and the file itself says the rest.
  private func layerPath(of token: AttachmentToken) -> ByteString? {
    guard let layersDirectory, access == .overlay else { return nil }
    var hash: UInt32 = 0x811c_9dc5  // 32-bit FNV-1a. Source: RFC 9923.
    for byte in name.bytes { hash = (hash ^ UInt32(byte)) &* 0x0100_0193 }
    return layersDirectory + "/" + token.hexadecimal
      + ByteString("-" + String(hash, radix: 16)) + Self.layerSuffix
  }

  private func identity(of token: AttachmentToken) -> LayerIdentity {
    LayerIdentity(
      tokenHigh: token.high, tokenLow: token.low, export: name, imageByteCount: base.byteCount,
      imageModifiedSeconds: modifiedSeconds)
  }
}

/// What a client may know of an export, and what requests are checked against.
public struct ExportGeometry: Equatable, Sendable {
  /// The size that clients see, in bytes.
  public var byteCount: UInt64
  /// What offsets and lengths keep to, in bytes.
  public var blockSizes: BackendBlockSizes
  /// Writes of every kind are refused.
  public var isReadOnly: Bool
  /// What clients are told that they may use; those that write are missing when `isReadOnly`.
  public var capabilities: BackendCapabilities

  public init(
    byteCount: UInt64, blockSizes: BackendBlockSizes, isReadOnly: Bool,
    capabilities: BackendCapabilities
  ) {
    self.byteCount = byteCount
    self.blockSizes = blockSizes
    self.isReadOnly = isReadOnly
    self.capabilities = capabilities
  }
}
