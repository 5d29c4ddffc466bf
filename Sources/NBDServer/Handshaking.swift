// SPDX-License-Identifier: Apache-2.0
// Carries a `ServerHandshake` out on a socket: reads, writes, looks exports up. Like the session that
// follows it goes on by turns, and never waits unless the thread is its own.

import BlockBackends
import BlockServer
import CLinux
import LinuxSystem
import NBDProtocol
import WireFormat

struct Handshaking {
  enum Outcome {
    case entered(Entry, received: [UInt8])
    case notOpened(export: ByteString, reason: String, advice: String)
    case ended(reason: String)
  }

  /// An export, ready for requests.
  struct Entry {
    var export: Export
    var backend: any BlockBackend
    /// Where it may write to what others have, too.
    var grant: WriteGrant?
    /// Of a client that has named its attachment; it is to leave at the end.
    var attached: (connection: AttachmentConnection, identity: SessionIdentity)?
    /// The longest READ and WRITE.
    var requestByteCountMaximum = payloadByteCountMaximum
    /// What the handshake has taken off the socket, up to and beyond its end.
    var receivedByteCount: UInt64 = 0
    /// What was agreed on.
    var terms = SessionTerms()
  }

  /// Why `advance` has returned.
  enum Step {
    case input
    case output
    /// What comes next may take its time: only a thread that waits may go on.
    case medium
    case over(Outcome)
  }

  private let view: ClientView
  private let attachments: Attachments
  private let control: ConnectionControl
  /// From the acceptance to the end of the negotiation.
  let deadline: Deadline
  private let requestByteCountMaximum: UInt32
  private let isStopping: SharedFlag
  private var machine: ServerHandshake
  private var entry: Entry?
  private var receivedByteCount: UInt64 = 0
  private var failure: Outcome?
  private var output: [UInt8] = []
  private var sentByteCount = 0

  init(
    view: ClientView, attachments: Attachments, deadline: Deadline, requestByteCountMaximum: UInt32,
    optionCountMaximum: Int, isStopping: SharedFlag, control: ConnectionControl
  ) {
    self.view = view
    self.attachments = attachments
    self.requestByteCountMaximum = requestByteCountMaximum
    self.control = control
    self.deadline = deadline
    self.isStopping = isStopping
    machine = ServerHandshake(optionCountMaximum: optionCountMaximum)
  }

  static let lateness = Outcome.ended(
    reason: "the client did not finish the negotiation in time")

  /// Gives up what has been taken, when the client has not entered in the end.
  func abandon() {
    // Entered, and gone before it could be told so.
    if let attached = entry?.attached {
      attachments.leave(attached.connection, saysGoodbye: false)
    }
  }

  /// Goes on until something has to be waited for. `receives`: the client may have sent something.
  /// `waits`: exports may be opened that take their time.
  mutating func advance(_ socket: CInt, receives: Bool, waits: Bool) -> Step {
    do {
      let step = try advanceUnchecked(socket, receives: receives, waits: waits)
      if case .over(let outcome) = step {
        if case .entered = outcome { return step }
        abandon()
      }
      return step
    } catch {
      abandon()
      if error == .connectionReset || error.errno == 32 {
        // EPIPE: after a LIST or an INFO, many clients just leave.
        return .over(
          failure ?? .ended(reason: "the client left before it entered an export"))
      }
      return .over(.ended(reason: "the connection failed in the negotiation: \(error.text)"))
    }
  }

  private mutating func advanceUnchecked(
    _ socket: CInt, receives: Bool, waits: Bool
  ) throws(SystemError) -> Step {
    while true {
      guard try sendOutput(socket) else { return .output }
      machine.isStopping = isStopping.isSet
      switch machine.next() {
      case .receive:
        guard receives else { return .input }
        guard let count = try receive(socket) else { return .input }
        guard count > 0 else {
          return .over(failure ?? .ended(reason: "the client left before it entered an export"))
        }
      case .send(let bytes):
        output = bytes
        sentByteCount = 0
      case .findExport(let name, let isEntry):
        if isEntry, !waits, mayTakeTime(name) { return .medium }
        find(name, isEntry: isEntry)
      case .listExports:
        machine.answer(
          listing: view.exports.map {
            ListedExport(name: $0.name, description: $0.description)
          })
      case .checkSession(let identity):
        if attachments.isStale(AttachmentClaim(identity), among: view.exports) {
          refuse(.stale(slot: identity.slot), .errInvalid, export: "")
        } else {
          machine.acceptSession()
        }
      case .enter(let received):
        guard var entry else { return .over(.ended(reason: "no export was opened")) }
        entry.receivedByteCount = receivedByteCount
        entry.terms = machine.terms
        return .over(.entered(entry, received: received))
      case .close(let ending):
        return .over(failure ?? .ended(reason: ending.reason))
      }
    }
  }

  /// Whether an export makes a layer, its older connections have to be waited for, or it is looked for
  /// among files.
  private func mayTakeTime(_ name: ByteString) -> Bool {
    guard machine.identity == nil, let export = view.offered(name) else { return true }
    return export.access == .overlay
  }

  /// False when the socket takes no more now.
  private mutating func sendOutput(_ socket: CInt) throws(SystemError) -> Bool {
    while sentByteCount < output.count {
      let sent = sentByteCount
      let result = unsafe output.withUnsafeBytes { raw in
        // SAFETY: `sent` is below the array's count.
        unsafe clinux_send(
          socket, raw.baseAddress! + sent, raw.count - sent, CInt(clinux_MSG_DONTWAIT))
      }
      if result == -11 { return false }  // EAGAIN
      if result != -4 { sentByteCount += try checked(result) }  // EINTR
    }
    return true
  }

  /// Nil when nothing is there now, 0 at the end of the stream.
  private mutating func receive(_ socket: CInt) throws(SystemError) -> Int? {
    var result = 0
    repeat {
      unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 4096) { room in
        // SAFETY: the room's own address and length; what has been received is initialized.
        unsafe result = clinux_recv(
          socket, room.baseAddress, room.count, CInt(clinux_MSG_DONTWAIT))
        if result > 0 {
          let received = unsafe UnsafeBufferPointer(rebasing: room[..<result])
          machine.receive(unsafe received.span)
        }
      }
    } while result == -4  // EINTR
    if result == -11 { return nil }  // EAGAIN
    let count = try checked(result)
    receivedByteCount += UInt64(count)
    return count
  }

  private mutating func find(_ name: ByteString, isEntry: Bool) {
    let identity = machine.identity
    let token = identity.map { AttachmentClaim($0).token }
    let export: Export
    do { export = try view.find(name, by: token) } catch { return refuse(error, name) }
    if isEntry {
      // Whoever enters may write: this protocol has no word for less.
      let grant: WriteGrant?
      do { grant = try view.takeForWriting(export, by: token) } catch {
        return refuse(error, export.name)
      }
      guard identity.map({ enter(export, $0) }) ?? open(export) else { return }
      entry?.grant = grant
      entry?.requestByteCountMaximum = requestByteCountMaximum
    }
    machine.answer(
      found: ExportFacts(
        export, isAttached: identity != nil, requestByteCountMaximum: requestByteCountMaximum))
  }

  private mutating func refuse(_ refusal: DeviceRefusal, _ name: ByteString) {
    let report = refusal.report
    failure = .notOpened(export: name, reason: report.reason, advice: report.advice)
    switch refusal {
    case .inUse:
      machine.answer(refusing: .errPolicy, text: "another client writes to the export")
    case .noName:
      machine.answer(
        refusing: .errPolicy,
        text: "the server looks for this export by what a client says of itself, and this one has "
          + "said nothing")
    default:
      // Whatever else it is, to this client there is nothing of that name.
      if refusal == .notFound {
        failure = .ended(reason: "the client asked for the unknown export '\(name.printable)'")
      }
      let text = "there is no export '\(name.printable)'; list them with nbdinfo --list"
      machine.answer(refusing: .errUnknown, text: ByteString(text))
    }
  }

  /// False when it was refused, which the client has then been told.
  private mutating func open(_ export: Export) -> Bool {
    do {
      entry = Entry(export: export, backend: try export.open())
      return true
    } catch {
      let report = error.report
      failure = .notOpened(export: export.name, reason: report.reason, advice: report.advice)
      machine.answer(
        refusing: .errPlatform,
        text: "the export cannot be opened now; ask whoever runs the server")
      return false
    }
  }

  /// As `open`, for a client with an attachment: what its older connection does is waited for.
  private mutating func enter(_ export: Export, _ identity: SessionIdentity) -> Bool {
    do {
      let connection = try attachments.enter(
        export, AttachmentClaim(identity), until: deadline, control: control)
      entry = Entry(
        export: export, backend: export.open(connection), attached: (connection, identity))
      return true
    } catch {
      switch error {
      case .stale: refuse(error, .errInvalid, export: export.name)
      case .predecessorBusy, .noLayer: refuse(error, .errPlatform, export: export.name)
      case .layerGone, .layerUnusable: refuse(error, .errUnknown, export: export.name)
      }
      return false
    }
  }

  private mutating func refuse(
    _ refusal: AttachmentRefusal, _ type: OptionReplyType, export: ByteString
  ) {
    let report = refusal.report
    failure = .notOpened(export: export, reason: report.reason, advice: report.advice)
    var text = ByteString(report.reason)
    // Paths of the server are not the client's business.
    switch refusal {
    case .noLayer: text = "the export cannot be opened now; ask whoever runs the server"
    case .layerUnusable:
      text = "the overlay of this attachment cannot be used any more, and the server's log says "
      text += "why; boot the machine anew"
    default: break
    }
    machine.answer(refusing: type, text: text)
  }
}

extension AttachmentClaim {
  init(_ identity: SessionIdentity) {
    self.init(
      token: AttachmentToken(high: identity.token.high, low: identity.token.low),
      generation: identity.generation, slot: identity.slot,
      isResuming: identity.flags.contains(.resume))
  }
}
