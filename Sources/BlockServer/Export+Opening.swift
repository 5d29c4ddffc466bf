// SPDX-License-Identifier: Apache-2.0
// From what somebody asked for to a medium that is open: files, and stacks of them.

import BlockBackends
import LinuxSystem
import WireFormat

/// Why an export cannot be offered.
public enum ExportOpenError: Error, Equatable, Sendable {
  /// The file or device of an export, or of a part of one.
  case file(FileBackend.OpenError)
  /// The layer of an overlay that all clients share.
  case layer(LayerError)
  /// The parts do not fit together, or the block size does not fit them.
  case stack(StackError)
  /// The mirror has no half to begin with, or its halves do not belong together.
  case mirror(MirrorError)
  /// The file of the mirror's state, by its path, could not be made or opened.
  case mirrorState(ByteString, SystemError)
  /// `type = "device"`, and the path is none.
  case noDevice(ByteString)
  /// Of a medium in memory.
  case noMemory(byteCount: UInt64)

  /// What happened, with its values, and what the administrator can do about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .file(let error): error.report
    case .layer(let error): error.report
    case .stack(let error): error.report
    case .mirror(let error): error.report
    case .mirrorState(let path, let error):
      (
        "the state of the mirror cannot be kept in \(path.printable): \(error.text)",
        "name a file in a directory that rootlinkd may write to"
      )
    case .noDevice(let path):
      ("\(path.printable) is no block device", "name a device, or write type = \"file\"")
    case .noMemory(let count):
      ("there is no memory for \(count) bytes", "give a smaller size")
    }
  }
}

/// What a stack of backends has been made of so far.
struct OpenedMedia {
  /// What is written to.
  var identities: [MediumIdentity] = []
  /// Of the image, where it is one regular file; else 0.
  var modifiedSeconds: UInt64 = 0
  var isAlone = true
  var mirrors: [MirrorBackend] = []
  let report: @Sendable (MirrorEvent) -> Void

  init(report: @escaping @Sendable (MirrorEvent) -> Void) { self.report = report }

  mutating func add(_ path: ByteString, isWritten: Bool) {
    guard let status = try? fileStatus(path) else { return }
    // A device node says nothing of when its blocks were written to.
    let seconds = status.kind == .regular ? UInt64(bitPattern: status.modifiedSeconds) : 0
    modifiedSeconds = isAlone ? seconds : 0
    isAlone = false
    if isWritten, let identity = MediumIdentity(status) { identities.append(identity) }
  }
}

extension BackendDefinition {
  /// `options`: of every file and device.
  func open(
    _ options: FileBackend.Options, _ media: inout OpenedMedia
  ) throws(ExportOpenError) -> any BlockBackend {
    switch self {
    case .file(let path), .device(let path):
      if case .device = self, (try? fileStatus(path))?.kind != .blockDevice {
        throw .noDevice(path)
      }
      let backend: FileBackend
      do { backend = try FileBackend(path, options: options) } catch { throw .file(error) }
      media.add(path, isWritten: true)
      return backend
    case .memory(let count):
      media.identities.append(.other(.random(in: 0 ... .max)))
      do { return try MemoryBackend(sparse: count) } catch { throw .noMemory(byteCount: count) }
    case .linear(let members):
      let parts = try Self.open(members, options, &media)
      do { return try LinearBackend(parts) } catch { throw .stack(error) }
    case .stripe(let members, let chunk):
      let parts = try Self.open(members, options, &media)
      do { return try StripeBackend(parts, chunkByteCount: chunk) } catch { throw .stack(error) }
    case .mirror(let members, let settings):
      return try Self.mirror(members, settings, options, &media)
    case .overlay(let base, let layer):
      return try Self.overlay(base, layer, options, &media)
    }
  }

  private static func open(
    _ members: [BackendDefinition], _ options: FileBackend.Options, _ media: inout OpenedMedia
  ) throws(ExportOpenError) -> [any BlockBackend] {
    var parts: [any BlockBackend] = []
    for member in members { parts.append(try member.open(options, &media)) }
    return parts
  }

  /// One of whose halves may be missing. It writes to its halves whatever clients may do.
  private static func mirror(
    _ members: [BackendDefinition], _ settings: MirrorSettings, _ options: FileBackend.Options,
    _ media: inout OpenedMedia
  ) throws(ExportOpenError) -> any BlockBackend {
    var halves: [(any BlockBackend)?] = []
    for member in members {
      halves.append(try? member.open(options.subtracting(.readOnly), &media))
    }
    var mirrorOptions = MirrorOptions()
    if let rate = settings.resyncBytesPerSecond { mirrorOptions.resyncBytesPerSecond = rate }
    if let seconds = settings.retrySeconds { mirrorOptions.retrySeconds = seconds }
    let byteCount = MirrorBackend.byteCount(of: halves.compactMap { $0 })
    let state: FileBackend
    do {
      _ = try FileDescriptor.open(settings.state, [.readWrite, .create], mode: 0o600)
    } catch { throw .mirrorState(settings.state, error) }
    do {
      // One that is there already is longer than a smaller half would make it.
      let wanted = MirrorBackend.stateByteCount(for: byteCount, options: mirrorOptions)
      let present = (try? fileStatus(settings.state))?.byteCount ?? 0
      state = try FileBackend(settings.state, byteCount: max(wanted, present))
    } catch { throw .file(error) }
    do {
      let mirror = try MirrorBackend(
        halves: halves, state: state, options: mirrorOptions, report: media.report)
      media.mirrors.append(mirror)
      return mirror
    } catch { throw .mirror(error) }
  }

  /// One layer for everybody. What lies below is only read.
  private static func overlay(
    _ base: BackendDefinition, _ layer: ByteString, _ options: FileBackend.Options,
    _ media: inout OpenedMedia
  ) throws(ExportOpenError) -> any BlockBackend {
    var below = OpenedMedia(report: media.report)
    let image = try base.open(options.union(.readOnly), &below)
    // The layer knows by its own name whose it is.
    let identity = LayerIdentity(
      tokenHigh: 0, tokenLow: 0, export: layer, imageByteCount: image.byteCount,
      imageModifiedSeconds: below.modifiedSeconds)
    do {
      let backend = try OverlayBackend(
        over: image, layerAt: layer, identity, mustExist: false, isSync: options.contains(.sync))
      media.add(layer, isWritten: true)
      media.mirrors += below.mirrors
      return backend
    } catch { throw .layer(error) }
  }
}

extension Export {
  /// Opens what a definition names, whatever it is made of. `report`: told what happens to its
  /// mirrors, from any thread, with the name of the export.
  public static func open(
    _ definition: ExportDefinition, overlayDirectory: ByteString,
    report: @escaping @Sendable (ByteString, MirrorEvent) -> Void = { _, _ in }
  ) throws(ExportOpenError) -> Export {
    guard let backend = definition.backend else {
      do { return try Export(definition, overlayDirectory: overlayDirectory) } catch {
        throw .file(error)
      }
    }
    let name = definition.name
    var media = OpenedMedia { report(name, $0) }
    var base = try backend.open(definition.fileOptions, &media)
    do { base = try definition.dressed(base) } catch { throw .stack(error) }
    return Export(
      name: definition.name, description: definition.description, access: definition.access,
      path: definition.path, base: base, overlayDirectory: overlayDirectory,
      layersDirectory: definition.layersDirectory, isSync: definition.isSync,
      modifiedSeconds: media.modifiedSeconds, media: media.identities, allow: definition.allow,
      definition: definition, mirrors: media.mirrors)
  }

  /// Opens the file or device. `shownAs`: what people call it.
  public convenience init(
    _ definition: ExportDefinition, shownAs shown: ByteString? = nil, overlayDirectory: ByteString
  ) throws(FileBackend.OpenError) {
    let file = try FileBackend(
      definition.path, shownAs: shown, options: definition.fileOptions,
      byteCount: definition.byteCount)
    let status = try? fileStatus(definition.path)
    var base: any BlockBackend = file
    // Nothing but a block size can be wrong, and the configuration has looked at it.
    do { base = try definition.dressed(file) } catch {}
    self.init(
      name: definition.name, description: definition.description, access: definition.access,
      path: shown ?? definition.path, base: base, overlayDirectory: overlayDirectory,
      layersDirectory: definition.layersDirectory, isSync: definition.isSync,
      // A device node says nothing of when its blocks were written to.
      modifiedSeconds: status?.kind == .regular
        ? UInt64(bitPattern: status?.modifiedSeconds ?? 0) : 0,
      media: status.flatMap { MediumIdentity($0) }.map { [$0] } ?? [], allow: definition.allow,
      definition: definition)
  }
}

extension ExportDefinition {
  var fileOptions: FileBackend.Options {
    var options: FileBackend.Options = access.writesToMedium ? [] : .readOnly
    if isSync { options.insert(.sync) }
    if isDirect || ioMode == .blockIO { options.insert(.direct) }
    return options
  }

  /// With what is put around the whole of a medium.
  func dressed(_ base: any BlockBackend) throws(StackError) -> any BlockBackend {
    var whole = base
    if let count = blockByteCount {
      whole = try BlockSizeBackend(over: whole, minimum: UInt64(count))
    }
    if isAsync { whole = AsyncBackend(over: whole) }
    return whole
  }
}
