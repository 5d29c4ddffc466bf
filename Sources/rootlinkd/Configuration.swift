// SPDX-License-Identifier: Apache-2.0
import BlockServer
import ConfigurationFile
import LinuxSystem
import WireFormat

let standardConfigurationPath = "/etc/rootlinkd.toml"
private let configurationByteCountMaximum = 4 << 20

/// The file to read; nil when none was named, none is needed, or the standard one is not there.
func configurationPath(_ argument: String?, isOptional: Bool) throws -> ByteString? {
  if let argument { return ByteString(argument) }
  let standard = ByteString(standardConfigurationPath)
  return !isOptional && fileExists(standard) ? standard : nil
}

func readConfiguration(_ path: ByteString) throws -> ParsedConfiguration {
  let text: ByteString
  do {
    text = try readFile(path, limit: configurationByteCountMaximum)
  } catch {
    throw Failure.couldNot(
      ("\(path.printable) cannot be read: \(error.text)", "name a readable file with --config"))
  }
  do {
    return try parseConfiguration(text)
  } catch {
    let report = error.report
    throw Failure.wrongRequest(("\(path.printable): \(report.reason)", report.advice))
  }
}
