// SPDX-License-Identifier: Apache-2.0
import WireFormat

/// Where a handshake was when it ended.
public enum NegotiationStage: Equatable, Sendable {
  /// `greeting`: it has not come whole. `options`: the export's size has not been told.
  /// `exportInformation`: it has been, and the end of the answer is awaited.
  case greeting, options, exportInformation

  var text: String {
    switch self {
    case .greeting: "before its greeting"
    case .options: "while the options were discussed"
    case .exportInformation: "after it was asked for the export"
    }
  }
}

/// Why a handshake ended without an export.
public indirect enum NegotiationError: Error, Equatable, Sendable {
  /// The first bytes of the peer, at most 18.
  case notAnNBDServer(firstBytes: ByteString)
  /// A handshake that servers dropped in 2012: no names, no options.
  case oldstyleServer
  /// The peer ended the stream before it had said yes or no.
  case closed(NegotiationStage)
  /// A peer that speaks NBD and breaks its rules.
  case violation(WireError)
  /// A reply to another option than the one that was sent, or of a type that does not answer it.
  case unexpectedReply(OptionCode, OptionReplyType)
  /// The server sent INFO replies without end; `maximum` of them were taken.
  case tooManyReplies(maximum: Int)
  /// The names tried, and what the server said to the last.
  case unknownExport(names: [ByteString], message: ByteString)
  /// An option was answered ERR_TLS_REQD, which this client cannot obey.
  case tlsRequired
  /// GO was answered with an error that has no case of its own here, and the server's text for it.
  case refused(OptionReplyType, message: ByteString)
  /// A server that knows our session option and does not take this connection.
  case sessionRefused(OptionReplyType, message: ByteString)
  /// EXPORT_NAME of an old server: it hangs up instead of explaining.
  case closedAfterExportName(ByteString)
  /// GO was acknowledged, but no INFO reply had told the size.
  case acknowledgedWithoutInformation
  /// The sizes that break the rules of `BlockSizes`, as sent.
  case invalidBlockSizes(BlockSizes)

  /// What happened, with the values seen, and what a person at the console can do about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .notAnNBDServer(let first):
      (
        "the peer began with '\(first.printable)', not NBDMAGIC: it is no NBD server",
        "check the port"
      )
    case .oldstyleServer:
      (
        "the server offers only the old handshake without export names",
        "it needs nbd-server 3.10, nbdkit, qemu-nbd or rootlinkd"
      )
    case .closed(let stage):
      (
        "the server closed the connection \(stage.text)",
        "its log may say why: access list, connection limit, or it is stopping"
      )
    case .violation(let error):
      ("the server broke the protocol: \(error.reason)", "check what listens on that port")
    case .unexpectedReply(let option, let type):
      (
        "the server answered option \(option.rawValue) with reply type \(type.rawValue)",
        "check what listens on that port"
      )
    case .tooManyReplies(let maximum):
      ("the server sent more than \(maximum) information replies", "check the server")
    case .unknownExport(let names, let message):
      (
        "the server has no export \(quotedList(names))" + said(message),
        "list them with: nbdinfo --list nbd://SERVER"
      )
    case .tlsRequired:
      (
        "the server wants TLS, which this client does not speak",
        "allow plain connections for this export on the server"
      )
    case .refused(let type, let message):
      ("the server refused the export (\(refusalName(type)))" + said(message), "see its log")
    case .sessionRefused(let type, let message):
      (
        "the server did not take the connection as one of this attachment's "
          + "(\(refusalName(type)))" + said(message),
        "its log says why; update both programs if they differ"
      )
    case .closedAfterExportName(let name):
      (
        "the server closed the connection when asked for export '\(name.printable)'",
        "an old server does so for an unknown name; check the name"
      )
    case .acknowledgedWithoutInformation:
      ("the server accepted the export without saying its size", "update the server")
    case .invalidBlockSizes(let sizes):
      (
        "the server's block sizes make no sense: minimum \(sizes.minimum), preferred "
          + "\(sizes.preferred), maximum payload \(sizes.maximumPayload)", "check the server"
      )
    }
  }

  /// Whether the same attempt may succeed later, after somebody has mended the server. What this
  /// client cannot do will not change.
  public var mayPass: Bool { self != .tlsRequired }
}

private func said(_ message: ByteString) -> String {
  message.isEmpty ? "" : ", it says '\(message.printable)'"
}

private func quotedList(_ names: [ByteString]) -> String {
  var text = ""
  for (index, name) in names.enumerated() {
    text += (index == 0 ? "'" : " nor '") + name.printable + "'"
  }
  return text
}

private func refusalName(_ type: OptionReplyType) -> String {
  switch type {
  case .errPolicy: "forbidden by its configuration"
  case .errInvalid: "it takes the request for malformed"
  case .errPlatform: "not possible on its system"
  case .errShutdown: "it is shutting down"
  case .errBlockSizeRequired: "it insists on block sizes"
  case .errTooBig: "too large for it"
  case .errExtHeaderRequired: "it insists on extended headers"
  default: "error \(type.rawValue & 0x7fff_ffff)"
  }
}
