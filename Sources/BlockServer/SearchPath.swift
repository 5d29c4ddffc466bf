// SPDX-License-Identifier: Apache-2.0
// Where devices are looked for that clients name by a path: below one directory, or below one for
// each session, `/srv/boards/%SESSNAME%`. No name leads out of it: the kernel resolves it beneath an
// open directory, symbolic links included.

import CLinux
import LinuxSystem
import WireFormat

public struct SearchPath: Equatable, Sendable {
  /// Source: `%SESSNAME%` in Linux `drivers/block/rnbd/rnbd-srv.c`.
  static let token: ByteString = "%SESSNAME%"

  /// What the administrator wrote.
  public let text: ByteString
  /// Trusted, symbolic links and all.
  private let directory: ByteString
  /// The last part before the token, which the session's name is put behind; nil without a token.
  private let prefix: ByteString?

  public enum ParseError: Error, Equatable, Sendable {
    case notAbsolute(ByteString)
    case behindToken(ByteString)

    public var report: (reason: String, advice: String) {
      switch self {
      case .notAbsolute(let text):
        ("the search path '\(text.printable)' does not begin with '/'", "give a whole path")
      case .behindToken(let text):
        (
          "the search path '\(text.printable)' goes on behind %SESSNAME%",
          "put %SESSNAME% at its end, once"
        )
      }
    }
  }

  public init(_ text: ByteString) throws(ParseError) {
    guard text.hasPrefix("/"), !text.bytes.contains(0) else { throw .notAbsolute(text) }
    self.text = text
    let bytes = text.bytes
    let token = Self.token.bytes
    var start: Int?
    if bytes.count >= token.count {
      for index in 0...(bytes.count - token.count)
      where Array(bytes[index..<(index + token.count)]) == token {
        start = index
        break
      }
    }
    guard let start else {
      directory = text
      prefix = nil
      return
    }
    guard bytes[(start + token.count)...].allSatisfy({ $0 == UInt8(ascii: "/") }) else {
      throw .behindToken(text)
    }
    let slash = bytes[..<start].lastIndex(of: UInt8(ascii: "/")) ?? 0
    directory = ByteString(bytes[...slash])
    prefix = ByteString(bytes[(slash + 1)..<start])
  }

  /// Why a name leads to nothing that can be served.
  public enum LookupError: Error, Equatable, Sendable {
    case notFound
    /// Out of the search path.
    case outside
    case system(SystemError)
  }

  /// A descriptor that names the file and opens nothing yet. `session`: without `/`.
  func find(
    _ name: ByteString, session: ByteString
  ) throws(LookupError) -> FileDescriptor {
    // A leading slash means nothing, as with Linux's server.
    let relative = ByteString(Array(name.bytes.drop { $0 == UInt8(ascii: "/") }))
    guard !relative.isEmpty else { throw .notFound }
    // `..` is refused even where it would stay inside.
    for part in relative.fields(separatedBy: UInt8(ascii: "/")) where part == ".." {
      throw .outside
    }
    do {
      let top = try FileDescriptor.open(directory, OpenFlags(rawValue: clinux_O_PATH()))
      guard let prefix else { return try top.openBeneath(relative) }
      guard !session.isEmpty, !session.bytes.contains(UInt8(ascii: "/")) else {
        throw LookupError.outside
      }
      let own = try top.openBeneath(prefix + session)
      return try own.openBeneath(relative)
    } catch let error as SystemError {
      switch error.errno {
      case 2, 20: throw .notFound  // ENOENT, ENOTDIR
      case 18, 40: throw .outside  // EXDEV: out of the directory; ELOOP: by a magic link.
      default: throw .system(error)
      }
    } catch {
      throw .outside
    }
  }
}

extension FileDescriptor {
  /// Names what lies at a path below this directory; EXDEV when it leads out of it.
  func openBeneath(_ path: ByteString) throws(SystemError) -> FileDescriptor {
    let number = rawValue
    return FileDescriptor(
      owning: try unsafe withCString(path) { pointer in
        // SAFETY: a terminated copy that outlives the call.
        unsafe clinux_open_beneath(number, pointer)
      })
  }
}
