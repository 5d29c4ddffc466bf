// SPDX-License-Identifier: Apache-2.0
// What a client says of its devices, against a server that the test plays.

import RNBDProtocol
import TestSupport
import Testing
import WireFormat

/// A class, so that expectations can call what changes it.
final class PlayedDevices {
  var conversation: DeviceConversation

  init(_ names: [ByteString]) {
    conversation = DeviceConversation(
      names.map { OpenRequest(try! DeviceName($0), .readWrite) })
  }

  func next() -> ControlMessage? { conversation.next() }

  func answer(_ error: PeerErrno = .success, _ data: [UInt8] = []) -> ControlEvent? {
    conversation.answered(error: error, data: data.span)
  }

  func bytes(of message: ControlMessage) -> [UInt8] {
    [UInt8](capacity: Int(conversation.byteCounts(of: message).user)) { output in
      conversation.encode(message, into: &output)
    }
  }

  /// Everything is said, and answered with success and these numbers.
  func settle(_ numbers: [UInt32]) -> [ControlEvent] {
    var events: [ControlEvent] = []
    while let message = next() {
      switch message {
      case .information:
        events.append(answer(.success, SessionInformation(isAnswer: true).encoded)!)
      case .open(let device):
        events.append(answer(.success, Self.geometry(numbers[device]).encoded)!)
      case .close: events.append(answer()!)
      }
    }
    return events
  }

  static func geometry(_ number: UInt32, sectorCount: UInt64 = 2048) -> OpenAnswer {
    var answer = OpenAnswer(device: number, sectorCount: sectorCount)
    answer.cachePolicy = .writeBack
    answer.discardSectorCountMaximum = 128
    return answer
  }
}

@Suite("The conversation about devices")
struct DeviceConversationTests {
  @Test("says the version, then opens one device after the other")
  func order() throws {
    let devices = PlayedDevices(["root", "swap"])
    #expect(!devices.conversation.isSettled)
    #expect(devices.next() == .information)
    #expect(devices.next() == nil)
    #expect(devices.bytes(of: .information) == SessionInformation().encoded)
    #expect(
      devices.answer(.success, SessionInformation(version: 9, isAnswer: true).encoded)
        == .agreed(version: 2))
    #expect(devices.next() == .open(device: 0))
    #expect(
      devices.bytes(of: .open(device: 0))
        == OpenRequest(try DeviceName("root"), .readWrite).encoded)
    #expect(devices.conversation.byteCounts(of: .open(device: 0)) == (264, 56))
    let geometry = PlayedDevices.geometry(7)
    #expect(devices.answer(.success, geometry.encoded) == .opened(device: 0, geometry))
    #expect(devices.conversation.number(of: 0) == 7)
    #expect(!devices.conversation.isSettled)
    #expect(devices.next() == .open(device: 1))
    #expect(devices.answer(.notPermitted) == .refused(device: 1, .notPermitted))
    #expect(devices.next() == nil)
    #expect(devices.conversation.isSettled)
    #expect(devices.conversation.isOpen(0) && !devices.conversation.isOpen(1))
    devices.conversation.retry(1)
    #expect(devices.next() == .open(device: 1))
  }

  @Test("begins anew for a server that has forgotten, and takes the new number")
  func anew() {
    let devices = PlayedDevices(["root"])
    _ = devices.settle([0])
    devices.conversation.begin()
    #expect(!devices.conversation.isOpen(0))
    #expect(devices.settle([5]) == [.agreed(version: 2), .reopened(device: 0)])
    #expect(devices.conversation.number(of: 0) == 5)
    // What was out when the last path was lost is said again, and a late answer is none.
    devices.conversation.begin()
    #expect(devices.next() == .information)
    devices.conversation.begin()
    #expect(devices.answer() == nil)
    #expect(devices.next() == .information)
  }

  @Test("opens again what the server says is not open, and nothing else")
  func reopen() {
    let devices = PlayedDevices(["root", "swap"])
    _ = devices.settle([0, 1])
    devices.conversation.reopen(1)
    #expect(!devices.conversation.isSettled)
    #expect(devices.settle([9, 8]) == [.reopened(device: 1)])
    #expect(devices.conversation.number(of: 0) == 0)
    #expect(devices.conversation.number(of: 1) == 8)
  }

  @Test("closes for good, once")
  func close() {
    let devices = PlayedDevices(["root"])
    _ = devices.settle([3])
    devices.conversation.close(0)
    #expect(devices.next() == .close(device: 0))
    #expect(devices.bytes(of: .close(device: 0)) == CloseRequest(device: 3).encoded)
    #expect(devices.answer(.notConnected) == .closed(device: 0))
    #expect(devices.next() == nil)
    devices.conversation.begin()
    #expect(devices.settle([]) == [.agreed(version: 2)])
    // While it is being opened, too.
    let early = PlayedDevices(["root"])
    _ = early.next()
    _ = early.answer(.success, SessionInformation(isAnswer: true).encoded)
    _ = early.next()
    early.conversation.close(0)
    _ = early.answer(.success, PlayedDevices.geometry(4).encoded)
    #expect(early.next() == .close(device: 0))
    #expect(early.bytes(of: .close(device: 0)) == CloseRequest(device: 4).encoded)
  }

  /// What a device that was shown as `PlayedDevices.geometry` may become, or not.
  static let changes: [(String, OpenAnswer, mayReplace: Bool)] = {
    func changed(_ change: (inout OpenAnswer) -> Void) -> OpenAnswer {
      var answer = PlayedDevices.geometry(1)
      change(&answer)
      return answer
    }
    return [
      ("the same", changed { _ in }, true),
      ("smaller", changed { $0.sectorCount -= 1 }, false),
      ("larger", changed { $0.sectorCount += 1 }, false),
      ("of larger blocks", changed { $0.logicalBlockByteCount = 4096 }, false),
      ("of other physical blocks", changed { $0.physicalBlockByteCount = 4096 }, true),
      ("without discard", changed { $0.discardSectorCountMaximum = 0 }, false),
      ("with write zeroes", changed { $0.writeZeroesSectorCountMaximum = 8 }, true),
      ("without a cache", changed { $0.cachePolicy = [] }, false),
      ("with FUA", changed { $0.cachePolicy = [.writeBack, .fua] }, true),
    ]
  }()

  @Test("goes on only with a device that is what it was", arguments: changes)
  func changedDevice(name: String, answer: OpenAnswer, mayReplace: Bool) {
    let devices = PlayedDevices(["root"])
    _ = devices.settle([0])
    devices.conversation.reopen(0)
    _ = devices.next()
    let event = devices.answer(.success, answer.encoded)
    #expect(event == (mayReplace ? .reopened(device: 0) : .changed(device: 0, answer)))
    #expect(devices.conversation.isOpen(0) == mayReplace)
    #expect(devices.next() == (mayReplace ? nil : .close(device: 0)))
  }

  @Test("refuses answers that are none")
  func malformed() {
    let devices = PlayedDevices(["root"])
    #expect(devices.answer() == nil)
    _ = devices.next()
    #expect(devices.answer(.invalid) == .informationRefused(.invalid))
    #expect(devices.next() == .information)
    #expect(
      devices.answer(.success, SessionInformation().encoded)
        == .malformed(.value(field: "message type", actual: 0)))
    _ = devices.next()
    #expect(
      devices.answer(.success, [1]) == .malformed(.byteCount(expected: 36, actual: 1)))
    _ = devices.next()
    _ = devices.answer(.success, SessionInformation(isAnswer: true).encoded)
    _ = devices.next()
    #expect(
      devices.answer(.success, [1]) == .malformed(.byteCount(expected: 56, actual: 1)))
    #expect(!devices.conversation.isOpen(0))
  }
}
