// SPDX-License-Identifier: Apache-2.0
// A server to answer the client under test, and messages in bytes.

import BootPlanning
import DHCPProtocol
import TestSupport
import WireFormat

func ipv4(_ text: String) -> IPv4Address { IPv4Address(Array(text.utf8)[...])! }

let ethernetAddress: [UInt8] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]

/// An offer in bytes. Layout: RFC 2131, figure 1; options: RFC 2132.
let offerHeader = """
  02 01 06 00 3903f326 0000 0000 00000000 c0000232 c000020a 00000000
  525400123456 \(zeroes(10))
  """
let cookie = "63825363"
let offerOptions = """
  350102 3604c0000209 330400000e10 0104ffffff00 0304c0000201
  0608c0000235c0000236 0f076578616d706c65 0c02 6831 1a0205dc
  111f 6e62643a2f2f3139322e302e322e392f64656269616e2d726f6f743f783d31
  1c04c00002ff 3a0400000384 3b0400000a8c ff
  """
let offerBytes = bytes("\(offerHeader) \(zeroes(64)) \(zeroes(128)) \(cookie) \(offerOptions)")

/// A reply with `options` (hexadecimal, without the end) and nothing in `sname` and `file`.
func reply(_ options: String, serverName: String = "", bootFile: String = "") -> [UInt8] {
  var message = bytes("\(offerHeader)")
  message += Array(serverName.utf8) + [UInt8](repeating: 0, count: 64 - serverName.utf8.count)
  message += Array(bootFile.utf8) + [UInt8](repeating: 0, count: 128 - bootFile.utf8.count)
  return message + bytes("\(cookie) \(options) ff")
}

/// A span may not outlive the array that it looks into, so the array is a parameter.
func decoded(_ bytes: [UInt8]) throws -> DHCPMessage { try DHCPMessage(decoding: bytes.span) }

func decodedDatagram(_ bytes: [UInt8], isComplete: Bool) throws -> UDPDatagram {
  try UDPDatagram(decoding: bytes.span, isChecksumComplete: isComplete)
}

/// What no lease is without: server, time, mask.
let necessary = "350102 3604c0000209 330400000e10 0104ffffff00"

func lease(_ options: String) throws -> DHCPLease? {
  DHCPLease(try decoded(reply("\(necessary) \(options)")))
}

/// A server's answer to what the client sent.
struct ScriptedServer {
  var address = ipv4("192.0.2.9")
  var offered = ipv4("192.0.2.50")
  var seconds: UInt32 = 3600
  var rootPath: ByteString?
  var text: ByteString?

  func answer(_ type: DHCPMessageType, to request: DHCPMessage) -> [UInt8] {
    var message = DHCPMessage(.reply)
    message.transaction = request.transaction
    message.hardwareAddress = request.hardwareAddress
    message.yourAddress = type == .refusal ? ipv4("0.0.0.0") : offered
    var time: [UInt8] = []
    time.append(bigEndian: seconds)
    message.options = [
      DHCPOption(.messageType, [type.rawValue]), DHCPOption(.serverIdentifier, address),
    ]
    if let text { message.options.append(DHCPOption(.message, text.bytes)) }
    if type != .refusal {
      message.options.append(DHCPOption(.leaseTime, time))
      message.options.append(DHCPOption(.subnetMask, [255, 255, 255, 0]))
      if let rootPath { message.options.append(DHCPOption(.rootPath, rootPath.bytes)) }
    }
    return message.encoded
  }
}
