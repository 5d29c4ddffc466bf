// SPDX-License-Identifier: Apache-2.0
// The sockets that a server waits on: those that the service manager hands over, and those that the
// configuration names. One that was handed over is not made again.

import BlockServer
import LinuxSystem
import Logging
import NBDServer
import ServerOperation
import WireFormat

struct ServerSockets {
  /// For NBD's clients.
  var listeners: [Listener] = []
  var control: Listener?
  var metrics: Listener?
  /// For RNBD's clients; not listened on yet.
  var rdma: [(host: ByteString, port: UInt16)] = []

  init(
    _ configuration: ServerConfiguration, _ environment: ServiceEnvironment, _ logger: Logger
  ) throws {
    let control = configuration.controlPath
    for socket in environment.sockets {
      guard isListening(socket.number) else {
        throw Failure.couldNot(
          (
            "descriptor \(socket.number) '\(socket.name.printable)' does not wait for connections",
            "use ListenStream= in the socket unit, and Accept=no"
          ))
      }
      let listener = Listener.adopt(
        FileDescriptor(owning: socket.number), silenceSeconds: configuration.silenceSeconds)
      let paths = control.map { [$0] } ?? standardControlPaths()
      let isControl =
        socket.name == "control" || paths.contains { listener.address == "unix:" + $0 }
      if isControl {
        self.control = listener
      } else if socket.name == "metrics" {
        metrics = listener
      } else {
        listeners.append(listener)
      }
    }
    try listen(configuration)
    if self.control == nil { self.control = try Self.control(configuration, logger) }
    if let address = configuration.metricsAddress, metrics == nil {
      metrics = try Self.listeners(on: address, configuration).first
    }
  }

  private mutating func listen(_ configuration: ServerConfiguration) throws {
    let inherited = listeners.map(\.address)
    var addresses = configuration.listen
    if addresses.isEmpty, listeners.isEmpty { addresses = [.standard] }
    for address in addresses {
      if case .rdma(let host, let port) = address {
        rdma.append((host, port))
      } else if !inherited.contains(address.text) {
        listeners += try Self.listeners(on: address, configuration)
      }
    }
  }

  private static func listeners(
    on address: ListenAddress, _ configuration: ServerConfiguration
  ) throws -> [Listener] {
    do {
      return try Listener.listen(on: address, silenceSeconds: configuration.silenceSeconds)
    } catch { throw Failure.couldNot(error.report) }
  }

  /// A path that was asked for must work; the standard ones may be somebody else's.
  private static func control(
    _ configuration: ServerConfiguration, _ logger: Logger
  ) throws -> Listener? {
    if let path = configuration.controlPath {
      do { return try Listener.unix(path, isPrivate: true) } catch {
        throw Failure.couldNot(error.report)
      }
    }
    var reason = ""
    for path in standardControlPaths() {
      do { return try Listener.unix(path, isPrivate: true) } catch {
        if reason.isEmpty { reason = error.report.reason }
      }
    }
    logger.warning(
      "\(reason); 'rootlinkd status' will not reach this server without --control")
    return nil
  }
}

/// Where `rootlinkd status` asks when it is told nothing: what the system's server has, then what one
/// of this user has.
func standardControlPaths() -> [ByteString] {
  var paths = [ServerConfiguration.standardControlPath]
  if let directory = environmentVariable("XDG_RUNTIME_DIR"), directory.hasPrefix("/") {
    paths.append(directory + "/rootlinkd.sock")
  }
  return paths
}
