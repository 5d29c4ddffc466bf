// SPDX-License-Identifier: Apache-2.0
import BlockServer
import Foundation
import Logging
import ServerOperation
import Synchronization
import Testing

@Suite("A line of the log")
struct LogOutputTests {
  final class Lines: Sendable {
    let lines = Mutex<[String]>([])
  }

  static func line(
    _ format: LogSettings.Format, isToJournal: Bool = false, level: LogSettings.Level = .info,
    _ message: String, at eventLevel: Logger.Level = .info, _ metadata: Logger.Metadata = [:]
  ) -> String? {
    var settings = LogSettings()
    settings.format = format
    settings.level = level
    let lines = Lines()
    var logger = Logger(label: "test") { _ in
      LogOutput(
        settings, isToJournal: isToJournal, time: { "2026-01-02T03:04:05Z" },
        write: { line in lines.lines.withLock { $0.append(line) } })
    }
    logger.logLevel = Logger.Level(rawValue: settings.level.rawValue) ?? .info
    logger.log(level: eventLevel, "\(message)", metadata: metadata)
    return lines.lines.withLock { $0.first }
  }

  static let lines:
    [(format: LogSettings.Format, message: String, metadata: Logger.Metadata, line: String)] = [
      (.text, "it serves", ["export": "a"], "rootlinkd: it serves"),
      (
        .logfmt, "it serves", ["export": "a", "path": "/a b"],
        "time=2026-01-02T03:04:05Z level=info msg=\"it serves\" export=a path=\"/a b\""
      ),
      (
        .logfmt, "say \"x\"", ["e": "", "k": "a=b"],
        "time=2026-01-02T03:04:05Z level=info msg=\"say \\\"x\\\"\" e=\"\" k=\"a=b\""
      ),
      (
        .json, "it \"serves\"\n", ["session": .stringConvertible(UInt64(7)), "export": "a\\b"],
        "{\"time\":\"2026-01-02T03:04:05Z\",\"level\":\"info\",\"message\":\"it \\\"serves\\\"\\n\","
          + "\"export\":\"a\\\\b\",\"session\":7}"
      ),
      (
        .json, "x", ["list": .array(["a", "b"]), "map": .dictionary(["k": "v"])],
        "{\"time\":\"2026-01-02T03:04:05Z\",\"level\":\"info\",\"message\":\"x\","
          + "\"list\":[\"a\",\"b\"],\"map\":{\"k\":\"v\"}}"
      ),
    ]

  @Test("is a sentence, keys with values, or an object", arguments: lines.indices)
  func format(index: Int) throws {
    let row = Self.lines[index]
    let line = try #require(Self.line(row.format, row.message, row.metadata))
    #expect(line == row.line)
    if row.format == .json {
      let object = try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
      #expect(object?["message"] as? String == row.message)
    }
  }

  @Test("never breaks, whatever is in it", arguments: LogSettings.Format.allCases)
  func oneLine(format: LogSettings.Format) throws {
    let text = String(decoding: (0...0xff).map { UInt8($0) }, as: UTF8.self)
    guard format != .text else { return }  // Its sentences are escaped where they are made.
    let line = try #require(Self.line(format, text, ["k": "\(text)"]))
    #expect(!line.contains { $0.isNewline && $0 != "\u{85}" })
  }

  @Test("tells the journal how much it matters, and nobody else")
  func priority() {
    #expect(Self.line(.text, isToJournal: true, "x", at: .error) == "<3>rootlinkd: x")
    #expect(Self.line(.text, isToJournal: true, "x", at: .warning) == "<4>rootlinkd: x")
    #expect(Self.line(.json, isToJournal: true, "x")?.hasPrefix("{") == true)
  }

  @Test("is not written below the level that is wanted")
  func level() {
    #expect(Self.line(.text, level: .warning, "x", at: .info) == nil)
    #expect(Self.line(.text, level: .warning, "x", at: .warning) != nil)
  }
}
