// SPDX-License-Identifier: Apache-2.0
import Logging

/// One fact a line on standard error, under the program's name; journald adds the time.
struct LogOutput: LogHandler {
  var logLevel = Logger.Level.info
  var metadata = Logger.Metadata()

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    writeLine("rootlinkd: \(event.message)")
  }
}
