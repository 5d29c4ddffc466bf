// SPDX-License-Identifier: Apache-2.0
// Programs that a test runs: started, watched line by line, ended. Nothing outlives its object,
// and no wait outlasts its limit; a failed wait shows what the program had said.

import Foundation
import Synchronization

public final class RunningProcess: Sendable {
  public enum Stream: Sendable { case standardOutput, standardError }

  /// A wait that ended without its fact.
  public struct WaitError: Error, CustomStringConvertible {
    public let description: String
  }

  private struct State {
    var text: [Stream: Data] = [.standardOutput: Data(), .standardError: Data()]
    var openStreams: Set<Stream> = [.standardOutput, .standardError]
    /// Nil while it runs; 256 + the signal when one ended it.
    var exitStatus: Int32?
  }

  public let commandLine: String
  public let processIdentifier: Int32
  private let state: Mutex<State>
  /// Broadcast whenever `state` has changed; guards nothing else.
  private let changed = NSCondition()

  /// Starts at once. `program` is a path, or a name that is looked up in PATH. `environment` is
  /// added to ours. `standardInput`: what the program reads, empty when nil.
  public init(
    _ program: String, _ arguments: [String] = [], environment: [String: String] = [:],
    standardInput: Data? = nil
  ) throws {
    commandLine = ([program] + arguments).joined(separator: " ")
    guard let path = findProgram(program) else {
      throw WaitError(description: "there is no program \(program)")
    }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: path)
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    let input = Pipe()
    let output = Pipe()
    let error = Pipe()
    process.standardInput = standardInput == nil ? FileHandle.nullDevice : input
    process.standardOutput = output
    process.standardError = error
    state = Mutex(State())

    let box = WeakBox()
    process.terminationHandler = { ended in
      let signalBase: Int32 = ended.terminationReason == .uncaughtSignal ? 256 : 0
      box.process?.change { $0.exitStatus = signalBase + ended.terminationStatus }
    }
    try process.run()
    processIdentifier = process.processIdentifier
    box.process = self
    // The handler may have come before the box was filled.
    if !process.isRunning {
      let signalBase: Int32 = process.terminationReason == .uncaughtSignal ? 256 : 0
      let status = signalBase + process.terminationStatus
      change { $0.exitStatus = status }
    }
    for (stream, pipe) in [(Stream.standardOutput, output), (.standardError, error)] {
      Thread.detachNewThread { [weak self] in
        while true {
          let data = pipe.fileHandleForReading.availableData
          guard let self else { return }
          change { state in
            if data.isEmpty {
              state.openStreams.remove(stream)
            } else {
              state.text[stream]?.append(data)
            }
          }
          if data.isEmpty { return }
        }
      }
    }
    if let standardInput {
      Thread.detachNewThread {
        try? input.fileHandleForWriting.write(contentsOf: standardInput)
        try? input.fileHandleForWriting.close()
      }
    }
  }

  deinit {
    if exitStatus == nil { kill(processIdentifier, SIGKILL) }
  }

  /// Breaks the circle between a process and the handlers that report to it.
  private final class WeakBox: @unchecked Sendable {
    private let lock = NSLock()
    private weak var value: RunningProcess?
    var process: RunningProcess? {
      get { lock.withLock { value } }
      set { lock.withLock { value = newValue } }
    }
  }

  private func change(_ body: (inout State) -> Void) {
    state.withLock { body(&$0) }
    changed.lock()
    changed.broadcast()
    changed.unlock()
  }

  /// Waits until `fact` gives a value.
  private func wait<Value>(
    for name: String, seconds: Double, _ fact: (State) throws -> Value?
  ) throws -> Value {
    let end = Date(timeIntervalSinceNow: seconds)
    changed.lock()
    defer { changed.unlock() }
    while true {
      // Changes are broadcast under the lock held here, so none is missed.
      if let value = try state.withLock({ try fact($0) }) { return value }
      guard changed.wait(until: end) else {
        throw WaitError(
          description: "'\(commandLine)': no \(name) within \(seconds) s\n\(transcript)")
      }
    }
  }
}

extension RunningProcess {
  /// What has been written so far.
  public func text(of stream: Stream) -> String {
    String(decoding: state.withLock { $0.text[stream] ?? Data() }, as: UTF8.self)
  }

  public var standardOutput: String { text(of: .standardOutput) }
  public var standardError: String { text(of: .standardError) }

  /// Everything that a person needs when a test has failed.
  public var transcript: String {
    "--- standard output of \(commandLine)\n\(standardOutput)"
      + "--- standard error\n\(standardError)---"
  }

  /// Nil while it runs; 256 + the signal when one ended it.
  public var exitStatus: Int32? { state.withLock { $0.exitStatus } }

  /// The first complete line that contains `text`. Throws at once when the program ends without.
  @discardableResult
  public func waitForLine(
    containing text: String, on stream: Stream = .standardError, seconds: Double = 30
  ) throws -> String {
    try wait(for: "line with '\(text)'", seconds: seconds) { state in
      let all = String(decoding: state.text[stream] ?? Data(), as: UTF8.self)
      // A serial line ends them with two characters, which Swift takes for one.
      let lines = all.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        .dropLast()
      if let line = lines.first(where: { $0.contains(text) }) { return String(line) }
      if state.exitStatus != nil, !state.openStreams.contains(stream) {
        throw WaitError(
          description: "'\(commandLine)' ended without a line with '\(text)'\n"
            + "exit status \(state.exitStatus ?? -1); it had written:\n\(all)")
      }
      return nil
    }
  }

  /// The exit status, once everything that was written has been read; 256 + a signal.
  @discardableResult
  public func waitForExit(seconds: Double = 60) throws -> Int32 {
    let status = try wait(for: "end", seconds: seconds) { $0.exitStatus }
    // A grandchild may hold the streams open; what it writes is no more ours to wait for.
    _ = try? wait(for: "end of output", seconds: 2) { $0.openStreams.isEmpty ? true : nil }
    return status
  }

  public func send(signal: Int32) {
    if exitStatus == nil { kill(processIdentifier, signal) }
  }

  /// SIGTERM, then the exit status.
  @discardableResult
  public func terminate(seconds: Double = 30) throws -> Int32 {
    send(signal: SIGTERM)
    return try waitForExit(seconds: seconds)
  }
}

/// What a program that has ended left.
public struct FinishedProcess: Sendable {
  /// 256 + the signal when one ended it.
  public let exitStatus: Int32
  public let standardOutput: String
  public let standardError: String
}

/// Runs a program to its end.
public func run(
  _ program: String, _ arguments: [String] = [], environment: [String: String] = [:],
  standardInput: Data? = nil, seconds: Double = 60
) throws -> FinishedProcess {
  let process = try RunningProcess(
    program, arguments, environment: environment, standardInput: standardInput)
  let status = try process.waitForExit(seconds: seconds)
  return FinishedProcess(
    exitStatus: status, standardOutput: process.standardOutput,
    standardError: process.standardError)
}
