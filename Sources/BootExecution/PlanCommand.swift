// SPDX-License-Identifier: Apache-2.0

import BootPlanning
public import LinuxSystem
public import WireFormat

/// `rootlink plan`: what would be attached, and nothing else happens.
public struct PlanCommand {
  public enum Format: Sendable { case json, shell }

  public var format = Format.json
  /// What only a lease can say is pending instead of an error.
  public var allowsMissingLease = false
  /// Before every path that is read.
  public var root: ByteString = ""
  /// In place of /proc/cmdline.
  public var commandLine: ByteString?

  public init() {}

  /// The exit status, and what belongs on standard output.
  public func run(log: Log) -> (status: CInt, output: ByteString) {
    var input: PlanningInput
    do {
      input = try PlanningInputReader(root: root).read(commandLineOverride: commandLine)
    } catch {
      log.write(.error, error.commandLineReason, next: "give --cmdline, or mount /proc")
      return (ExitStatus.failed, "")
    }
    input.allowsMissingLease = allowsMissingLease
    do {
      let plan = try BootPlanning.plan(for: input)
      if format == .json {
        for warning in plan.warnings { log.write(.warning, warning.text) }
      }
      return (
        ExitStatus.done, ByteString(format == .json ? plan.json : plan.shellAssignments)
      )
    } catch {
      log.write(.error, error.report.reason, next: error.report.advice)
      return (error.isRequestWrong ? ExitStatus.wrongRequest : ExitStatus.failed, "")
    }
  }
}

extension SystemError {
  var commandLineReason: String { "cannot read the kernel command line, /proc/cmdline: \(text)" }
}
