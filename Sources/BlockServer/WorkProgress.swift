// SPDX-License-Identifier: Apache-2.0
// Long work that goes on beside the serving: bringing a half of a mirror up to date, copying a layer.

/// How far one piece of long work is. Its property names are keys of the JSON of `rootlinkd status`.
public struct WorkProgress: Codable, Equatable, Sendable {
  /// What is done: "resync of /dev/sdb".
  public var what: String
  /// In bytes; the total may grow while it goes on.
  public var doneBytes: UInt64
  /// In bytes.
  public var totalBytes: UInt64

  public init(what: String, doneBytes: UInt64, totalBytes: UInt64) {
    self.what = what
    self.doneBytes = doneBytes
    self.totalBytes = totalBytes
  }

  /// 0 to 100, 100 only when all is done.
  public var percent: Int {
    guard doneBytes < totalBytes else { return 100 }
    return Int(Double(doneBytes) / Double(totalBytes) * 100)
  }

  /// One line for people.
  public var text: String { "\(what): \(percent) % (\(doneBytes) of \(totalBytes) bytes)" }
}

/// When a line about long work is due: at its start, its end, and now and then in between.
public struct ProgressReporter: Sendable {
  /// Between two lines about one piece of work.
  public static let intervalMilliseconds: UInt64 = 10_000

  private struct Told {
    var work: WorkProgress
    var nanoseconds: UInt64
  }
  private var told: [String: Told] = [:]

  /// Nothing has been told yet.
  public init() {}

  /// `present`: all work there is now, by the name of its export. Gives the lines that are due.
  public mutating func lines(
    for present: [(export: String, work: WorkProgress)], nanoseconds now: UInt64
  ) -> [String] {
    var lines: [String] = []
    var keys: Set<String> = []
    for (export, work) in present {
      let key = export + "\0" + work.what
      keys.insert(key)
      let last = told[key]
      let isDue =
        last.map {
          $0.work != work
            && (work.percent == 100
              || now &- $0.nanoseconds >= Self.intervalMilliseconds * 1_000_000)
        } ?? true
      guard isDue else { continue }
      lines.append("export '\(export)': \(work.text)")
      told[key] = Told(work: work, nanoseconds: now)
    }
    for (key, last) in told where !keys.contains(key) {
      told[key] = nil
      if last.work.percent == 100 { continue }
      let export = key.split(separator: "\0", omittingEmptySubsequences: false)[0]
      lines.append("export '\(export)': \(last.work.what) has ended")
    }
    return lines.sorted()
  }
}
