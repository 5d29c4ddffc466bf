// SPDX-License-Identifier: Apache-2.0
// A netlink socket to the kernel, for the generic family or that of RDMA: questions with their
// answers, and events of groups. Only what comes from the kernel itself (port 0) counts; any process may
// send to our port.

import CLinux
public import NetlinkProtocol
public import WireFormat

/// Why a question to the kernel has no good answer.
public enum NetlinkError: Error, Equatable, Sendable {
  /// A call to the socket failed on this side.
  case failed(SystemError)
  /// The kernel refused, with its own words when it has any.
  case refused(SystemError, kernelText: ByteString?)
  /// The kernel's answer does not decode.
  case malformed(WireError)
  /// The deadline passed first.
  case noAnswer

  /// The errno behind it, if there is one.
  public var errno: CInt? {
    switch self {
    case .failed(let error), .refused(let error, _): error.errno
    case .malformed, .noAnswer: nil
    }
  }

  /// What happened, with the kernel's own words, for people.
  public var reason: String {
    switch self {
    case .failed(let error): "netlink: \(error.text)"
    case .refused(let error, let text):
      if let text {
        "the kernel: \(error.text) (\(text.printable))"
      } else {
        "the kernel: \(error.text)"
      }
    case .malformed(let error): "netlink: \(error.reason)"
    case .noAnswer: "netlink: the kernel did not answer in time"
    }
  }
}

/// One socket of one thread; see the head of this file.
public struct NetlinkSocket: ~Copyable {
  private let descriptor: FileDescriptor
  private var sequence: UInt32 = 0

  /// Of the generic family: `family` says which of its parts have which number.
  public init() throws(SystemError) {
    try self.init(protocol: CInt(clinux_NETLINK_GENERIC))
  }

  /// Of another netlink protocol, for requests that are only acknowledged.
  public init(protocol protocolNumber: CInt) throws(SystemError) {
    let number = try checked(clinux_netlink_open(protocolNumber, 0))
    descriptor = FileDescriptor(owning: number)
    // Both since Linux 4.12; without them errors have no words and repeat the request.
    _ = clinux_netlink_set(number, CInt(clinux_NETLINK_CAP_ACK))
    _ = clinux_netlink_set(number, CInt(clinux_NETLINK_EXT_ACK))
  }

  /// Hands the descriptor on, unclosed.
  public consuming func release() -> CInt { descriptor.release() }

  /// The family of that name; the kernel may load its module first. ENOENT when there is none.
  public mutating func family(
    named name: ByteString, until deadline: Deadline
  ) throws(NetlinkError) -> GenericFamily {
    let answers = try request(
      type: GenericFamily.controllerType, payload: GenericFamily.request(name: name),
      until: deadline)
    guard let answer = answers.first else { throw .refused(.noSuchFile, kernelText: nil) }
    do { return try GenericFamily(decoding: answer) } catch { throw .malformed(error) }
  }

  /// Hears the group's events from here on.
  public func join(group: UInt32) throws(SystemError) {
    _ = try checked(clinux_netlink_join(descriptor.rawValue, group))
  }

  /// Sends one request and gathers its answers until the kernel acknowledges it. Events that
  /// come in between are dropped: use a socket of its own for them.
  public mutating func request(
    type: UInt16, payload: [UInt8], until deadline: Deadline
  ) throws(NetlinkError) -> [GenericMessage] {
    var answers: [GenericMessage] = []
    for message in try ask(type: type, payload: payload, until: deadline)
    where message.type == type {
      do { answers.append(try GenericMessage(decoding: message.payload)) } catch {
        throw .malformed(error)
      }
    }
    return answers
  }

  /// Like `request`, of any netlink protocol: the messages of the answer as they came, up to the
  /// acknowledgement or the end of a dump.
  public mutating func ask(
    type: UInt16, flags: NetlinkMessage.Flags = .acknowledge, payload: [UInt8],
    until deadline: Deadline
  ) throws(NetlinkError) -> [NetlinkMessage] {
    sequence &+= 1
    let message = NetlinkMessage(
      type: type, flags: flags.union(.request), sequence: sequence, payload: payload)
    do { try descriptor.write(message.encoded) } catch { throw .failed(error) }
    var answers: [NetlinkMessage] = []
    while true {
      for message in try receive(until: deadline) where message.sequence == sequence {
        switch message.type {
        case NetlinkMessage.Control.error:
          let end: NetlinkAcknowledgement
          do { end = try NetlinkAcknowledgement(decoding: message) } catch {
            throw .malformed(error)
          }
          guard end.isSuccess else {
            throw .refused(SystemError(errno: end.errno), kernelText: end.text)
          }
          return answers
        case NetlinkMessage.Control.done:
          return answers
        default:
          answers.append(message)
        }
      }
    }
  }

  /// The next datagram's messages from the kernel. ENOBUFS means that events were lost.
  public func receive(until deadline: Deadline) throws(NetlinkError) -> [NetlinkMessage] {
    while true {
      var buffer = [UInt8](repeating: 0, count: NetlinkMessage.datagramByteCountMaximum)
      var port: UInt32 = 0
      let result = unsafe buffer.withUnsafeMutableBytes { raw in
        // SAFETY: the array's own storage, and an integer of ours for the sender.
        unsafe clinux_netlink_receive(descriptor.rawValue, raw.baseAddress, raw.count, &port)
      }
      if result == -Int(SystemError.tryAgain.errno) {
        let ready = clinux_poll(
          descriptor.rawValue, CShort(clinux_POLLIN), deadline.pollMilliseconds)
        if ready == 0, deadline.hasPassed { throw .noAnswer }
        if ready < 0, ready != -SystemError.interrupted.errno {
          throw .failed(SystemError(errno: 0 &- ready))
        }
        continue
      }
      if result == -Int(SystemError.interrupted.errno) { continue }
      let byteCount: Int
      do { byteCount = try checked(result) } catch { throw .failed(error) }
      guard port == 0 else { continue }
      guard byteCount <= buffer.count else {
        throw .malformed(
          .limit(
            field: "netlink datagram", maximum: UInt64(buffer.count), actual: UInt64(byteCount)))
      }
      buffer.removeLast(buffer.count - byteCount)
      do { return try NetlinkMessage.decode(datagram: buffer) } catch { throw .malformed(error) }
    }
  }
}
