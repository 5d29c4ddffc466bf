// SPDX-License-Identifier: Apache-2.0
// An Ethernet switch in the test's own process: every network card of every guest has a port, and
// a port can be cut. Nothing of it is seen on the host's network.
//
// QEMU's `stream` back end sends each frame over a Unix socket with its length in front, 4 bytes,
// most significant first. A frame goes to the port whose card has its destination address, any
// other one, as broadcasts, to all ports of its network: that of a card is the number's high byte.

import Foundation
import Synchronization
import TestSupport

final class GuestWire: Sendable {
  /// Where one card is plugged in.
  private final class Port: Sendable {
    let socket: Int32
    private let cut = Atomic(false)
    /// Frames of the card that went nowhere because it was cut off.
    let lostCount = Atomic(0)
    /// Frames that the card did not take in time.
    let droppedCount = Atomic(0)
    /// Frames are written whole, one after the other.
    private let writing = Mutex(true)

    init(_ socket: Int32) { self.socket = socket }

    var isCut: Bool {
      get { cut.load(ordering: .relaxed) }
      set { cut.store(newValue, ordering: .relaxed) }
    }

    /// Nothing is written any more: the socket may be closed.
    func close() { writing.withLock { $0 = false } }

    /// A guest that takes nothing, because it was stopped, loses frames and holds up nobody.
    func send(_ frame: UnsafeRawBufferPointer) {
      writing.withLock { isOpen in
        var ready = pollfd(fd: socket, events: Int16(POLLOUT), revents: 0)
        // SAFETY: a structure of ours.
        guard isOpen, !isCut else { return }
        guard unsafe poll(&ready, 1, GuestWire.patienceMilliseconds) == 1 else {
          droppedCount.add(1, ordering: .relaxed)
          return
        }
        var sent = 0
        while sent < frame.count {
          // SAFETY: `sent` is below the frame's count.
          let count = unsafe Glibc.send(
            socket, frame.baseAddress! + sent, frame.count - sent, Int32(MSG_NOSIGNAL))
          if count < 0, errno == EINTR { continue }
          guard count > 0 else { return }
          sent += count
        }
      }
    }
  }
  private static let frameByteCountMaximum = 65_536
  /// A guest on a busy machine takes nothing for a while; RoCE needs a second for each frame that
  /// is lost.
  private static let patienceMilliseconds: Int32 = 2000

  private let directory: TemporaryDirectory
  private let ports = Mutex<[UInt16: Port]>([:])

  init() throws { directory = try TemporaryDirectory() }

  deinit {
    ports.withLock { ports in
      for port in ports.values { shutdown(port.socket, Int32(SHUT_RDWR)) }
    }
  }

  /// The MAC address of a card: its number is in the last two bytes.
  static func address(of number: UInt16) -> String {
    String(format: "52:54:00:00:%02x:%02x", Int(number >> 8), Int(number & 0xff))
  }

  /// What QEMU is told to connect card `number` with; for one guest after the other.
  func arguments(forCard number: UInt16) throws -> [String] {
    let path = directory.path("port-\(number)")
    let listener = try listenToGuest(on: path)
    Thread.detachNewThread { [weak self] in
      // Children of the test that end interrupt whatever waits.
      var socket: Int32
      repeat { socket = accept(listener, nil, nil) } while socket < 0 && errno == EINTR
      close(listener)
      guard socket >= 0 else { return }
      let port = Port(socket)
      self?.ports.withLock { $0[number] = port }
      Self.forward(from: number, port) { [weak self] in self }
      port.close()
      close(socket)
    }
    return [
      "-netdev", "stream,id=n\(number),server=off,addr.type=unix,addr.path=\(path)",
      "-device", "virtio-net-pci,netdev=n\(number),romfile=,mac=\(Self.address(of: number))",
    ]
  }

  /// Whatever the cards send, or would get, is lost.
  func setCut(_ isCut: Bool, cards: UInt16...) {
    ports.withLock { ports in
      for card in cards { ports[card]?.isCut = isCut }
    }
  }

  /// Frames that a card has sent while it was cut off.
  func lostFrameCount(ofCard card: UInt16) -> Int {
    ports.withLock { $0[card]?.lostCount.load(ordering: .relaxed) ?? 0 }
  }

  /// Frames for any card that went nowhere because it took none for long: the machine is too busy,
  /// or the guest stands still.
  var droppedFrameCount: Int {
    ports.withLock { $0.values.reduce(0) { $0 + $1.droppedCount.load(ordering: .relaxed) } }
  }

  /// Until the guest ends. `wire` is nil when the wire has gone.
  private static func forward(from number: UInt16, _ port: Port, _ wire: () -> GuestWire?) {
    let capacity = 1 << 20
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: capacity, alignment: 16)
    defer { unsafe buffer.deallocate() }  // SAFETY: allocated above, and kept by nobody.
    var count = 0
    while true {
      // SAFETY: `count` is below the capacity: less than a frame is ever left over.
      let received = unsafe recv(port.socket, buffer.baseAddress! + count, capacity - count, 0)
      if received < 0, errno == EINTR { continue }
      guard received > 0, let wire = wire() else { return }
      count += received
      var start = 0
      while count - start >= 4 {
        // SAFETY: so many bytes are there.
        let length = unsafe Int(
          UInt32(bigEndian: buffer.loadUnaligned(fromByteOffset: start, as: UInt32.self)))
        guard length >= 14, length <= frameByteCountMaximum else { return }
        guard count - start >= 4 + length else { break }
        unsafe wire.deliver(
          UnsafeRawBufferPointer(rebasing: buffer[start..<(start + 4 + length)]), from: number)
        start += 4 + length
      }
      // SAFETY: both ranges lie in the buffer; memmove(3) allows that they overlap.
      unsafe memmove(buffer.baseAddress!, buffer.baseAddress! + start, count - start)
      count -= start
    }
  }

  /// `frame`: with its length in front.
  private func deliver(_ frame: UnsafeRawBufferPointer, from number: UInt16) {
    // SAFETY: a frame has at least 14 bytes; its destination stands at its start.
    let destination = unsafe UInt16(frame[8]) << 8 | UInt16(frame[9])
    let isOurs = unsafe frame[4] == 0x52 && frame[5] == 0x54
    let receivers: [Port] = ports.withLock { ports in
      guard let port = ports[number] else { return [] }
      if port.isCut {
        port.lostCount.add(1, ordering: .relaxed)
        return []
      }
      if isOurs, let port = ports[destination] { return [port] }
      return ports.filter { $0.key != number && $0.key >> 8 == number >> 8 }.map(\.value)
    }
    for port in receivers { unsafe port.send(frame) }
  }
}
