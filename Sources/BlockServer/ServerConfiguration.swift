// SPDX-License-Identifier: Apache-2.0
// Everything a server is told before it starts, from the command line or a file. Decided here,
// carried out elsewhere.

import WireFormat

public struct ServerConfiguration: Equatable, Sendable {
  public static let standardOverlayDirectory: ByteString = "/var/tmp"
  public static let standardControlPath: ByteString = "/run/rootlinkd.sock"
  public static let connectionCountMaximumLimit = 100_000
  public static let handshakeSecondsLimit: UInt64 = 3600
  public static let silenceSecondsRange: ClosedRange<UInt64> = 3...86_400
  public static let drainSecondsLimit: UInt64 = 3600
  public static let absentSecondsLimit: UInt64 = 30 * 86_400
  public static let absentCountLimit = 100_000

  public var exports: [ExportDefinition] = []
  /// Empty: `ListenAddress.standard`.
  public var listen: [ListenAddress] = []
  public var overlayDirectory = standardOverlayDirectory
  /// Where `rootlinkd status` asks. Nil: the standard path, and no error when it cannot be used.
  public var controlPath: ByteString?
  /// Connections at one time.
  public var connectionCountMaximum = 1024
  /// From the acceptance of a connection to the end of its negotiation.
  public var handshakeSeconds: UInt64 = 10
  /// A client that a TCP connection has heard nothing from for so long is gone.
  public var silenceSeconds: UInt64 = 120
  /// How long sessions may take to end by themselves when the server stops.
  public var drainSeconds: UInt64 = 10
  /// How long a client that has lost its connections keeps its layer.
  public var absentSeconds: UInt64 = 600
  /// How many such clients there may be. Nil: twice as many as connections, so that a network that
  /// fails for everybody costs nobody his layer.
  public var absentCount: Int?
  public var rdma = RDMASettings()

  public var attachmentLimits: Attachments.Limits {
    var limits = Attachments.Limits()
    limits.absentSeconds = absentSeconds
    limits.absentCount = absentCount ?? 2 * connectionCountMaximum
    return limits
  }

  public init() {}

  /// What is wrong with the whole though every part of it is well-formed.
  public enum ValidationError: Error, Equatable, Sendable {
    case noExports
    case duplicateExport(ByteString)
    case exportName(ByteString)
    case description(ByteString)
    case path(ByteString)
    case layersWithoutOverlay(ByteString)
    case layersDirectory(ByteString)

    public var report: (reason: String, advice: String) {
      switch self {
      case .noExports:
        ("there is nothing to serve", "name an export: --export NAME=PATH, or [export.NAME]")
      case .duplicateExport(let name):
        ("there are two exports '\(name.printable)'", "give each export a name of its own")
      case .exportName(let name):
        (
          "the export name '\(name.printable)' is too long or holds a NUL",
          "use a name of at most 4096 bytes"
        )
      case .description(let name):
        (
          "the description of '\(name.printable)' is too long or holds a NUL",
          "use at most 4096 bytes"
        )
      case .path(let name):
        ("the export '\(name.printable)' has no path", "write NAME=PATH, or path = \"PATH\"")
      case .layersWithoutOverlay(let name):
        (
          "the export '\(name.printable)' has a directory for layers and is no overlay",
          "write 'overlay' too, or leave 'layers' out"
        )
      case .layersDirectory(let name):
        (
          "the directory for the layers of '\(name.printable)' is empty or holds a NUL",
          "write layers=DIRECTORY"
        )
      }
    }
  }

  public func validate() throws(ValidationError) {
    guard !exports.isEmpty || rdma.searchPath != nil else { throw .noExports }
    var names: Set<ByteString> = []
    for export in exports {
      // Source: NBD `doc/proto.md`, "Values": strings are at most 4096 bytes.
      guard export.name.count <= 4096, !export.name.bytes.contains(0) else {
        throw .exportName(export.name)
      }
      guard export.description.count <= 4096, !export.description.bytes.contains(0) else {
        throw .description(export.name)
      }
      guard !export.path.isEmpty, !export.path.bytes.contains(0) else { throw .path(export.name) }
      if let directory = export.layersDirectory {
        guard export.access == .overlay else { throw .layersWithoutOverlay(export.name) }
        guard !directory.isEmpty, !directory.bytes.contains(0) else {
          throw .layersDirectory(export.name)
        }
      }
      guard names.insert(export.name).inserted else { throw .duplicateExport(export.name) }
    }
  }
}

extension ExportDefinition {
  /// Why a `--export` argument is none.
  public enum ParseError: Error, Equatable, Sendable {
    case noEqualsSign(ByteString)
    case noPath(ByteString)
    case unknownOption(ByteString)
    case twoAccessModes(ByteString)
    case size(ByteString)

    public var report: (reason: String, advice: String) {
      let form =
        "write NAME=PATH, then any of ,ro ,rw ,overlay ,layers=DIRECTORY ,sync ,direct "
        + ",size=BYTES"
      return switch self {
      case .noEqualsSign(let text): ("'\(text.printable)' has no '='", form)
      case .noPath(let text): ("'\(text.printable)' has no path after '='", form)
      case .unknownOption(let option): ("'\(option.printable)' is no option of an export", form)
      case .twoAccessModes(let text):
        ("'\(text.printable)' has more than one of ro, rw and overlay", form)
      case .size(let text):
        ("'\(text.printable)' is no size in bytes from 1 to 2^63 - 1", form)
      }
    }
  }

  /// `NAME=PATH[,OPTION...]`: the first `=` ends the name, the first `,` after it the path (a
  /// path with a comma can be given in a configuration file).
  public init(argument: ByteString) throws(ParseError) {
    guard let (name, rest) = argument.cut(at: UInt8(ascii: "=")) else {
      throw .noEqualsSign(argument)
    }
    let fields = rest.fields(separatedBy: UInt8(ascii: ","))
    self.init(name: name, path: fields[0])
    guard !path.isEmpty else { throw .noPath(argument) }
    var modeCount = 0
    for option in fields.dropFirst() {
      if let mode = AccessMode.allCases.first(where: { ByteString($0.rawValue) == option }) {
        access = mode
        modeCount += 1
      } else if option == "sync" {
        isSync = true
      } else if option == "direct" {
        isDirect = true
      } else if let size = option.dropping(prefix: "size=") {
        guard let count = size.decimal(maximum: UInt64(Int64.max)), count > 0 else {
          throw .size(size)
        }
        byteCount = count
      } else if let directory = option.dropping(prefix: "layers=") {
        layersDirectory = directory
      } else {
        throw .unknownOption(option)
      }
    }
    guard modeCount <= 1 else { throw .twoAccessModes(argument) }
  }
}
