// SPDX-License-Identifier: Apache-2.0
// The process that stays with a device and reconnects it, seen from outside. It listens on an
// abstract Unix socket, which is there exactly as long as the process is.

import CLinux
public import LinuxSystem
public import WireFormat

/// What the keeper of a device says of itself.
public struct DeviceKeeper: Equatable, Sendable {
  public struct Connection: Equatable, Sendable {
    /// 0 to 255: which of the device's connections.
    public var slot: UInt32
    /// `live`; `lost`: being brought back; `unseen`: made before this keeper came.
    public var state: ByteString
    /// Where it leads, or is sought.
    public var address: ByteString
  }

  /// Sent as one byte; the answer is what comes until the keeper closes, 4096 bytes at most.
  public enum Question: UInt8, Sendable {
    case state = 0x73
    /// It answers as to `state`, and ends: another one is to keep the device.
    case makePlace = 0x71
  }

  static let answerByteCountMaximum = 4096

  /// Its process id; 0 when it is in a namespace that we do not see.
  public var process: UInt32
  public var connections: [Connection]

  /// Nil when the name does not fit, which no device's name does.
  public static func address(of device: NBDDevice) -> SocketAddress? {
    try? SocketAddress(unixPath: ByteString([0]) + "rootlink-keeper-" + device.name)
  }

  /// Nil when nobody keeps the device.
  public static func ask(_ device: NBDDevice, _ question: Question) -> DeviceKeeper? {
    let deadline = Deadline.milliseconds(5000)
    guard device.root.isEmpty, let address = address(of: device),
      let socket = try? StreamSocket.connect(to: address, until: deadline)
    else { return nil }
    var user: UInt32 = 1
    var process: CInt = 0
    // SAFETY: two integers of ours. Anybody may have taken the name.
    guard unsafe clinux_peer_process(socket.descriptor.rawValue, &user, &process) == 0, user == 0
    else { return nil }
    var answer: [UInt8] = []
    do {
      try socket.send([question.rawValue], until: deadline)
      while answer.count < answerByteCountMaximum {
        let before = answer.count
        try socket.receive(
          into: &answer, maximum: answerByteCountMaximum - before, until: deadline)
        if answer.count == before { break }
      }
    } catch {}  // What came counts.
    return DeviceKeeper(process: UInt32(max(0, process)), answer: ByteString(answer))
  }

  /// Lines `SLOT STATE ADDRESS`; others are passed over.
  init(process: UInt32, answer: ByteString) {
    self.process = process
    connections = []
    for line in answer.fields(separatedBy: 0x0a) {
      let words = line.fields(separatedBy: 0x20)
      guard words.count == 3, let slot = words[0].decimal(maximum: 255) else { continue }
      connections.append(
        Connection(slot: UInt32(slot), state: words[1], address: words[2]))
    }
  }
}

extension NBDDevice {
  /// What a keeper needs, as the one that was started with the attachment left it.
  public var keeperFilePath: ByteString { root + Self.recordDirectory + "/" + name + ".keep" }
}
