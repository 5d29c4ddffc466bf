// SPDX-License-Identifier: Apache-2.0
// A TCP server on the loopback interface that does what a test says, one connection after
// another: sends bytes, waits for bytes, hangs up or stays silent.

import Foundation
import Glibc

public final class ScriptedServer: Sendable {
  public enum Step: Sendable {
    case send([UInt8])
    /// Reads and drops so many bytes.
    case receive(Int)
    /// Keeps the connection open and says nothing until the peer has gone.
    case staySilent
  }

  public let port: UInt16
  private let listener: Int32

  /// Serves one script a connection, the last one for every further connection.
  public init(_ scripts: [[Step]]) throws {
    listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var byteCount = socklen_t(MemoryLayout<sockaddr_in>.size)
    let listener = listener
    // SAFETY: a sockaddr_in of ours, given as what it begins with.
    let failed = unsafe withUnsafeMutablePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
        unsafe bind(listener, raw, byteCount) != 0 || listen(listener, 16) != 0
          || getsockname(listener, raw, &byteCount) != 0
      }
    }
    guard !failed else { throw RunningProcess.WaitError(description: "cannot listen: \(errno)") }
    port = UInt16(bigEndian: address.sin_port)
    Thread.detachNewThread {
      var next = 0
      while true {
        let connection = accept(listener, nil, nil)
        guard connection >= 0 else {
          close(listener)  // Here, so that no other descriptor of that number is accepted from.
          return
        }
        let script = scripts[min(next, scripts.count - 1)]
        next += 1
        Thread.detachNewThread {
          Self.play(script, on: connection)
          close(connection)
        }
      }
    }
  }

  deinit { shutdown(listener, Int32(SHUT_RDWR)) }

  private static func play(_ script: [Step], on connection: Int32) {
    for step in script {
      switch step {
      case .send(let bytes):
        // SAFETY: the array's own storage.
        _ = unsafe bytes.withUnsafeBytes {
          unsafe send(connection, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
      case .receive(let count):
        var left = count
        while left > 0 {
          let received = receive(left, from: connection)
          guard received > 0 else { return }
          left -= received
        }
      case .staySilent:
        while receive(4096, from: connection) > 0 {}
      }
    }
  }

  private static func receive(_ count: Int, from connection: Int32) -> Int {
    var buffer = [UInt8](repeating: 0, count: count)
    // SAFETY: the array's own storage.
    return unsafe buffer.withUnsafeMutableBytes {
      unsafe recv(connection, $0.baseAddress, $0.count, 0)
    }
  }
}
