// SPDX-License-Identifier: Apache-2.0
// Process 1. It does nothing clever: a child does, and when the child fails, or ends by a fault of
// its own, this one has a way on: the machine is restarted (`rootlink.panic=`), a shell is started
// when the image holds one, and all begins anew.
//
//   fork ─► wait ─► words came: exec on the new root
//    ▲        └───► none: restart, or shell, or a pause
//    └─────────────────────────────┘

import BootExecution
import CLinux
import LinuxSystem
import WireFormat

/// Whether this is the first process of the machine. (In a container it is the first, too; then it
/// is asked for a command.)
public var isFirstProcess: Bool { clinux_process_id() == 1 }

/// From the kernel to the root's init. `arguments` are those of this program, its name first.
public func startMachine(_ arguments: [ByteString]) -> Never {
  var arguments = Array(arguments.dropFirst())
  if arguments.first == "init" { arguments.removeFirst() }
  FirstProcess(kernelArguments: arguments).run()
}

struct FirstProcess {
  let kernelArguments: [ByteString]

  static let pauseMilliseconds: UInt64 = 10_000
  /// A request that is wrong stays wrong: it is said again now and then.
  static let wrongPauseMilliseconds: UInt64 = 60_000

  func run() -> Never {
    var attempt: UInt64 = 1
    while true {
      let outcome = workOnce()
      if outcome.status == 0, !outcome.words.isEmpty { enter(outcome.words) }
      goOn(outcome, attempt)
      attempt &+= 1
    }
  }

  private struct Outcome {
    var status: CInt = 1
    var words: [ByteString] = []
    var restartSeconds: UInt32?
  }

  private func workOnce() -> Outcome {
    var outcome = Outcome()
    var ends: [CInt] = [-1, -1]
    let piped = unsafe ends.withUnsafeMutableBufferPointer { buffer in
      // SAFETY: two integers of ours, which the call fills.
      unsafe clinux_pipe(buffer.baseAddress!)
    }
    guard piped == 0 else { return outcome }
    let child = clinux_fork()
    if child == 0 {
      _ = clinux_close(ends[0])
      let worker = StartWorker(
        kernelArguments: kernelArguments, messages: StartMessages(descriptor: ends[1]))
      clinux_exit_now(worker.run())
    }
    _ = clinux_close(ends[1])
    defer { _ = clinux_close(ends[0]) }
    guard child > 0 else { return outcome }
    while true {
      var status: CInt = 0
      // SAFETY: an integer of ours.
      let ended = unsafe clinux_wait_any(&status)
      // Others are orphans of the child.
      if ended == child { outcome.status = status }
      if ended == child || ended < 0 { break }
    }
    let told = StartMessages.read(from: ends[0])
    outcome.words = told.words
    outcome.restartSeconds = told.restartSeconds
    return outcome
  }

  /// The root is mounted, the old files are gone.
  private func enter(_ words: [ByteString]) {
    do {
      _ = try unsafe withCString(RootMount.place) { unsafe clinux_chdir($0) }
      try mountFileSystem(".", on: "/", type: "", flags: UInt(clinux_MS_MOVE))
      _ = try unsafe withCString(".") { unsafe clinux_chroot($0) }
      _ = try unsafe withCString("/") { unsafe clinux_chdir($0) }
      let error = execute(words)
      say("\(words[0].printable) cannot be started: \(error.text)")
    } catch {
      say("the root cannot be entered: \(error.text)")
    }
  }

  private func goOn(_ outcome: Outcome, _ attempt: UInt64) {
    if outcome.status > 256 {
      say(
        "the boot process was ended by signal \(outcome.status - 256), which is a fault in this "
          + "program; please report it with the lines above")
    }
    if let seconds = outcome.restartSeconds {
      say("restarting the machine in \(seconds) s (rootlink.panic=)")
      pause(milliseconds: UInt64(seconds) * 1000)
      clinux_sync()
      _ = clinux_reboot(CInt(clinux_RESTART))
    }
    if Shell.isThere {
      say("a shell on the console; its end begins the boot anew")
      if Shell.run() { return }
    }
    let milliseconds = outcome.status == 2 ? Self.wrongPauseMilliseconds : Self.pauseMilliseconds
    say("attempt \(attempt) has failed; beginning anew in \(milliseconds / 1000) s")
    pause(milliseconds: milliseconds)
  }

  private func say(_ text: String) { Log(.kernel).write(.error, text) }
}
