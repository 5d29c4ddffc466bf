// SPDX-License-Identifier: Apache-2.0
// What is offered by name, and the table of it. No protocol here: NBD and RNBD ask the same table.

import BlockBackends
import LinuxSystem
import WireFormat

/// How clients may use an export.
public enum AccessMode: String, Sendable, CaseIterable {
  case readOnly = "ro"
  case readWrite = "rw"
  /// Writes go to a layer that is fresh for each session and dropped at its end; connections of
  /// one attachment share one.
  case overlay
}

/// An export as somebody asked for it: the command line or the configuration.
public struct ExportDefinition: Equatable, Sendable {
  public var name: ByteString
  public var path: ByteString
  public var description = ByteString()
  public var access = AccessMode.readWrite
  /// Every write is durable before it is answered.
  public var isSync = false
  /// Past the page cache.
  public var isDirect = false
  /// Serve so many bytes; nil: all of the file or device.
  public var byteCount: UInt64?
  /// Where the layers of attachments are kept so that they outlive the server; nil: nowhere.
  public var layersDirectory: ByteString?

  public init(name: ByteString, path: ByteString) {
    self.name = name
    self.path = path
  }
}

/// An export whose medium is open.
public final class Export: Sendable {
  public let name: ByteString
  public let description: ByteString
  public let access: AccessMode
  /// Where the bytes come from, for `status`.
  public let path: ByteString
  private let base: any BlockBackend
  private let overlayDirectory: ByteString
  private let layersDirectory: ByteString?
  private let isSync: Bool
  /// When the image was last written to; 0 where nothing tells, as for a device.
  private let modifiedSeconds: UInt64
  /// What it has in common with other names for the same bytes.
  public let medium: MediumIdentity

  /// For tests, and for media that are not files.
  public init(
    name: ByteString, description: ByteString = "", access: AccessMode = .readWrite,
    path: ByteString = "", base: any BlockBackend, overlayDirectory: ByteString = "/var/tmp",
    layersDirectory: ByteString? = nil, isSync: Bool = false, modifiedSeconds: UInt64 = 0,
    medium: MediumIdentity? = nil
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
    self.medium = medium ?? .other(.random(in: 0 ... .max))
  }

  /// Opens the file or device. `shownAs`: what people call it.
  public convenience init(
    _ definition: ExportDefinition, shownAs shown: ByteString? = nil, overlayDirectory: ByteString
  ) throws(FileBackend.OpenError) {
    var options: FileBackend.Options = definition.access == .readWrite ? [] : .readOnly
    if definition.isSync { options.insert(.sync) }
    if definition.isDirect { options.insert(.direct) }
    let base = try FileBackend(
      definition.path, shownAs: shown, options: options, byteCount: definition.byteCount)
    let status = try? fileStatus(definition.path)
    self.init(
      name: definition.name, description: definition.description, access: definition.access,
      path: shown ?? definition.path, base: base, overlayDirectory: overlayDirectory,
      layersDirectory: definition.layersDirectory, isSync: definition.isSync,
      // A device node says nothing of when its blocks were written to.
      modifiedSeconds: status?.kind == .regular
        ? UInt64(bitPattern: status?.modifiedSeconds ?? 0) : 0,
      medium: status.flatMap { MediumIdentity($0) })
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
          ? base.capabilities.subtracting([.write, .trim]) : base.capabilities)
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

  /// Makes the medium durable, for the end of the server. A layer is its attachment's.
  public func flush() throws(BackendError) {
    if access == .readWrite { try base.flush() }
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
  public var byteCount: UInt64
  public var blockSizes: BackendBlockSizes
  public var isReadOnly: Bool
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

/// All exports, in the order in which they are shown.
public struct ExportTable: Sendable {
  public let exports: [Export]
  private let byName: [ByteString: Export]

  /// Of two exports with one name the first counts; the configuration refuses that.
  public init(_ exports: [Export]) {
    self.exports = exports
    byName = Dictionary(exports.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
  }

  /// No name stands for another one.
  func exact(_ name: ByteString) -> Export? { byName[name] }

  /// The empty name is the default export: the one called so, else the only one there is.
  public func export(named name: ByteString) -> Export? {
    if let export = byName[name] { return export }
    return name.isEmpty && exports.count == 1 ? exports[0] : nil
  }
}
