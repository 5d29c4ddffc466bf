// SPDX-License-Identifier: Apache-2.0
// Servers on the host's loopback for the tiny guest: other people's, and ours.

import Foundation
import TestSupport

/// One server process on a port of its own, ended with the object.
final class HostServer: Sendable {
  let process: RunningProcess
  let ports: [UInt16]
  var port: UInt16 { ports[0] }
  var uri: String { "nbd://10.0.2.2:\(port)" }

  private convenience init(_ program: String, port: UInt16, _ arguments: [String]) throws {
    try self.init(program, ports: [port], arguments)
  }

  private init(_ program: String, ports: [UInt16], _ arguments: [String]) throws {
    self.ports = ports
    process = try RunningProcess(program, arguments)
    let end = Date(timeIntervalSinceNow: 30)
    while !ports.allSatisfy(Self.isListening) {
      if process.exitStatus != nil || Date() > end {
        throw TinyGuest.Failure(description: "\(program) does not listen: \(process.transcript)")
      }
      usleep(20_000)
    }
  }

  static func qemuNBD(_ image: String, export: String) throws -> HostServer {
    let port = freePort()
    return try HostServer(
      "qemu-nbd", port: port,
      [
        "--format=raw", "--port=\(port)", "--bind=127.0.0.1", "--export-name=\(export)",
        "--persistent", "--shared=16", image,
      ])
  }

  static func nbdkit(_ arguments: String...) throws -> HostServer {
    let port = freePort()
    return try HostServer(
      "nbdkit", port: port, ["--foreground", "--port=\(port)", "--ipaddr=127.0.0.1"] + arguments)
  }

  static func nbdServer(
    _ image: String, export: String, in directory: TemporaryDirectory
  ) throws -> HostServer {
    let port = freePort()
    let configuration = """
      [generic]
      listenaddr = 127.0.0.1
      port = \(port)
      [\(export)]
      exportname = \(image)
      """
    let file = try directory.file("nbd-server.conf", Array(configuration.utf8))
    return try HostServer("nbd-server", port: port, ["-d", "-C", file])
  }

  static func rootlinkd(
    _ image: String, export: String, in directory: TemporaryDirectory, ports: [UInt16]? = nil,
    host: String = "127.0.0.1"
  ) throws -> HostServer {
    let ports = ports ?? freePorts(1)
    return try HostServer(
      try builtProgram("rootlinkd"), ports: ports,
      [
        "serve", "--export", "\(export)=\(image)", "--control",
        directory.path("control-\(ports[0])"), "--overlay-directory", directory.path,
      ] + ports.flatMap { ["--listen", "tcp:\(host):\($0)"] })
  }

  /// So many, all different.
  static func freePorts(_ count: Int) -> [UInt16] {
    var ports: [UInt16] = []
    while ports.count < count {
      let port = freePort()
      if !ports.contains(port) { ports.append(port) }
    }
    return ports
  }

  /// Below the range that the kernel gives to outgoing connections.
  private static func freePort() -> UInt16 {
    while true {
      let port = UInt16.random(in: 20_000..<32_000)
      if !isListening(port) { return port }
    }
  }

  private static func isListening(_ port: UInt16) -> Bool {
    let suffix = String(format: ":%04X", Int(port))
    for table in ["tcp", "tcp6"] {
      let text = (try? String(contentsOfFile: "/proc/net/\(table)", encoding: .utf8)) ?? ""
      for line in text.split(separator: "\n") {
        let fields = line.split(separator: " ")
        if fields.count > 3, fields[1].hasSuffix(suffix), fields[3] == "0A" { return true }
      }
    }
    return false
  }
}

/// 64 MiB with an MBR and two partitions, an ext4 file system in the first.
func partitionedImage(in directory: TemporaryDirectory) throws -> String {
  let image = try sparseFile("partitioned.img", mebibytes: 64, in: directory)
  let table = "label: dos\nstart=2048, size=40960, type=83\nstart=43008, type=82\n"
  for (program, arguments, input) in [
    ("sfdisk", ["--quiet", image], table),
    ("mkfs.ext4", ["-q", "-F", "-E", "offset=1048576", image, "20M"], ""),
  ] {
    let made = try run(program, arguments, standardInput: Data(input.utf8))
    guard made.exitStatus == 0 else {
      throw TinyGuest.Failure(description: "\(program): \(made.standardError)")
    }
  }
  return image
}

func sparseFile(
  _ name: String, mebibytes: UInt64, in directory: TemporaryDirectory
) throws -> String {
  let path = try directory.file(name)
  let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
  try file.truncate(atOffset: mebibytes << 20)
  try file.close()
  return path
}
