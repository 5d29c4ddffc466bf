// SPDX-License-Identifier: Apache-2.0
// Clients that rootlinkd survives, and that a working client beside them does not notice.

import Foundation
import TestSupport
import Testing

@Suite("rootlinkd, with bad company")
struct ServerHostileTests {
  let directory: TemporaryDirectory
  let image: String

  init() throws {
    directory = try TemporaryDirectory()
    image = try directory.file("image", pattern(1 << 20))
  }

  /// A working client reads everything and finds it right.
  private func expectService(_ server: ServerUnderTest) throws {
    let copy = directory.path("copy")
    let result = try run("nbdcopy", [server.uri("disk"), copy])
    #expect(result.exitStatus == 0, "\(result.standardError)\(server.process.transcript)")
    #expect(try difference(of: contents(copy), from: pattern(1 << 20)) == nil)
    #expect(server.process.exitStatus == nil)
  }

  @Test(
    "survives a browser, noise, and fifty clients that leave in their handshake",
    .enabled(if: programsAreThere("nbdcopy"), "no nbdcopy"))
  func garbage() throws {
    let server = try ServerUnderTest(directory, exports: ["disk=\(image),ro"])
    let script = """
      import socket, random, sys
      def connect():
          s = socket.create_connection(("127.0.0.1", \(server.port)))
          s.settimeout(20)
          return s
      def rest(s):
          try:
              while s.recv(65536):
                  pass
          except ConnectionResetError:
              pass
      http = connect(); http.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"); rest(http)
      seed = random.randrange(1 << 32); print("seed", seed); random.seed(seed)
      for n in range(20):
          s = connect()
          try:
              s.sendall(random.choice([b"", b"\\0\\0\\0\\3", b"\\0\\0\\0\\3IHAVEOPT"])
                  + random.randbytes(random.randrange(300)))
              s.shutdown(socket.SHUT_WR)
              rest(s)
          except (ConnectionResetError, BrokenPipeError):
              pass
      held = [connect() for n in range(50)]
      for s in held[:25]:
          s.sendall(b"\\0\\0")
      print("holding", flush=True)
      sys.stdin.read()
      """
    let company = try RunningProcess("/usr/bin/python3", ["-c", script], standardInput: nil)
    // Its standard input is empty, so it leaves at once; the connections go with it, unfinished.
    try company.waitForLine(containing: "holding", on: .standardOutput)
    #expect(try company.waitForExit() == 0, "\(company.transcript)")
    try expectService(server)
    try server.process.waitForLine(containing: "the client set unknown flags 0x47455420")
    #expect(try server.process.terminate() == 0)
  }

  @Test(
    "answers others while fifty connections hang in their handshake",
    .enabled(if: programsAreThere("nbdcopy"), "no nbdcopy"))
  func slowHandshakes() throws {
    let server = try ServerUnderTest(directory, exports: ["disk=\(image),ro"])
    let script = """
      import socket, time
      held = [socket.create_connection(("127.0.0.1", \(server.port))) for n in range(50)]
      for s in held:
          s.sendall(b"\\0")
      print("holding", flush=True)
      time.sleep(600)
      """
    let company = try RunningProcess("/usr/bin/python3", ["-c", script])
    try company.waitForLine(containing: "holding", on: .standardOutput)
    try expectService(server)
    company.send(signal: SIGKILL)
    try company.waitForExit()
    #expect(try server.process.terminate() == 0)
  }

  @Test(
    "keeps what was answered when a client is killed in the middle of writing",
    .enabled(if: hasNBDShell, "no python3-libnbd"))
  func killedClient() throws {
    let server = try ServerUnderTest(directory, exports: ["disk=\(image)"])
    let script = """
      h.connect_uri("\(server.uri("disk"))")
      h.pwrite(b"first", 0)
      print("writing", flush=True)
      while True:
          h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"z" * 65536)), 65536)
          h.poll(0)
      """
    let client = try RunningProcess(
      "/usr/bin/python3", ["-c", "import nbd\nh = nbd.NBD()\n" + script])
    try client.waitForLine(containing: "writing", on: .standardOutput)
    client.send(signal: SIGKILL)
    #expect(try client.waitForExit() == 256 + SIGKILL)
    try server.process.waitForLine(containing: "left 'disk'")
    let after = try nbdsh(
      """
      h.connect_uri("\(server.uri("disk"))")
      assert h.pread(5, 0) == b"first"
      assert set(h.pread(65536, 65536)) <= set(range(256))
      h.pwrite(b"second", 0, nbd.CMD_FLAG_FUA)
      h.shutdown()
      """)
    #expect(after.exitStatus == 0, "\(after.standardError)\(server.process.transcript)")
    #expect(try contents(image).prefix(6) == Array("second".utf8)[...])
    let rest = try Array(contents(image)[131072...])
    #expect(difference(of: rest, from: Array(pattern(1 << 20)[131072...])) == nil)
    #expect(try server.process.terminate() == 0)
  }

  @Test(
    "serves more connections than the shell's soft limit on open files lets it have",
    .enabled(if: hasNBDShell, "no python3-libnbd"))
  func openFileLimit() throws {
    let socket = directory.path("socket")
    let server = try RunningProcess(
      "/bin/sh",
      ["-c", "ulimit -Sn 20; exec \"$@\"", "sh", builtProgram("rootlinkd"), "serve"]
        + ["--control", directory.path("control"), "--listen", "unix:\(socket)"]
        + ["--export", "disk=\(image),overlay", "--overlay-directory", directory.path])
    try server.waitForLine(containing: "listening on unix:")
    let script = """
      clients = [nbd.NBD() for n in range(40)]
      for c in clients:
          c.connect_uri("nbd+unix:///disk?socket=\(socket)")
      for c in clients:
          c.pwrite(b"x", 0)
      """
    let result = try nbdsh(script)
    #expect(result.exitStatus == 0, "\(result.standardError)\(server.transcript)")
    #expect(try server.terminate() == 0)
  }

  @Test(
    "ends at once on SIGTERM with clients connected, who see the end",
    .enabled(if: hasNBDShell, "no python3-libnbd"))
  func termination() throws {
    let server = try ServerUnderTest(directory, exports: ["disk=\(image)"])
    let script = """
      import time
      h.connect_uri("\(server.uri("disk"))")
      h.pwrite(b"kept", 0)
      print("connected", flush=True)
      try:
          while True:
              h.pread(512, 0)
              time.sleep(0.01)
      except nbd.Error as error:
          print("ended", flush=True)
      """
    let client = try RunningProcess(
      "/usr/bin/python3", ["-c", "import nbd\nh = nbd.NBD()\n" + script])
    try client.waitForLine(containing: "connected", on: .standardOutput)
    #expect(try server.process.terminate(seconds: 5) == 0)
    try client.waitForLine(containing: "ended", on: .standardOutput)
    #expect(server.process.standardError.contains("the server is stopping"))
    #expect(try contents(image).prefix(4) == Array("kept".utf8)[...])
  }
}
