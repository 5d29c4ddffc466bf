// SPDX-License-Identifier: Apache-2.0
// `rootlinkd` on ports that stay, to which things are done.

import Foundation
import TestSupport

final class FaultyServer {
  private let image: String
  /// Another image of the same size, served in its place by `restart-other`.
  private let other: String?
  private let directory: TemporaryDirectory
  private var server: HostServer
  var uri: String { server.uri }
  /// Host and port, each a way to it, as rootlink.path= has them.
  var ways: [String] { server.ports.map { "10.0.2.2:\($0)" } }
  var ports: [UInt16] { server.ports }

  init(
    _ image: String, other: String? = nil, ways: Int = 1, in directory: TemporaryDirectory
  ) throws {
    self.image = image
    self.other = other
    self.directory = directory
    server = try HostServer.rootlinkd(
      image, export: "root", in: directory, ports: HostServer.freePorts(ways))
  }

  func suffer(_ fault: String) throws {
    switch fault {
    case "kill": try kill()
    case "restart": try start(image)
    case "restart-other":
      guard let other else { throw TinyGuest.Failure(description: "there is no other image") }
      try start(other)
    case "kill-and-restart":
      try kill()
      try start(image)
    case "kill-and-restart-later":
      try kill()
      Thread.sleep(forTimeInterval: 2)
      try start(image)
    case "drain-and-restart":
      try server.process.terminate()
      try start(image)
    case "stop": server.process.send(signal: SIGSTOP)
    case "continue": server.process.send(signal: SIGCONT)
    default: throw TinyGuest.Failure(description: "there is no fault '\(fault)'")
    }
  }

  private func kill() throws {
    server.process.send(signal: SIGKILL)
    try server.process.waitForExit()
  }

  private func start(_ image: String) throws {
    server = try HostServer.rootlinkd(image, export: "root", in: directory, ports: server.ports)
  }
}
