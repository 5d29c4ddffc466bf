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

  /// For tests, and for media that are not files.
  public init(
    name: ByteString, description: ByteString = "", access: AccessMode = .readWrite,
    path: ByteString = "", base: any BlockBackend, overlayDirectory: ByteString = "/var/tmp"
  ) {
    self.name = name
    self.description = description
    self.access = access
    self.path = path
    self.base = base
    self.overlayDirectory = overlayDirectory
  }

  /// Opens the file or device.
  public convenience init(
    _ definition: ExportDefinition, overlayDirectory: ByteString
  ) throws(FileBackend.OpenError) {
    var options: FileBackend.Options = definition.access == .readWrite ? [] : .readOnly
    if definition.isSync { options.insert(.sync) }
    if definition.isDirect { options.insert(.direct) }
    let base = try FileBackend(
      definition.path, options: options, byteCount: definition.byteCount)
    self.init(
      name: definition.name, description: definition.description, access: definition.access,
      path: definition.path, base: base, overlayDirectory: overlayDirectory)
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
  public func open() throws(OverlayBackend.LayerError) -> any BlockBackend {
    guard access == .overlay else { return base }
    return try OverlayBackend(over: base, layerIn: overlayDirectory)
  }

  /// The backend of a connection of an attachment.
  public func open(_ connection: AttachmentConnection) -> any BlockBackend {
    connection.layer ?? base
  }

  /// The layer of an attachment that has none yet; nil for exports without layers.
  func openLayer(for claim: AttachmentClaim) throws(AttachmentRefusal) -> OverlayBackend? {
    guard access == .overlay else { return nil }
    if claim.isResuming { throw .layerGone }
    do { return try OverlayBackend(over: base, layerIn: overlayDirectory) } catch {
      throw .noLayer(reason: error.report.reason, advice: error.report.advice)
    }
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

  /// The empty name is the default export: the one called so, else the only one there is.
  public func export(named name: ByteString) -> Export? {
    if let export = byName[name] { return export }
    return name.isEmpty && exports.count == 1 ? exports[0] : nil
  }
}
