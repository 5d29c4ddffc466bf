// SPDX-License-Identifier: Apache-2.0
// A switch port that carries one VLAN, tagged, between a guest's card and QEMU's user network.
//
// Frames come over QEMU's `stream` back ends with their length in front, 4 bytes, most significant
// first. What the card sends without the right tag is lost.

import Foundation
import TestSupport

final class TaggedWire: Sendable {
  private let directory: TemporaryDirectory
  private let identifier: UInt16

  /// `identifier`: of the VLAN, 1 to 4094.
  init(identifier: UInt16) throws {
    directory = try TemporaryDirectory()
    self.identifier = identifier
    let card = try listenToGuest(on: directory.path("card"))
    let network = try listenToGuest(on: directory.path("network"))
    let tag = [0x81, 0x00, UInt8(identifier >> 8), UInt8(identifier & 0xff)]
    Thread.detachNewThread {
      let card = accept(card, nil, nil)
      let network = accept(network, nil, nil)
      Thread.detachNewThread {
        Self.forward(from: network, to: card) { frame in
          Array(frame[..<12]) + tag + Array(frame[12...])
        }
      }
      Self.forward(from: card, to: network) { frame in
        guard frame.count >= 18, Array(frame[12..<14]) == [0x81, 0x00],
          UInt16(frame[14] & 0xf) << 8 | UInt16(frame[15]) == UInt16(tag[2]) << 8 | UInt16(tag[3])
        else { return nil }
        return Array(frame[..<12]) + Array(frame[16...])
      }
    }
  }

  /// What QEMU is told.
  var arguments: [String] {
    [
      "-netdev", "stream,id=card,server=off,addr.type=unix,addr.path=\(directory.path("card"))",
      "-device", "virtio-net-pci,netdev=card,romfile=",
      "-netdev", "user,id=user", "-netdev", "hubport,id=p1,hubid=1,netdev=user",
      "-netdev",
      "stream,id=network,server=off,addr.type=unix,addr.path=\(directory.path("network"))",
      "-netdev", "hubport,id=p2,hubid=1,netdev=network",
    ]
  }

  /// Until one of them ends.
  private static func forward(
    from source: Int32, to target: Int32, _ change: ([UInt8]) -> [UInt8]?
  ) {
    let input = FileHandle(fileDescriptor: source)
    let output = FileHandle(fileDescriptor: target)
    while let head = try? input.read(upToCount: 4), head.count == 4 {
      let count = head.reduce(0) { $0 << 8 | Int($1) }
      guard count >= 14, count <= 65_536, let data = try? input.read(upToCount: count),
        data.count == count
      else { break }
      guard let frame = change(Array(data)) else { continue }
      var message: [UInt8] = []
      for shift in [24, 16, 8, 0] { message.append(UInt8(frame.count >> shift & 0xff)) }
      guard (try? output.write(contentsOf: message + frame)) != nil else { break }
    }
    shutdown(target, Int32(SHUT_RDWR))
  }
}
