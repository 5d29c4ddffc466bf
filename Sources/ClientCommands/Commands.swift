// SPDX-License-Identifier: Apache-2.0
// The client's commands: words in, an exit status out.

import BootExecution
import BootPlanning
import LinuxSystem
import NBDDriver
public import WireFormat

func run(_ arguments: ArraySlice<ByteString>) throws(UsageError) -> CInt {
  let rest = arguments.dropFirst()
  switch arguments.first {
  case "attach": return try attach(rest)
  case "plan": return try plan(rest)
  case "status": return try status(rest)
  case "detach": return try detach(rest)
  case "init": throw .notFirst
  case "--help", "-h", "help":
    return writeStandardOutput(ByteString(usage)) ? ExitStatus.done : ExitStatus.failed
  case "--version":
    return writeStandardOutput(ByteString(version)) ? ExitStatus.done : ExitStatus.failed
  case nil: throw .missingWord("a command")
  case let word?: throw .unexpectedWord(word)
  }
}

func attach(_ arguments: ArraySlice<ByteString>) throws(UsageError) -> CInt {
  runFromMemory()
  let options = try Options(
    arguments,
    known: [
      .device, .driver, .connections, .silence, .answer, .timeout, .once, .keep, .noKeep,
      .interface,
      .commandLine, .commandLineFile,
    ], wordCountMaximum: 1)
  if let device = options[.keep] {
    guard arguments.count <= 2, options.words.isEmpty else {
      throw .exclusive("--keep", "everything else")
    }
    return KeepCommand.run(device: device, log: Log.ofThisMachine)
  }
  var request = AttachOptions()
  request.target = options.words.first
  if let target = request.target, target.isEmpty || target.bytes.contains(0x22) {
    throw .badValue(option: "TARGET", value: target, expected: "nbd://HOST[:PORT]/EXPORT")
  }
  if let text = options[.device] {
    guard let device = DeviceName(text.bytes[...]), device.partition == nil else {
      throw .badValue(
        option: "--device", value: text, expected: "/dev/nbdN or /dev/ublkbN, without a partition")
    }
    request.device = device
  }
  if let count = try options.number(.connections, in: 1...16) {
    request.connectionCount = UInt32(count)
  }
  if let seconds = try options.number(.silence, in: 1...3600) {
    request.silenceSeconds = UInt32(seconds)
  }
  if let seconds = try options.number(.answer, in: 1...3600) {
    request.answerSeconds = UInt32(seconds)
  }
  if let seconds = try options.number(.timeout, in: 0...604_800) {
    request.timeoutSeconds = UInt32(seconds)
  }
  request.attemptsOnce = options.has(.once)
  request.isKept = !options.has(.noKeep)
  switch options[.driver] {
  case nil, "auto": break
  case "nbd": request.driver = .nbd
  case "ublk": request.driver = .ublk
  case let text?: throw .badValue(option: "--driver", value: text, expected: "auto, nbd or ublk")
  }
  switch options[.interface] {
  case nil, "auto": request.interface = .automatic
  case "netlink": request.interface = .only(.netlink)
  case "ioctl": request.interface = .only(.ioctl)
  case let text?:
    throw .badValue(option: "--interface", value: text, expected: "auto, netlink or ioctl")
  }
  if request.target != nil, options.has(.commandLine) || options.has(.commandLineFile) {
    throw .exclusive("TARGET", options.has(.commandLine) ? "--cmdline" : "--cmdline-file")
  }
  request.commandLine = try commandLine(options)
  var command = AttachCommand(request, log: Log.ofThisMachine)
  return command.run()
}

func plan(_ arguments: ArraySlice<ByteString>) throws(UsageError) -> CInt {
  let options = try Options(
    arguments, known: [.commandLine, .commandLineFile, .root, .format, .withoutLease],
    wordCountMaximum: 0)
  var command = PlanCommand()
  switch options[.format] {
  case nil, "json": command.format = .json
  case "shell": command.format = .shell
  case let text?: throw .badValue(option: "--format", value: text, expected: "json or shell")
  }
  command.allowsMissingLease = options.has(.withoutLease)
  command.root = options[.root] ?? ""
  command.commandLine = try commandLine(options)
  return finish(command.run(log: Log.ofThisMachine))
}

func status(_ arguments: ArraySlice<ByteString>) throws(UsageError) -> CInt {
  let options = try Options(arguments, known: [.json, .root], wordCountMaximum: 1)
  return finish(
    StatusCommand.run(
      device: options.words.first, asJSON: options.has(.json), root: options[.root] ?? "",
      log: Log.ofThisMachine))
}

func detach(_ arguments: ArraySlice<ByteString>) throws(UsageError) -> CInt {
  let options = try Options(arguments, known: [.force], wordCountMaximum: 1)
  guard let device = options.words.first else { throw .missingWord("DEVICE") }
  return DetachCommand.run(
    device: device, isForced: options.has(.force), log: Log.ofThisMachine)
}

/// What stands in for /proc/cmdline, if anything does.
func commandLine(_ options: Options) throws(UsageError) -> ByteString? {
  guard let path = options[.commandLineFile] else { return options[.commandLine] }
  if options.has(.commandLine) { throw .exclusive("--cmdline", "--cmdline-file") }
  do {
    return try readFile(path, limit: PlanningInput.commandLineByteCountMaximum)
  } catch {
    throw .badValue(
      option: "--cmdline-file", value: path, expected: "a readable file (\(error.text))")
  }
}

func finish(_ result: (status: CInt, output: ByteString)) -> CInt {
  guard !result.output.isEmpty else { return result.status }
  return writeStandardOutput(result.output) ? result.status : ExitStatus.failed
}

/// What a first word may be. In a container this program may be process 1 and be asked for something.
public let commandNames: [ByteString] = [
  "attach", "plan", "status", "detach", "--help", "-h", "help", "--version",
]

/// Does what the words after the program's name ask for.
public func runCommand(_ arguments: ArraySlice<ByteString>) -> CInt {
  ignoreBrokenPipes()
  do {
    return try run(arguments)
  } catch {
    Log.ofThisMachine.write(.error, error.reason, next: "see rootlink --help")
    return ExitStatus.wrongRequest
  }
}
