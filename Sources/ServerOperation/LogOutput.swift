// SPDX-License-Identifier: Apache-2.0
// One fact a line, in one of three forms: a sentence under the program's name; `key=value`; or a JSON
// object. journald adds the time to the first; the others have it.

public import BlockServer
public import Logging

/// Writes the program's log; see the head of this file.
public struct LogOutput: LogHandler {
  /// What is less important is not written; at first that of the settings.
  public var logLevel: Logger.Level
  /// Written with each line in logfmt and JSON, with that of the event; an event's own wins.
  public var metadata = Logger.Metadata()
  private let format: LogSettings.Format
  /// The journal reads a line's importance from its beginning. Source: sd-daemon(3).
  private let hasPriorities: Bool
  private let write: @Sendable (String) -> Void
  /// ISO 8601, UTC.
  private let time: @Sendable () -> String

  /// `write` gets whole lines without their ends, from many threads.
  public init(
    _ settings: LogSettings, isToJournal: Bool = false, time: @escaping @Sendable () -> String,
    write: @escaping @Sendable (String) -> Void
  ) {
    format = settings.format
    hasPriorities = isToJournal && settings.format == .text
    logLevel = Logger.Level(settings.level)
    self.time = time
    self.write = write
  }

  /// Of `metadata`.
  public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  /// Writes one line, and returns when `write` does.
  public func log(event: LogEvent) {
    let message = "\(event.message)"
    switch format {
    case .text:
      write((hasPriorities ? "<\(event.level.priority)>" : "") + "rootlinkd: \(message)")
    case .logfmt:
      var line = "time=\(time()) level=\(event.level.rawValue) msg=\(Self.quoted(message))"
      for (key, value) in values(of: event) { line += " \(key)=\(Self.logfmt(value))" }
      write(line)
    case .json:
      var line = "{\"time\":\"\(time())\",\"level\":\"\(event.level.rawValue)\","
      line += "\"message\":\(Self.quoted(message))"
      for (key, value) in values(of: event) { line += ",\(Self.quoted(key)):\(Self.json(value))" }
      write(line + "}")
    }
  }

  private func values(of event: LogEvent) -> [(key: String, value: Logger.Metadata.Value)] {
    metadata.merging(event.metadata ?? [:]) { $1 }
      .map { (key: $0.key, value: $0.value) }.sorted { $0.key < $1.key }
  }

  private static func logfmt(_ value: Logger.Metadata.Value) -> String {
    let text = "\(value)"
    let isPlain =
      !text.isEmpty
      && text.unicodeScalars.allSatisfy {
        $0.value > 0x20 && $0.value < 0x7f && $0 != "\"" && $0 != "=" && $0 != "\\"
      }
    return isPlain ? text : quoted(text)
  }

  /// Numbers and words of JSON stay what they are.
  private static func json(_ value: Logger.Metadata.Value) -> String {
    switch value {
    case .string(let text): return quoted(text)
    case .stringConvertible(let value):
      if let number = value as? any FixedWidthInteger { return "\(number)" }
      if let bool = value as? Bool { return bool ? "true" : "false" }
      return quoted("\(value)")
    case .array(let values): return "[" + values.map(json).joined(separator: ",") + "]"
    case .dictionary(let values):
      return "{"
        + values.sorted { $0.key < $1.key }.map { "\(quoted($0.key)):\(json($0.value))" }
        .joined(separator: ",") + "}"
    @unknown default: return quoted("\(value)")
    }
  }

  /// In quotes, as JSON has it. Source: RFC 8259, 7.
  static func quoted(_ text: String) -> String {
    var line = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": line += "\\\""
      case "\\": line += "\\\\"
      case "\n": line += "\\n"
      case "\r": line += "\\r"
      case "\t": line += "\\t"
      case _ where scalar.value < 0x20 || scalar.value == 0x7f:
        let digits = String(scalar.value, radix: 16)
        line += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: line.unicodeScalars.append(scalar)
      }
    }
    return line + "\""
  }
}

extension Logger.Level {
  init(_ level: LogSettings.Level) {
    switch level {
    case .debug: self = .debug
    case .info: self = .info
    case .warning: self = .warning
    case .error: self = .error
    }
  }

  /// Of syslog(3).
  var priority: Int {
    switch self {
    case .critical: 2
    case .error: 3
    case .warning: 4
    case .notice: 5
    case .info: 6
    case .debug, .trace: 7
    }
  }
}
