// SPDX-License-Identifier: Apache-2.0
// `--export NAME=PATH[,OPTION...]`: an export on a command line.

import WireFormat

extension ExportDefinition {
  /// Why a `--export` argument is none.
  public enum ParseError: Error, Equatable, Sendable {
    /// The whole argument.
    case noEqualsSign(ByteString)
    /// The whole argument.
    case noPath(ByteString)
    /// One option, as it was written.
    case unknownOption(ByteString)
    /// The whole argument.
    case twoAccessModes(ByteString)
    /// What follows `size=`.
    case size(ByteString)
    /// What follows `blocksize=`, when it is no number up to 65536.
    case blockSize(ByteString)
    /// What follows `io=`.
    case ioMode(ByteString)
    /// Of what follows `allow=`.
    case network(ClientNetwork.ParseError)

    /// What is wrong with the argument, and how to write it.
    public var report: (reason: String, advice: String) {
      let form =
        "write NAME=PATH, then any of ,ro ,rw ,migration ,overlay ,layers=DIRECTORY ,sync ,async "
        + ",direct ,io=MODE ,size=BYTES ,blocksize=BYTES ,allow=NETWORK"
      return switch self {
      case .noEqualsSign(let text): ("'\(text.printable)' has no '='", form)
      case .noPath(let text): ("'\(text.printable)' has no path after '='", form)
      case .unknownOption(let option): ("'\(option.printable)' is no option of an export", form)
      case .twoAccessModes(let text):
        ("'\(text.printable)' has more than one of ro, rw, migration and overlay", form)
      case .size(let text):
        ("'\(text.printable)' is no size in bytes from 1 to 2^63 - 1", form)
      case .blockSize(let text):
        ("'\(text.printable)' is no power of two from 512 to 65536", form)
      case .ioMode(let text): ("'\(text.printable)' is no io mode", "write blockio or fileio")
      case .network(let error): error.report
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
      } else if option == "async" {
        isAsync = true
      } else if let mode = option.dropping(prefix: "io=") {
        guard let known = IOMode.allCases.first(where: { ByteString($0.rawValue) == mode }) else {
          throw .ioMode(mode)
        }
        ioMode = known
      } else if let size = option.dropping(prefix: "blocksize=") {
        guard let count = size.decimal(maximum: 65_536) else { throw .blockSize(size) }
        blockByteCount = UInt32(count)
      } else if let network = option.dropping(prefix: "allow=") {
        do { allow.networks = (allow.networks ?? []) + [try ClientNetwork(network)] } catch {
          throw .network(error)
        }
      } else if let directory = option.dropping(prefix: "layers=") {
        layersDirectory = directory
      } else {
        throw .unknownOption(option)
      }
    }
    guard modeCount <= 1 else { throw .twoAccessModes(argument) }
  }
}
