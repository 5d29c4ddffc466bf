// SPDX-License-Identifier: Apache-2.0
// As much of HTTP/1.1 as telling metrics takes: the head of one request, and one answer, after which
// the connection ends. Source: RFC 9112.

import WireFormat

/// The beginning of a request, fed in pieces.
struct HTTPRequestHead {
  enum Progress: Equatable {
    case wantsMore
    case request(method: ByteString, target: ByteString)
    /// It will never be one; the status to answer with.
    case refused(HTTPStatus)
  }

  static let byteCountMaximum = 8192
  private var bytes: [UInt8] = []
  /// How far the end has been looked for, and what was seen last.
  private var scannedCount = 0
  private var isInLine = false
  private var hasLine = false

  /// Nothing may be added after an answer other than `wantsMore`.
  mutating func receive(_ piece: [UInt8]) -> Progress {
    bytes += piece
    guard let end = findEnd() else {
      return bytes.count > Self.byteCountMaximum ? .refused(.headTooLong) : .wantsMore
    }
    guard end <= Self.byteCountMaximum else { return .refused(.headTooLong) }
    // Blank lines in front are nothing. Source: RFC 9112, 2.2.
    let first = bytes[..<end].split(separator: 0x0a).map { ByteString($0).trimmed }
      .first { !$0.isEmpty }
    guard let words = first?.fields(separatedBy: 0x20), words.count == 3,
      words.allSatisfy({ !$0.isEmpty })
    else { return .refused(.badRequest) }
    guard words[2].hasPrefix("HTTP/1.") else {
      return .refused(words[2].hasPrefix("HTTP/") ? .versionNotSupported : .badRequest)
    }
    let isToken = words[0].bytes.allSatisfy { $0 >= 0x41 && $0 <= 0x5a }
    guard isToken, words[1].hasPrefix("/") else { return .refused(.badRequest) }
    return .request(method: words[0], target: words[1])
  }

  /// Behind the blank line that ends the head; line ends may lack their carriage return.
  private mutating func findEnd() -> Int? {
    while scannedCount < bytes.count {
      let byte = bytes[scannedCount]
      scannedCount += 1
      switch byte {
      case 0x0a:
        if !isInLine, hasLine { return scannedCount }
        isInLine = false
      case 0x0d: break
      default: (isInLine, hasLine) = (true, true)
      }
    }
    return nil
  }
}

enum HTTPStatus: String {
  case found = "200 OK"
  case badRequest = "400 Bad Request"
  case notFound = "404 Not Found"
  case methodNotAllowed = "405 Method Not Allowed"
  case headTooLong = "431 Request Header Fields Too Large"
  case busy = "503 Service Unavailable"
  case versionNotSupported = "505 HTTP Version Not Supported"
}

struct HTTPAnswer: Equatable {
  var status: HTTPStatus
  var contentType = "text/plain; charset=utf-8"
  var body = ""
  /// HEAD: told how long the body would be.
  var isHead = false

  init(_ status: HTTPStatus) {
    self.status = status
    body = status.rawValue + "\n"
  }

  /// What a request gets; `metrics` makes the text, and is called for nothing else.
  init(method: ByteString, target: ByteString, metrics: () -> String) {
    let isHead = method == "HEAD"
    guard isHead || method == "GET" else {
      self.init(.methodNotAllowed)
      return
    }
    switch target.cut(at: UInt8(ascii: "?"))?.head ?? target {
    case "/metrics":
      self.init(.found)
      contentType = MetricsText.contentType
      body = metrics()
    case "/":
      self.init(.found)
      body = "rootlinkd tells its metrics at /metrics\n"
    default: self.init(.notFound)
    }
    self.isHead = isHead
  }

  var encoded: [UInt8] {
    var head = "HTTP/1.1 \(status.rawValue)\r\nContent-Type: \(contentType)\r\n"
    head += "Content-Length: \(body.utf8.count)\r\nConnection: close\r\n"
    if status == .methodNotAllowed { head += "Allow: GET, HEAD\r\n" }
    return Array((head + "\r\n" + (isHead ? "" : body)).utf8)
  }
}
