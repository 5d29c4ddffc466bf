// SPDX-License-Identifier: Apache-2.0
// Where devices are looked for that clients name by a path: below one directory, or below one for
// each client, `/srv/boards/%SESSNAME%` or `/srv/boards/%CLIENT%`. No name leads out of it: the kernel
// resolves it beneath an open directory, symbolic links included.
//
//   /srv/boards/rack-%CLIENT%/disks     asked for: data/0
//   '---------' '-------------------'             '----'
//     trusted    the client's own, beneath it       beneath that

import CLinux
import LinuxSystem
import WireFormat

/// Who asks for a device, as far as the protocol and the connection tell.
public struct ClientIdentity: Equatable, Sendable {
  /// In `%CLIENT%`'s place, as `ClientAddress.text`.
  public var address: ClientAddress
  /// What the client calls its session (RNBD), or its attachment (32 hexadecimal digits); nil when
  /// it has said nothing.
  public var sessionName: ByteString?

  /// A client of which nothing is known has a name for no token.
  public init(address: ClientAddress = .unknown, sessionName: ByteString? = nil) {
    self.address = address
    self.sessionName = sessionName
  }
}

/// A directory of the server that clients name devices below; see the head of this file.
public struct SearchPath: Equatable, Sendable {
  /// What stands for something that is known of the client only.
  private enum Token: CaseIterable {
    case sessionName, client

    /// Source of the first: `%SESSNAME%` in Linux `drivers/block/rnbd/rnbd-srv.c`.
    var text: ByteString { self == .sessionName ? "%SESSNAME%" : "%CLIENT%" }
  }
  private enum Piece: Equatable {
    case literal(ByteString)
    case token(Token)
  }

  /// What the administrator wrote.
  public let text: ByteString
  /// Trusted, symbolic links and all.
  private let directory: ByteString
  /// From the first part with a token on; empty without one.
  private let own: [Piece]

  /// Why a text is no search path.
  public enum ParseError: Error, Equatable, Sendable {
    /// It does not begin with `/`, or holds a NUL.
    case notAbsolute(ByteString)
    /// It has a `..` in or behind the first part with a token.
    case upwards(ByteString)

    /// What is wrong with the path, and how to write it.
    public var report: (reason: String, advice: String) {
      switch self {
      case .notAbsolute(let text):
        ("the search path '\(text.printable)' does not begin with '/'", "give a whole path")
      case .upwards(let text):
        (
          "the search path '\(text.printable)' has '..' behind a token",
          "give the directory without '..'"
        )
      }
    }
  }

  /// Parses what the administrator wrote; whether the directory is there is seen at each `find`.
  public init(_ text: ByteString) throws(ParseError) {
    guard text.hasPrefix("/"), !text.bytes.contains(0) else { throw .notAbsolute(text) }
    self.text = text
    let pieces = Self.pieces(of: text)
    guard pieces.count > 1, case .literal(let head) = pieces[0] else {
      directory = text
      own = []
      return
    }
    let slash = head.bytes.lastIndex(of: UInt8(ascii: "/")) ?? 0
    directory = ByteString(head.bytes[...slash])
    let start = ByteString(head.bytes[(slash + 1)...])
    own = (start.isEmpty ? [] : [.literal(start)]) + pieces.dropFirst()
    let behind = text.bytes[(slash + 1)...]
    for part in behind.split(separator: UInt8(ascii: "/")) where ByteString(part) == ".." {
      throw .upwards(text)
    }
  }

  /// Literal text and tokens in turns, beginning with a literal.
  private static func pieces(of text: ByteString) -> [Piece] {
    var pieces: [Piece] = []
    var literal = ByteString()
    var rest = text.bytes[...]
    while let byte = rest.first {
      let found = Token.allCases.first { rest.starts(with: $0.text.bytes) }
      guard let found else {
        literal.bytes.append(byte)
        rest = rest.dropFirst()
        continue
      }
      if !literal.isEmpty { pieces.append(.literal(literal)) }
      literal = ByteString()
      pieces.append(.token(found))
      rest = rest.dropFirst(found.text.count)
    }
    if !literal.isEmpty { pieces.append(.literal(literal)) }
    return pieces
  }

  /// Why a name leads to nothing that can be served.
  public enum LookupError: Error, Equatable, Sendable {
    /// There is no such file, or the name is empty, too long or holds a NUL.
    case notFound
    /// Out of the search path.
    case outside
    /// The path has a token for what this client has not said, or not in a form that is a name.
    case noName(token: ByteString)
    /// The file may be there, but the system does not let it be opened.
    case system(SystemError)
  }

  /// The client's own directory, from the trusted one on; empty for the trusted one.
  private func ownDirectory(of client: ClientIdentity) throws(LookupError) -> ByteString {
    var path = ByteString()
    for piece in own {
      switch piece {
      case .literal(let text): path += text
      case .token(let token):
        let name = token == .client ? client.address.text : client.sessionName
        guard let name, !name.isEmpty else { throw .noName(token: token.text) }
        // One part of a path: with a slash it would be several, and nobody's directory is `..`.
        let isPart = !name.bytes.contains(UInt8(ascii: "/")) && !name.bytes.contains(0)
        guard isPart, name != ".", name != ".." else { throw .outside }
        path += name
      }
    }
    // Together they may be one though neither is.
    for part in path.fields(separatedBy: UInt8(ascii: "/")) where part == ".." { throw .outside }
    return path
  }

  /// A descriptor that names the file and opens nothing yet.
  func find(
    _ name: ByteString, for client: ClientIdentity
  ) throws(LookupError) -> FileDescriptor {
    // A leading slash means nothing, as with Linux's server.
    let relative = ByteString(Array(name.bytes.drop { $0 == UInt8(ascii: "/") }))
    guard !relative.isEmpty, !relative.bytes.contains(0) else { throw .notFound }
    // `..` is refused even where it would stay inside.
    for part in relative.fields(separatedBy: UInt8(ascii: "/")) where part == ".." {
      throw .outside
    }
    let own = try ownDirectory(of: client)
    do {
      let top = try FileDescriptor.open(directory, .path)
      guard !own.isEmpty else { return try top.openBeneath(relative) }
      return try top.openBeneath(own).openBeneath(relative)
    } catch {
      switch error.errno {
      case 2, 20, 36: throw .notFound  // ENOENT, ENOTDIR, ENAMETOOLONG
      case 18, 40: throw .outside  // EXDEV: out of the directory; ELOOP: by a magic link.
      default: throw .system(error)
      }
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
