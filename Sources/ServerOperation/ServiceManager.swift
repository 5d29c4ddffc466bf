// SPDX-License-Identifier: Apache-2.0
// What systemd, or anything else that speaks its two small protocols, gives a service and wants to
// hear of it: sockets that it listens on already, and messages about readiness, reloads, the end, and
// that it is alive. Source: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).

import CLinux
import LinuxSystem
public import WireFormat

/// What the environment of a service says.
public struct ServiceEnvironment: Equatable, Sendable {
  /// Where messages go; nil: nobody wants any.
  public var notifyPath: ByteString?
  /// How often it wants to hear that the service is alive; nil: not at all.
  public var watchdogMicroseconds: UInt64?
  /// Descriptors that wait for connections, with their names.
  public var sockets: [(number: CInt, name: ByteString)] = []

  public static func == (left: Self, right: Self) -> Bool {
    left.notifyPath == right.notifyPath
      && left.watchdogMicroseconds == right.watchdogMicroseconds
      && left.sockets.elementsEqual(right.sockets) { $0 == $1 }
  }

  /// The first descriptor. Source: `SD_LISTEN_FDS_START` in sd_listen_fds(3).
  public static let firstSocket: CInt = 3
  /// Of `LISTEN_FDS`: with more, none is taken.
  public static let socketCountMaximum = 64

  /// Decides; `variable` gives the value of one. What is meant for another process is nobody's.
  public init(ownProcess: CInt, _ variable: (String) -> ByteString?) {
    func isForUs(_ name: String) -> Bool {
      guard let value = variable(name) else { return true }
      return value.decimal() == UInt64(ownProcess)
    }
    if let path = variable("NOTIFY_SOCKET"), path.count > 1 {
      // An abstract name begins with @ in the environment, and with NUL in the kernel.
      notifyPath = path.hasPrefix("@") ? ByteString([0] + path.bytes.dropFirst()) : path
      // Sockets of a virtual machine's host are another family.
      if !path.hasPrefix("@"), !path.hasPrefix("/") { notifyPath = nil }
    }
    if isForUs("WATCHDOG_PID"), let period = variable("WATCHDOG_USEC")?.decimal(), period > 0 {
      watchdogMicroseconds = period
    }
    if variable("LISTEN_PID") != nil, isForUs("LISTEN_PID"),
      let count = variable("LISTEN_FDS")?.decimal(maximum: UInt64(Self.socketCountMaximum))
    {
      let names = variable("LISTEN_FDNAMES")?.fields(separatedBy: UInt8(ascii: ":")) ?? []
      for index in 0..<Int(count) {
        sockets.append((Self.firstSocket + CInt(index), index < names.count ? names[index] : ""))
      }
    }
  }

  /// Of this process. The variables are taken away, for no child of ours is meant; call it once,
  /// before there are threads.
  public static func takeOwn() -> ServiceEnvironment {
    let found = ServiceEnvironment(ownProcess: clinux_process_id(), environmentVariable)
    for name in [
      "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS",
      "LISTEN_FDNAMES",
    ] {
      // SAFETY: a terminated text.
      unsafe name.withCString { unsafe clinux_remove_from_environment($0) }
    }
    for socket in found.sockets { _ = clinux_set_close_on_exec(socket.number) }
    return found
  }
}

/// Nil when there is none of that name.
public func environmentVariable(_ name: String) -> ByteString? {
  // SAFETY: terminated texts; what comes back is copied before anybody can change it.
  unsafe name.withCString { name in
    guard let value = unsafe clinux_environment(name) else { return nil }
    return unsafe ByteString(String(cString: value))
  }
}

/// Whether a descriptor waits for stream connections.
public func isListening(_ number: CInt) -> Bool { clinux_is_listening(number) != 0 }

/// One message to the service manager.
public enum ServiceMessage: Equatable, Sendable {
  /// The service is up, or up again after `reloading`.
  case ready
  /// At so many microseconds of CLOCK_MONOTONIC; `ready` ends it.
  case reloading(microseconds: UInt64)
  /// The service has begun to end.
  case stopping
  /// It may take so much longer, from now on.
  case extendTimeout(microseconds: UInt64)
  /// What the watchdog waits for.
  case alive
  /// One line for people.
  case status(String)

  /// As sd_notify(3) wants it: lines of `NAME=VALUE`, without a last line end.
  public var text: String {
    switch self {
    case .ready: "READY=1"
    case .reloading(let microseconds): "RELOADING=1\nMONOTONIC_USEC=\(microseconds)"
    case .stopping: "STOPPING=1"
    case .extendTimeout(let microseconds): "EXTEND_TIMEOUT_USEC=\(microseconds)"
    case .alive: "WATCHDOG=1"
    case .status(let line):
      "STATUS=" + String(line.map { $0.isNewline ? " " : $0 })
    }
  }
}

/// Where messages go. What is not delivered is not repeated: a manager that does not listen must not
/// stop a server.
public final class ServiceManager: Sendable {
  private let path: ByteString?
  /// Nil: it does not want to know.
  public let aliveMilliseconds: UInt64?

  /// Opens nothing yet.
  public init(_ environment: ServiceEnvironment) {
    path = environment.notifyPath
    // Twice as often as it must be: one may be late.
    aliveMilliseconds = environment.watchdogMicroseconds.map { max($0 / 2000, 1) }
  }

  /// All in one datagram; returns at once, whether or not it arrives.
  public func send(_ messages: ServiceMessage...) {
    guard let path, let address = try? SocketAddress(unixPath: path),
      let socket = try? DatagramSocket.connect(to: address)
    else { return }
    let text = messages.map(\.text).joined(separator: "\n")
    try? socket.send(Array(text.utf8))
  }
}
