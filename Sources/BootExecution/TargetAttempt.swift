// SPDX-License-Identifier: Apache-2.0
// One attempt at one target: every path and every address of it in turn, until one gives an
// export that the kernel takes.

import BootPlanning
import LinuxSystem
import NBDClient
import NBDDriver
import NBDProtocol
import WireFormat

/// A target that is attached, and what it took.
struct AttachedTarget {
  var device: NBDDevice
  var export: NegotiatedExport
  var server: SocketAddress
  /// Nil over a Unix socket.
  var local: SocketAddress?
  var connectionCount: Int
  var connectMilliseconds: UInt64
  var negotiateMilliseconds: UInt64
  var attachMilliseconds: UInt64
  var firstReadMilliseconds: UInt64
  var partitions: [ByteString]
}

/// Source: `connections` of nbd-client(8) has no limit, nbd.c has 256; a disk gains nothing from
/// more than a few, and the server pays for each.
let connectionCountMaximum: UInt32 = 16

struct TargetAttempt {
  let target: AttachmentTarget
  let interface: InterfaceChoice
  /// When the whole of it must be over.
  let deadline: Deadline

  /// The error is that of the last address; those before it are handed to `note`.
  func run(
    _ book: inout AddressBook, note: (AttemptError) -> Void
  ) throws(AttemptError) -> AttachedTarget {
    guard target.blockProtocol == .nbd else { throw .protocolMissing }
    var last: AttemptError?
    for path in target.paths {
      if target.tls?.isRequired == true {
        throw .tlsMissing(server: path.server.text ?? "the server of the lease")
      }
      do throws(AttemptError) {
        let addresses = try book.addresses(of: path.server, port: path.port, until: deadline)
        var source: SocketAddress?
        if let local = path.source {
          source = try book.addresses(of: local, port: 0, until: deadline).first
        }
        for address in addresses {
          do {
            return try attach(address, from: source)
          } catch {
            if let earlier = last { note(earlier) }
            last = error
            if !error.mayPass { throw error }
          }
        }
      } catch {
        if !error.mayPass { throw error }
        if let earlier = last, earlier != error { note(earlier) }
        last = error
      }
    }
    throw last ?? .protocolMissing
  }

  private func attach(
    _ address: SocketAddress, from source: SocketAddress?
  ) throws(AttemptError) -> AttachedTarget {
    let first = try connect(address, from: source, names: target.exports)
    let wanted = Int(min(max(target.connectionCount, 1), connectionCountMaximum))
    let count = first.export.flags.contains(.canMultiConn) ? wanted : 1
    var sockets = [first.socket.descriptor.rawValue]
    var others: [CInt] = []
    defer { for number in others { _ = FileDescriptor(owning: number) } }
    while sockets.count < count {
      let next = try connect(address, from: source, names: [first.export.name])
      guard next.export == first.export else { throw .connectionsDiffer(address: address.text) }
      let number = next.releaseSocket()
      others.append(number)
      sockets.append(number)
    }
    return try hand(sockets, of: first)
  }

  private func connect(
    _ address: SocketAddress, from source: SocketAddress?, names: [ByteString]
  ) throws(AttemptError) -> NBDConnection {
    do {
      return try NBDConnection.open(to: address, from: source, names: names, until: deadline)
    } catch { throw .connection(error) }
  }

  /// Gives the sockets to the kernel and looks at the device for the first time.
  private func hand(
    _ sockets: [CInt], of first: borrowing NBDConnection
  ) throws(AttemptError) -> AttachedTarget {
    let export = first.export
    var flags = export.flags
    if target.accessMode == .readOnly { flags.insert(.readOnly) }
    let sizes = export.blockSizes
    let server = first.address.text
    var minimum = sizes?.minimum ?? 1
    if let asked = target.blockSize { minimum = max(minimum, asked) }
    let request = AttachRequest(
      device: target.device.map { .index($0.number) } ?? .anyFree,
      sockets: sockets,
      geometry: ExportGeometry(
        sizeByteCount: export.byteCount, minimumBlockByteCount: minimum,
        maximumPayloadByteCount: sizes?.maximumPayload ?? BlockSizes.unnegotiatedMaximumPayload),
      transmissionFlags: flags.rawValue,
      timeoutSeconds: UInt64(target.requestTimeoutSeconds ?? 0),
      deadTimeoutSeconds: UInt64(target.deadTimeSeconds ?? 0),
      backendIdentifier: backendIdentifier(server: server, export: export.name),
      interface: interface)
    let start = MonotonicTime.now
    let attachment: Attachment
    do { attachment = try NBDDevice.attach(request) } catch { throw .driver(error) }
    let attachMilliseconds = MonotonicTime.now.milliseconds(since: start)
    let device = attachment.device
    let look: FirstLook
    do {
      look = try device.takeFirstLook()
    } catch {
      // The next attempt needs the device; what cannot be read is of no use to anybody.
      try? device.detach(isForced: true)
      throw .firstRead(device: device.node, error)
    }
    let record = AttachmentRecord(
      server: server, export: export.name, attachedSeconds: wallClockSeconds(),
      ownerThread: device.ownerThread ?? 0, backendIdentifier: request.backendIdentifier,
      connectionCount: UInt32(sockets.count))
    try? device.write(record)  // For `rootlink status`; the device works without it.
    return AttachedTarget(
      device: device, export: export, server: first.address,
      local: first.address.isUnix ? nil : first.socket.localAddress, connectionCount: sockets.count,
      connectMilliseconds: first.connectMilliseconds,
      negotiateMilliseconds: first.negotiateMilliseconds, attachMilliseconds: attachMilliseconds,
      firstReadMilliseconds: look.readMilliseconds, partitions: look.partitions)
  }
}
