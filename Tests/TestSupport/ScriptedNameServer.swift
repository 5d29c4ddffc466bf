// SPDX-License-Identifier: Apache-2.0
// A name server on the loopback interface that knows what a test tells it: addresses of names,
// or nothing at all, which it then does not even say.

import Foundation
import Glibc

public final class ScriptedNameServer: Sendable {
  public let port: UInt16
  private let socketNumber: Int32

  /// `records`: IPv4 and IPv6 octets by name, in small letters. Nil: never answers.
  public init(_ records: [String: [[UInt8]]]?) throws {
    let number = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
    socketNumber = number
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var byteCount = socklen_t(MemoryLayout<sockaddr_in>.size)
    // SAFETY: a sockaddr_in of ours, given as what it begins with.
    let failed = unsafe withUnsafeMutablePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
        unsafe bind(number, raw, byteCount) != 0 || getsockname(number, raw, &byteCount) != 0
      }
    }
    guard !failed else { throw RunningProcess.WaitError(description: "cannot bind: \(errno)") }
    port = UInt16(bigEndian: address.sin_port)
    Thread.detachNewThread { Self.serve(records, on: number) }
  }

  deinit { shutdown(socketNumber, Int32(SHUT_RDWR)) }

  private static func serve(_ records: [String: [[UInt8]]]?, on number: Int32) {
    var buffer = [UInt8](repeating: 0, count: 512)
    while true {
      var peer = sockaddr_in()
      var peerByteCount = socklen_t(MemoryLayout<sockaddr_in>.size)
      // SAFETY: a sockaddr_in of ours, given as what it begins with, and the array's own storage.
      let count = unsafe withUnsafeMutablePointer(to: &peer) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
          unsafe recvfrom(number, &buffer, buffer.count, 0, raw, &peerByteCount)
        }
      }
      guard count > 12 else {
        close(number)
        return
      }
      guard let records else { continue }
      let reply = answer(Array(buffer[..<count]), records)
      // SAFETY: as above.
      _ = unsafe withUnsafePointer(to: &peer) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
          unsafe sendto(number, reply, reply.count, 0, raw, peerByteCount)
        }
      }
    }
  }

  private static func answer(_ question: [UInt8], _ records: [String: [[UInt8]]]) -> [UInt8] {
    var name: [String] = []
    var offset = 12
    while question[offset] != 0 {
      let length = Int(question[offset])
      let label = question[(offset + 1)...(offset + length)]
      name.append(String(decoding: label, as: UTF8.self))
      offset += 1 + length
    }
    let octetCount = question[offset + 2] == 1 ? 4 : 16
    let found = records[name.joined(separator: ".")]
    let addresses = (found ?? []).filter { $0.count == octetCount }
    var reply = Array(question[..<2]) + [0x81, found == nil ? 0x83 : 0x80]
    reply += [0, 1, 0, UInt8(addresses.count), 0, 0, 0, 0] + question[12..<(offset + 5)]
    for address in addresses {
      reply += [0xc0, 12, 0, question[offset + 2], 0, 1, 0, 0, 0, 60, 0, UInt8(octetCount)]
      reply += address
    }
    return reply
  }
}
