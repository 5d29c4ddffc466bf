// SPDX-License-Identifier: Apache-2.0
// What a client says of its devices, one message at a time: information first, then each device is
// opened; and all of it again when the server has forgotten the session.
//
//     begin ─► information ─► open, open, ... ─► settled: I/O may go out
//                               ▲
//                               └── reopen: the server says that a device is not open
//
// Once made it allocates nothing. What is out when the last path is lost is said anew by `begin`.

public import WireFormat

/// A message of the control conversation.
public enum ControlMessage: Equatable, Sendable {
  /// `SessionInformation`, first of all.
  case information
  /// `OpenRequest`, of the device with this index.
  case open(device: Int)
  /// `CloseRequest`, of the device with this index.
  case close(device: Int)
}

/// What an answer means for the driver.
public enum ControlEvent: Equatable, Sendable {
  /// The server has answered the information; `version` is the lower one of both sides.
  case agreed(version: UInt8)
  /// For the first time: the device can be shown.
  case opened(device: Int, OpenAnswer)
  /// Again, and it is what it was; its number at the server may be another.
  case reopened(device: Int)
  /// Say `retry` to ask again: right after a crash of this machine EPERM lasts half a minute.
  case refused(device: Int, PeerErrno)
  /// What is there now is not what was opened before; it is closed again.
  case changed(device: Int, OpenAnswer)
  /// For good, at our wish.
  case closed(device: Int)
  /// The server refuses to talk.
  case informationRefused(PeerErrno)
  /// The answer to what was out is none; a device that it was about counts as refused.
  case malformed(WireError)
}

/// What one session says of its devices; see the head of this file. Devices go by their index in
/// the list that it was made with.
public struct DeviceConversation: Sendable {
  private enum Step: Equatable { case toOpen, open, toClose, closed, refused }

  private struct Device {
    let request: OpenRequest
    var step = Step.toOpen
    /// As it was first opened.
    var geometry: OpenAnswer?
    /// The server's number for it, while it is open.
    var number: UInt32 = 0
  }

  private var devices: [Device]
  private var needsInformation = true
  private var out: ControlMessage?

  /// One request for each device; more cannot be added later.
  public init(_ requests: [OpenRequest]) {
    devices = []
    for request in requests { devices.append(Device(request: request)) }
  }

  /// All of them, open or not.
  public var deviceCount: Int { devices.count }
  /// I/O of the device may go out.
  public func isOpen(_ device: Int) -> Bool { devices[device].step == .open }
  /// For I/O of an open device.
  public func number(of device: Int) -> UInt32 { devices[device].number }
  /// As the device was when it was first opened; nil before that.
  public func geometry(of device: Int) -> OpenAnswer? { devices[device].geometry }

  /// Nothing is out and nothing waits to be said.
  public var isSettled: Bool {
    guard out == nil, !needsInformation else { return false }
    for device in devices where device.step == .toOpen || device.step == .toClose { return false }
    return true
  }

  /// The server may know nothing of before: the session's generation has grown. An answer to what
  /// was out will not come.
  public mutating func begin() {
    out = nil
    needsInformation = true
    for index in devices.indices {
      switch devices[index].step {
      case .open: devices[index].step = .toOpen
      case .toClose: devices[index].step = .closed
      case .toOpen, .closed, .refused: break
      }
    }
  }

  /// The answer to an I/O was ENOTCONN.
  public mutating func reopen(_ device: Int) {
    if devices[device].step == .open { devices[device].step = .toOpen }
  }

  /// Asks again for one that was refused.
  public mutating func retry(_ device: Int) {
    if devices[device].step == .refused { devices[device].step = .toOpen }
  }

  /// For good.
  public mutating func close(_ device: Int) {
    switch devices[device].step {
    case .open: devices[device].step = .toClose
    case .toOpen where out == .open(device: device): devices[device].step = .toClose
    case .toOpen, .refused: devices[device].step = .closed
    case .toClose, .closed: break
    }
  }

  /// What to send now; it counts as sent. Nil while one is out, and when there is nothing to say.
  public mutating func next() -> ControlMessage? {
    guard out == nil else { return nil }
    if needsInformation {
      out = .information
    } else {
      for index in devices.indices {
        if devices[index].step == .toOpen { out = .open(device: index) }
        if devices[index].step == .toClose { out = .close(device: index) }
        if out != nil { break }
      }
    }
    return out
  }

  /// How long a message is, and the room that its answer needs: 0, then it carries nothing back.
  public func byteCounts(of message: ControlMessage) -> (user: UInt16, answer: UInt32) {
    switch message {
    case .information:
      (UInt16(SessionInformation.byteCount), UInt32(SessionInformation.byteCount))
    case .open: (UInt16(OpenRequest.byteCount), UInt32(OpenAnswer.byteCount))
    case .close: (UInt16(CloseRequest.byteCount), 0)
    }
  }

  public func encode(_ message: ControlMessage, into output: inout OutputSpan<UInt8>) {
    switch message {
    case .information: SessionInformation().encode(into: &output)
    case .open(let device): devices[device].request.encode(into: &output)
    case .close(let device): CloseRequest(device: devices[device].number).encode(into: &output)
    }
  }

  /// The answer to what is out; `data` is what the server wrote. Nil when nothing is out.
  public mutating func answered(error: PeerErrno, data: Span<UInt8>) -> ControlEvent? {
    guard let message = out else { return nil }
    out = nil
    switch message {
    case .information:
      guard error == .success else { return .informationRefused(error) }
      do throws(WireError) {
        let answer = try SessionInformation(decoding: data)
        guard answer.isAnswer else { return .malformed(.value(field: "message type", actual: 0)) }
        needsInformation = false
        return .agreed(version: min(answer.version, RNBD.version))
      } catch {
        return .malformed(error)
      }
    case .open(let device): return opened(device, error: error, data: data)
    case .close(let device):
      // The server has closed it, or never knew it.
      devices[device].step = .closed
      return .closed(device: device)
    }
  }

  private mutating func opened(
    _ device: Int, error: PeerErrno, data: Span<UInt8>
  ) -> ControlEvent {
    let isUnwanted = devices[device].step == .toClose
    guard error == .success else {
      devices[device].step = isUnwanted ? .closed : .refused
      return isUnwanted ? .closed(device: device) : .refused(device: device, error)
    }
    do throws(WireError) {
      let answer = try OpenAnswer(decoding: data)
      devices[device].number = answer.device
      if isUnwanted { return .reopened(device: device) }
      guard let before = devices[device].geometry else {
        devices[device].geometry = answer
        devices[device].step = .open
        return .opened(device: device, answer)
      }
      guard answer.canReplace(before) else {
        devices[device].step = .toClose
        return .changed(device: device, answer)
      }
      devices[device].step = .open
      return .reopened(device: device)
    } catch {
      devices[device].step = isUnwanted ? .closed : .refused
      return .malformed(error)
    }
  }
}

extension OpenAnswer {
  /// Whether a device that was shown as `before` may go on with this: the size and the blocks are
  /// the same, and it can do no less.
  func canReplace(_ before: OpenAnswer) -> Bool {
    sectorCount == before.sectorCount
      && logicalBlockByteCount == before.logicalBlockByteCount
      && writeZeroesSectorCountMaximum >= before.writeZeroesSectorCountMaximum
      && discardSectorCountMaximum >= before.discardSectorCountMaximum
      // A cache that was not there before would never be flushed.
      && cachePolicy.contains(.writeBack) == before.cachePolicy.contains(.writeBack)
      && cachePolicy.isSuperset(of: before.cachePolicy)
  }
}
