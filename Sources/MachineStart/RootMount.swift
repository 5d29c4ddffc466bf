// SPDX-License-Identifier: Apache-2.0
// Mounts the root, as it is or below a layer in memory.

import BootPlanning
import CLinux
import LinuxSystem
import RootVolumes
import WireFormat

struct RootMount {
  static let place: ByteString = "/newroot"
  /// Below /run, so that the running system sees both.
  static let basePlace: ByteString = "/run/rootlink/base"
  static let layerPlace: ByteString = "/run/rootlink/changes"

  let device: BlockDevice
  /// To be tried in this order; empty: what lies on the device says it.
  var fileSystems: [ByteString]
  var options: MountOptions
  var isReadOnly: Bool
  var overlay: MemoryOverlay?
  let log: Log

  /// Mounts it, and says what it is: `ext4, read-only`.
  func mount(_ modules: inout ModuleLoader) throws(StartError) -> String {
    for place in [Self.place, Self.layerPlace, Self.basePlace] { unmountAll(place) }
    do { try makeDirectories(Self.place) } catch { throw .system(step: "/newroot", error) }
    guard let overlay else { return try mountDevice(on: Self.place, &modules) }
    for place in [Self.basePlace, Self.layerPlace] {
      do { try makeDirectories(place) } catch { throw .overlay(step: place, error) }
    }
    let text = try mountDevice(on: Self.basePlace, &modules)
    modules.load("overlay")
    let layer = Self.layerPlace
    do {
      try mountFileSystem("tmpfs", on: layer, type: "tmpfs", data: Self.size(overlay))
      for name: ByteString in ["/upper", "/work"] { try makeDirectories(layer + name) }
    } catch { throw .overlay(step: "tmpfs", error) }
    do {
      try mountFileSystem(
        "overlay", on: Self.place, type: "overlay",
        data: "lowerdir=" + Self.basePlace + ",upperdir=" + layer + "/upper,workdir=" + layer
          + "/work")
    } catch { throw .overlay(step: "overlay", error) }
    return text + ", changes in memory"
  }

  static func size(_ overlay: MemoryOverlay) -> ByteString {
    switch overlay.size {
    case .usual: "mode=0755"
    case .bytes(let count): ByteString("mode=0755,size=\(count)")
    case .percent(let part): ByteString("mode=0755,size=\(part)%")
    }
  }

  private func mountDevice(
    on place: ByteString, _ modules: inout ModuleLoader
  ) throws(StartError) -> String {
    var names = fileSystems
    if names.isEmpty {
      for volume in device.volumes() { names.append(ByteString(volume.fileSystem.name)) }
    }
    var failure = StartError.noFileSystem(device.node)
    for name in names {
      // The one module is for all three.
      modules.load(name == "ext2" || name == "ext3" ? "ext4" : name)
      do {
        let isReadOnly = try mountDevice(on: place, as: name)
        return name.printable + (isReadOnly ? ", read-only" : ", read-write")
      } catch {
        failure = .notMounted(device.node, fileSystem: name, error)
      }
    }
    throw failure
  }

  /// Whether it is read-only, which it also becomes when the device cannot be written to.
  private func mountDevice(
    on place: ByteString, as name: ByteString
  ) throws(SystemError) -> Bool {
    let readOnlyFlag = UInt(clinux_MS_RDONLY)
    let flags = options.flags & ~readOnlyFlag
    if !isReadOnly {
      do {
        try mountFileSystem(device.node, on: place, type: name, flags: flags, data: options.data)
        return false
      } catch {
        // EROFS, EACCES.
        guard error.errno == 30 || error.errno == 13 else { throw error }
      }
    }
    try mountFileSystem(
      device.node, on: place, type: name, flags: flags | readOnlyFlag, data: options.data)
    if !isReadOnly {
      log.write(
        .warning, "\(device.node.printable) cannot be written to: it is mounted read-only",
        next: "rootlink.overlay=tmpfs lays a writable layer over it")
    }
    return true
  }
}
