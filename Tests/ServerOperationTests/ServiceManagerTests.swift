// SPDX-License-Identifier: Apache-2.0
import LinuxSystem
import ServerOperation
import TestSupport
import Testing
import WireFormat

@Suite("A service manager")
struct ServiceManagerTests {
  /// What the environment says to process 42. Source: sd_listen_fds(3), sd_notify(3) and
  /// sd_watchdog_enabled(3).
  static let environments:
    [(
      variables: [String: ByteString], sockets: [ByteString], notify: ByteString?, watchdog: UInt64?
    )] = [
      ([:], [], nil, nil),
      (
        ["LISTEN_PID": "42", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "nbd:control"],
        ["nbd", "control"], nil, nil
      ),
      (["LISTEN_PID": "42", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "nbd"], ["nbd", ""], nil, nil),
      (["LISTEN_PID": "42", "LISTEN_FDS": "1"], [""], nil, nil),
      (["LISTEN_PID": "41", "LISTEN_FDS": "1"], [], nil, nil),
      (["LISTEN_FDS": "1"], [], nil, nil),
      (["LISTEN_PID": "42", "LISTEN_FDS": "-1"], [], nil, nil),
      (["LISTEN_PID": "42", "LISTEN_FDS": "1000000000"], [], nil, nil),
      (["LISTEN_PID": "42"], [], nil, nil),
      (["NOTIFY_SOCKET": "/run/n"], [], "/run/n", nil),
      (["NOTIFY_SOCKET": "@n"], [], "\0n", nil),
      (["NOTIFY_SOCKET": "vsock:2:9"], [], nil, nil),
      (["NOTIFY_SOCKET": ""], [], nil, nil),
      (["WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"], [], nil, 30_000_000),
      (["WATCHDOG_USEC": "30000000"], [], nil, 30_000_000),
      (["WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "41"], [], nil, nil),
      (["WATCHDOG_USEC": "0"], [], nil, nil),
      (["WATCHDOG_USEC": "x"], [], nil, nil),
    ]

  @Test("says in the environment what it has for this process", arguments: environments.indices)
  func environment(index: Int) {
    let row = Self.environments[index]
    let environment = ServiceEnvironment(ownProcess: 42) { row.variables[$0] }
    #expect(environment.sockets.map(\.name) == row.sockets)
    #expect(environment.sockets.map(\.number) == row.sockets.indices.map { CInt($0) + 3 })
    #expect(environment.notifyPath == row.notify)
    #expect(environment.watchdogMicroseconds == row.watchdog)
  }

  static let messages: [(message: ServiceMessage, text: String)] = [
    (.ready, "READY=1"), (.stopping, "STOPPING=1"), (.alive, "WATCHDOG=1"),
    (.reloading(microseconds: 7), "RELOADING=1\nMONOTONIC_USEC=7"),
    (.extendTimeout(microseconds: 9), "EXTEND_TIMEOUT_USEC=9"),
    (.status("two\nlines"), "STATUS=two lines"),
  ]

  @Test("understands these messages", arguments: messages)
  func message(message: ServiceMessage, text: String) {
    #expect(message.text == text)
  }

  @Test("hears them, and is asked for nothing when it is not there")
  func sending() throws {
    let directory = try TemporaryDirectory()
    var environment = ServiceEnvironment(ownProcess: 1) { _ in nil }
    ServiceManager(environment).send(.ready)  // To nobody.
    environment.notifyPath = ByteString(directory.path("nobody"))
    ServiceManager(environment).send(.ready)  // To somebody who has gone.
    let path = ByteString(directory.path("notify"))
    let socket = try DatagramReceiver(path)
    environment.notifyPath = path
    environment.watchdogMicroseconds = 30_000_000
    let manager = ServiceManager(environment)
    #expect(manager.aliveMilliseconds == 15_000)
    manager.send(.ready, .status("serving"))
    #expect(try socket.receive() == "READY=1\nSTATUS=serving")
  }
}
