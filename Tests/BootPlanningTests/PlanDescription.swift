// SPDX-License-Identifier: Apache-2.0
// A plan as one line of text, with everything that a table row can be about, so that a row says what
// is there and a test fails for what is there too much.
//
//   192.0.2.1 10809 "/foo" then "foo" nbd0; root /dev/nbd0 ext4 noatime rw; warn numberIsPort

import BootPlanning
import Testing
import WireFormat

extension ByteString {
  var testText: String { String(decoding: bytes, as: UTF8.self) }
}

func description(of plan: AttachmentPlan) -> String {
  guard !plan.isEmpty else {
    return "nothing" + warnings(plan)
  }
  var text = plan.targets.map(description).joined(separator: " + ")
  if !plan.fallbackTargets.isEmpty {
    text += " else " + plan.fallbackTargets.map(description).joined(separator: " + ")
  }
  text += "; root " + description(of: plan.root)
  if let root = plan.fallbackRoot { text += " else " + description(of: root) }
  if let device = plan.softRDMA { text += "; rdma \(device.text.testText)" }
  return text + warnings(plan)
}

private func warnings(_ plan: AttachmentPlan) -> String {
  let names = plan.warnings.map { String("\($0)".prefix { $0 != "(" }) }
  return names.isEmpty ? "" : "; warn " + names.joined(separator: ", ")
}

private func description(of root: PlannedRoot) -> String {
  var words = [root.device?.testText ?? "-"]
  if let fileSystem = root.fileSystem { words.append(fileSystem.testText) }
  if let flags = root.flags { words.append(flags.testText) }
  if let isReadOnly = root.isReadOnly { words.append(isReadOnly ? "ro" : "rw") }
  if root.isOverlay { words.append("overlay") }
  if root.needsRootLink { words.append("link") }
  return words.joined(separator: " ")
}

private func description(of target: AttachmentTarget) -> String {
  var words: [String] = []
  for (number, path) in (target.paths + target.replicas).enumerated() {
    if number >= target.paths.count { words.append("or") }
    var word = path.source?.text.map { $0.testText + ">" } ?? ""
    word += path.server.text?.testText ?? "pending"
    words.append(word)
    if path.server.needsNetwork { words.append("\(path.port)") }
  }
  if target.blockProtocol == .rnbd {
    words.append("session \(target.session?.testText ?? "-")")
    words.append("device \(target.devicePath?.testText ?? "-")")
    if target.ioMode == .file { words.append("fileio") }
    if let count = target.queueCount { words.append("queues \(count)") }
    switch target.pathPolicy {
    case .roundRobin: words.append("round-robin")
    case .minInFlight: words.append("min-inflight")
    case .minLatency: words.append("min-latency")
    case nil: break
    }
  }
  if !target.exports.isEmpty {
    words.append(target.exports.map { "\"\($0.testText)\"" }.joined(separator: " then "))
  }
  words.append(target.device.map { String($0.path.dropFirst(5)) } ?? "any")
  switch target.accessMode {
  case .readWrite: break
  case .readOnly: words.append("ro")
  case .migration: words.append("migration")
  }
  if let tls = target.tls { words.append(description(of: tls)) }
  if let size = target.blockSize { words.append("bs=\(size)") }
  if let seconds = target.requestTimeoutSeconds { words.append("timeout=\(seconds)") }
  if target.connectionCount != 1 { words.append("connections=\(target.connectionCount)") }
  if let seconds = target.deadTimeSeconds { words.append("deadtime=\(seconds)") }
  if let seconds = target.shutdownTimeSeconds { words.append("shutdowntime=\(seconds)") }
  if let seconds = target.silenceSeconds { words.append("silence=\(seconds)") }
  if let seconds = target.answerSeconds { words.append("answer=\(seconds)") }
  return words.joined(separator: " ")
}

private func description(of tls: TLSPolicy) -> String {
  var text = tls.isRequired ? "tls" : "tls?"
  if let name = tls.verifiedName { text += " verify=\(name.testText)" }
  if !tls.verifiesPeer { text += " unverified" }
  switch tls.authentication {
  case nil: break
  case .anonymous: text += " anon"
  case .x509: text += " x509"
  case .preSharedKey: text += " psk"
  }
  if let identity = tls.identity { text += " identity=\(identity.testText)" }
  return text
}

/// The plan for `input`, or its error: `error at 11: a port from 1 to 65535`.
func outcome(of input: PlanningInput) -> String {
  do {
    return description(of: try plan(for: input))
  } catch {
    switch error {
    case .malformed(_, _, _, let syntax):
      return "error at \(syntax.offset + 1): \(syntax.expected.text)"
    case .incomplete(_, let missing): return "error: \(missing.testText) missing"
    case .foreignRootPath: return "error: the root-path belongs to another protocol"
    case .serverUnknown: return "error: server unknown"
    case .commandLineTooLong: return "error: command line too long"
    case .tooManyTargets: return "error: too many targets"
    }
  }
}

/// One row of a table of command lines.
struct Row: Sendable, CustomTestStringConvertible {
  let id: String
  let line: String
  let meaning: String
  /// `ROOTPATH` of the lease; nil for none.
  var rootPath: String?

  init(_ id: String, _ line: String, _ meaning: String) {
    self.id = id
    self.line = line
    self.meaning = meaning
  }

  init(_ id: String, _ line: String, rootPath: String, _ meaning: String) {
    self.init(id, line, meaning)
    self.rootPath = rootPath
  }

  var testDescription: String { "\(id) \(line)" }

  /// With the lease that the tables assume: next-server 192.0.2.9, and a root-path or none.
  func input(_ environment: PlanningInput.Environment = .initramfsTools) -> PlanningInput {
    var input = PlanningInput(commandLine: ByteString(line + "\n"))
    input.environment = environment
    input.leaseFiles = [Self.lease(rootPath: rootPath ?? "")]
    return input
  }

  static func lease(rootPath: String) -> LeaseFile {
    LeaseFile(
      path: "/run/net-eth0.conf",
      bytes: ByteString(
        "DEVICE='eth0'\nPROTO='dhcp'\nIPV4ADDR='192.0.2.121'\nROOTSERVER='192.0.2.9'\n"
          + "ROOTPATH='\(rootPath)'\n"),
      modificationTime: 1000)
  }
}
