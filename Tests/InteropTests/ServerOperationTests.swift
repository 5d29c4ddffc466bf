// SPDX-License-Identifier: Apache-2.0
// rootlinkd as it is run: reloads under its clients' hands, limits, who sees what, metrics, and a
// service manager.

import Foundation
import TestSupport
import Testing

@Suite("rootlinkd in operation", .enabled(if: hasNBDShell, "python3-libnbd is missing"))
struct ServerOperationTests {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  /// A server with a configuration of its own, which may be written anew.
  struct Configured {
    let process: RunningProcess
    let path: String
    let control: String
    let unix: String
    let port: UInt16

    func write(_ text: String) throws {
      try text.write(toFile: path, atomically: true, encoding: .utf8)
    }

    /// Reads the configuration again, and gives the line about it.
    func reload(waitingFor word: String) throws {
      process.send(signal: SIGHUP)
      try process.waitForLine(containing: word)
    }

    var tcp: String { "nbd://127.0.0.1:\(port)/" }
    func viaUnix(_ name: String) -> String { "nbd+unix:///\(name)?socket=\(unix)" }
  }

  private func image(_ name: String, _ byte: UInt8 = 1, count: Int = 65536) throws -> String {
    try directory.file(name, [UInt8](repeating: byte, count: count))
  }

  private func serve(_ text: String, arguments: [String] = []) throws -> Configured {
    let path = directory.path("rootlinkd.toml")
    try text.write(toFile: path, atomically: true, encoding: .utf8)
    let (control, unix) = (directory.path("control"), directory.path("socket"))
    let process = try RunningProcess(
      builtProgram("rootlinkd"),
      ["serve", "--config", path, "--control", control, "--overlay-directory", directory.path]
        + ["--listen", "tcp:127.0.0.1:0", "--listen", "unix:\(unix)"] + arguments)
    try process.waitForLine(containing: "listening on unix:")
    let line = try process.waitForLine(containing: "listening on tcp:127.0.0.1:")
    let number = line.firstMatch(of: /127\.0\.0\.1:([0-9]+)/)?.1
    let port = try #require(number.flatMap { UInt16($0) })
    return Configured(process: process, path: path, control: control, unix: unix, port: port)
  }

  @Test("a log that nobody reads holds up neither clients nor a reload")
  func unreadLog() throws {
    let path = directory.path("rootlinkd.toml")
    try "[export.a]\npath = \"\(image("a"))\"\n".write(
      toFile: path, atomically: true, encoding: .utf8)
    let (log, unix) = (directory.path("log"), directory.path("socket"))
    // SAFETY: terminated copies that outlive the calls.
    let made = unsafe mkfifo(log, 0o600)
    #expect(made == 0)
    // Open for both, so that the server can open it.
    let pipe = try #require(FileHandle(forUpdatingAtPath: log))
    let server = try RunningProcess(
      "/bin/sh",
      ["-c", "log=$1; shift; exec \"$@\" 2>\"$log\"", "sh", log, builtProgram("rootlinkd")]
        + ["serve", "--config", path, "--control", directory.path("control")]
        + ["--listen", "unix:\(unix)"])
    try wait("the server listens") { FileManager.default.fileExists(atPath: unix) }
    let sessions = """
      for _ in range(COUNT):
          g = nbd.NBD()
          g.connect_uri("nbd+unix:///a?socket=\(unix)")
          assert g.pread(1, 0) == b"\\1"
          g.shutdown()
      """
    // Two lines of over 40 bytes each: more than the 64 KiB that a pipe holds at most.
    let many = try nbdsh(sessions.replacing("COUNT", with: "900"))
    #expect(many.exitStatus == 0, "\(many.standardError)")
    var room = pollfd(fd: pipe.fileDescriptor, events: Int16(POLLOUT), revents: 0)
    // SAFETY: a structure of ours that the call fills.
    let readyCount = unsafe poll(&room, 1, 0)
    #expect(readyCount == 0, "the log has room")
    server.send(signal: SIGHUP)
    let more = try nbdsh(sessions.replacing("COUNT", with: "3"), seconds: 20)
    #expect(more.exitStatus == 0, "\(more.standardError)")
    #expect(try server.terminate() == 0)
  }

  @Test("without descriptors for more connections says so, serves on, and accepts again later")
  func noDescriptors() throws {
    let path = directory.path("rootlinkd.toml")
    try "[export.a]\npath = \"\(image("a"))\"\n".write(
      toFile: path, atomically: true, encoding: .utf8)
    let unix = directory.path("socket")
    let server = try RunningProcess(
      "/bin/sh",
      ["-c", "ulimit -n 40; exec \"$@\"", "sh", builtProgram("rootlinkd")]
        + ["serve", "--config", path, "--control", directory.path("control")]
        + ["--listen", "unix:\(unix)"])
    try server.waitForLine(containing: "listening on unix:")
    let sessions = """
      import socket
      g = nbd.NBD()
      g.connect_uri("nbd+unix:///a?socket=\(unix)")
      crowd = [socket.socket(socket.AF_UNIX) for _ in range(60)]
      for one in crowd: one.connect("\(unix)")
      for one in crowd[:10]: assert len(one.recv(18)) == 18
      print("crowded", flush=True)
      for _ in range(3): assert g.pread(1, 0) == b"\\1"
      for one in crowd: one.close()
      h.connect_uri("nbd+unix:///a?socket=\(unix)")
      assert h.pread(1, 0) == b"\\1"
      """
    let done = try nbdsh(sessions, seconds: 60)
    #expect(done.exitStatus == 0, "\(done.standardError)")
    try server.waitForLine(containing: "no connection can be accepted")
    #expect(try server.terminate() == 0)
  }

  @Test("reads its configuration again, and leaves sessions as they are")
  func reload() throws {
    let (a, b) = (try image("a", 1), try image("b", 2))
    let server = try serve("[export.a]\npath = \"\(a)\"\n")
    // The client goes on when the server has been reloaded.
    let gate = directory.path("gate")
    // SAFETY: terminated copies, here and below, that outlive the calls.
    let made = unsafe mkfifo(gate, 0o600)
    #expect(made == 0)
    let script = """
      h.connect_uri("\(server.tcp)a")
      assert h.pread(1, 0) == b"\\1"
      print("connected", flush=True)
      open("\(gate)").read()
      h.pwrite(b"kept", 0); h.flush()
      assert h.pread(4, 0) == b"kept"
      h.shutdown()
      for name, found in (("a", False), ("b", True)):
          g = nbd.NBD()
          try:
              g.connect_uri("\(server.tcp)" + name)
              assert found, name
              assert g.get_export_name() == name
              assert g.pread(1, 0) == b"\\2"
              g.shutdown()
          except nbd.Error:
              assert not found, name
      """
    let client = try RunningProcess(
      "/usr/bin/python3",
      [
        "-c",
        "import nbd, os\nh = nbd.NBD()\n" + script,
      ])
    try client.waitForLine(containing: "connected", on: .standardOutput)

    try server.write("[export.a]\npath = \"/nosuch\"\n")
    try server.reload(waitingFor: "SIGHUP: nothing has changed: export 'a': there is no file")
    try server.write("[export.a]\npth = 1\n")
    try server.reload(waitingFor: "line 2, column 1: unknown key 'pth' in [export.a]")
    try server.write("[export.b]\npath = \"\(b)\"\n[limits]\nsilence_seconds = 30\n")
    try server.reload(
      waitingFor: "SIGHUP: the configuration was read: 1 exports, 1 opened, 1 given up")
    try server.process.waitForLine(containing: "export 'a' is not offered any more")
    try server.process.waitForLine(containing: "limits.silence_seconds has changed, which takes a")
    let status = try run(builtProgram("rootlinkd"), ["status", "--control", server.control])
    #expect(status.standardOutput.contains("not offered any more"), "\(status.standardOutput)")

    let opener = FileHandle(forWritingAtPath: gate)
    try opener?.close()
    #expect(try client.waitForExit() == 0, "\(client.standardError)")
    #expect(try contents(a).prefix(4) == ArraySlice("kept".utf8))
    #expect(try server.process.terminate() == 0)
  }

  @Test("keeps what has not changed, and sees an image that was replaced")
  func replacedImage() throws {
    let a = try image("a", 1)
    let text = "[export.a]\npath = \"\(a)\"\nmode = \"ro\"\n"
    let server = try serve(text)
    try server.reload(waitingFor: "1 exports, 0 opened, 0 given up")
    try server.write(text + "description = \"new\"\n")
    try server.reload(waitingFor: "1 exports, 0 opened, 1 given up")
    let new = try image("new", 7)
    let renamed = unsafe rename(new, a)
    #expect(renamed == 0)
    try server.reload(waitingFor: "1 exports, 1 opened, 1 given up")
    let result = try nbdsh("h.connect_uri(\"\(server.tcp)a\"); assert h.pread(1, 0) == b\"\\7\"")
    #expect(result.exitStatus == 0, "\(result.standardError)")
    #expect(try server.process.terminate() == 0)
  }

  @Test("shows each client what is for it, by lists of networks and directories of its own")
  func visibility() throws {
    let (a, b) = (try image("a"), try image("b"))
    for name in ["127.0.0.1", "local"] {
      try FileManager.default.createDirectory(
        atPath: directory.path("boards/\(name)"), withIntermediateDirectories: true)
      _ = try image("boards/\(name)/own", name == "local" ? 3 : 4)
    }
    let server = try serve(
      """
      [nbd]
      dev_search_path = "\(directory.path("boards"))/%CLIENT%"
      [export.near]
      path = "\(a)"
      allow = ["unix"]
      [export.far]
      path = "\(b)"
      allow = ["127.0.0.0/8"]
      """)
    for (uri, seen, hidden, byte) in [
      (server.tcp, "far", "near", 4), (server.viaUnix(""), "near", "far", 3),
    ] {
      func named(_ name: String) -> String {
        uri.hasPrefix("nbd://") ? uri + name : server.viaUnix(name)
      }
      let result = try nbdsh(
        """
        h.set_opt_mode(True)
        h.connect_uri("\(uri)")
        names = []
        h.opt_list(lambda name, text: names.append(name))
        assert names == ["\(seen)"], names
        h.set_export_name("")
        h.opt_info()
        h.opt_abort()
        def opens(uri):
            g = nbd.NBD()
            try: g.connect_uri(uri)
            except nbd.Error as error: return error.string
            return g
        assert opens("\(named(seen))").is_read_only() == False
        refused = opens("\(named(hidden))")
        assert "no export" in refused, refused
        assert opens("\(named("own"))").pread(1, 0) == bytes([\(byte)])
        for name in ["../local/own", "other", "..", "/etc/passwd"]:
            refused = opens("\(named(""))".replace("?", name + "?") if "?" in "\(uri)" else "\(uri)" + name)
            assert "no export" in refused, refused
        """)
      #expect(result.exitStatus == 0, "\(result.standardError)")
    }
    try server.write(
      "[nbd]\ndev_search_path = \"\(directory.path("boards"))/%SESSNAME%\"\n[export.a]\npath=\"\(a)\""
    )
    try server.reload(waitingFor: "SIGHUP: the configuration was read")
    let refused = try nbdsh("h.connect_uri(\"\(server.tcp)own\")")
    #expect(refused.standardError.contains("policy"), "\(refused.standardError)")
    try server.process.waitForLine(containing: "this client has said nothing for it")
    #expect(try server.process.terminate() == 0)
  }

  static let modes: [(mode: String, isSecondLetIn: Bool)] = [
    ("rw", false), ("migration", true), ("ro", true), ("overlay", true),
  ]

  /// Through TCP and through a Unix socket they are two clients.
  @Test("lets as many clients write to an export as its mode says", arguments: modes)
  func writers(mode: String, isSecondLetIn: Bool) throws {
    let server = try serve("[export.a]\npath = \"\(try image("a"))\"\nmode = \"\(mode)\"\n")
    let result = try nbdsh(
      """
      h.connect_uri("\(server.tcp)a")
      g = nbd.NBD(); g.connect_uri("\(server.tcp)a")
      f = nbd.NBD()
      try:
          f.connect_uri("\(server.viaUnix("a"))")
          print("in")
      except nbd.Error as error:
          print(error.string)
      h.shutdown(); g.shutdown()
      """)
    #expect(result.exitStatus == 0, "\(result.standardError)")
    #expect(
      result.standardOutput.contains(
        isSecondLetIn ? "in" : "policy"), "\(result.standardOutput)")
    #expect(try server.process.terminate() == 0)
  }

  @Test("turns away what is more than one client may have, and refuses requests that are too long")
  func limits() throws {
    let server = try serve(
      """
      [limits]
      connections_per_client = 1
      request_size = 65536
      [export.a]
      path = "\(try image("a", count: 1 << 20))"
      """)
    let result = try nbdsh(
      """
      h.connect_uri("\(server.tcp)a")
      assert h.get_block_size(nbd.SIZE_MAXIMUM) == 65536
      h.set_strict_mode(0)
      h.pread(65536, 0)
      try:
          h.pread(65537, 0)
          assert False
      except nbd.Error as error:
          assert error.errno in ("EINVAL", "EOVERFLOW"), error
      g = nbd.NBD()
      try:
          g.connect_uri("\(server.tcp)a")
          assert False
      except nbd.Error: pass
      h.shutdown()
      """)
    #expect(result.exitStatus == 0, "\(result.standardError)")
    try server.process.waitForLine(containing: "refused, this client has 1 connections")
    #expect(try server.process.terminate() == 0)
  }

  @Test("ends a session that does nothing for longer than it may")
  func idle() throws {
    let server = try serve(
      "[limits]\nidle_seconds = 1\n[export.a]\npath = \"\(try image("a"))\"\n")
    let result = try nbdsh(
      """
      h.connect_uri("\(server.tcp)a")
      while not (h.aio_is_closed() or h.aio_is_dead()):
          try: h.poll(1000)
          except nbd.Error: break
      """)
    #expect(result.exitStatus == 0, "\(result.standardError)")
    try server.process.waitForLine(containing: "did nothing for limits.idle_seconds")
    #expect(try server.process.terminate() == 0)
  }

  @Test("tells metrics over HTTP, and logs as it is told to")
  func metrics() throws {
    let server = try serve(
      """
      [metrics]
      listen = "tcp:127.0.0.1:0"
      [log]
      format = "json"
      [export.a]
      path = "\(try image("a"))"
      """)
    let line = try server.process.waitForLine(containing: "metrics on tcp:127.0.0.1:")
    let port = try #require(line.firstMatch(of: /127\.0\.0\.1:([0-9]+)/)?.1)
    let result = try nbdsh(
      """
      import http.client
      h.connect_uri("\(server.tcp)a"); h.pread(4096, 0)
      c = http.client.HTTPConnection("127.0.0.1", \(port), timeout=30)
      c.request("GET", "/metrics")
      answer = c.getresponse()
      assert answer.status == 200, answer.status
      assert answer.getheader("Content-Type").startswith("text/plain; version=0.0.4")
      text = answer.read().decode()
      assert 'rootlinkd_export_read_bytes_total{export="a"} 4096' in text, text
      assert 'rootlinkd_connections 1' in text, text
      h.shutdown()
      """)
    #expect(result.exitStatus == 0, "\(result.standardError)")
    let closed = try server.process.waitForLine(containing: "\"event\":\"closed\"")
    let object = try JSONSerialization.jsonObject(with: Data(closed.utf8)) as? [String: Any]
    #expect(object?["export"] as? String == "a")
    #expect(object?["read_bytes"] as? Int == 4096)
    #expect(try server.process.terminate() == 0)
  }

  /// Python makes the sockets, hands them over as systemd does, and prints what it is told.
  private static let manager = """
    import os, socket, sys
    directory, program, configuration = sys.argv[1:4]
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(directory + "/notify")
    tcp = socket.socket(socket.AF_INET6); tcp.bind(("::1", 0)); tcp.listen()
    control = socket.socket(socket.AF_UNIX); control.bind(directory + "/control"); control.listen()
    print("port", tcp.getsockname()[1], flush=True)
    pid = os.fork()
    if pid == 0:
        fds = [os.dup(tcp.fileno()), os.dup(control.fileno())]
        for index, fd in enumerate(fds): os.dup2(fd, 50 + index)
        for index in range(len(fds)): os.dup2(50 + index, 3 + index)
        os.closerange(5, 100)
        environment = dict(os.environ, LISTEN_PID=str(os.getpid()), LISTEN_FDS="2",
            NOTIFY_SOCKET=directory + "/notify", WATCHDOG_USEC="200000")
        os.execve(program, [program, "serve", "--config", configuration], environment)
    print("pid", pid, flush=True)
    while True:
        text = notify.recv(4096).decode().replace("\\n", " ")
        print(text, flush=True)
        if "STOPPING" in text: break
    print("ended", os.waitpid(pid, 0)[1], flush=True)
    """

  @Test("takes sockets from a service manager, and tells it how it is")
  func serviceManager() throws {
    let configuration = try directory.file(
      "rootlinkd.toml",
      [UInt8](
        """
        control = "\(directory.path("control"))"
        [export.a]
        path = "\(try image("a"))"
        """.utf8))
    let manager = try RunningProcess(
      "/usr/bin/python3",
      ["-c", Self.manager, directory.path, try builtProgram("rootlinkd"), configuration])
    func told(_ word: String) throws -> String {
      try manager.waitForLine(containing: word, on: .standardOutput)
    }
    let port = try #require(try told("port ").split(separator: " ").last)
    let pid = try #require(try told("pid ").split(separator: " ").last.flatMap { Int32($0) })
    #expect(try told("READY=1").contains("STATUS=1 exports"))
    _ = try told("WATCHDOG=1")
    let result = try nbdsh("h.connect_uri('nbd://[::1]:\(port)/a'); h.pread(1, 0); h.shutdown()")
    #expect(result.exitStatus == 0, "\(result.standardError)")
    let status = try run(
      builtProgram("rootlinkd"), ["status", "--control", directory.path("control")])
    #expect(status.standardOutput.contains("listening on tcp:[::1]:\(port)"))
    kill(pid, SIGHUP)
    #expect(try told("RELOADING=1").contains("MONOTONIC_USEC="))
    kill(pid, SIGTERM)
    _ = try told("STOPPING=1")
    _ = try told("ended 0")
    // The socket is the manager's.
    #expect(FileManager.default.fileExists(atPath: directory.path("control")))
  }

  @Test("serves stacks of media, and says how they are")
  func stacks() throws {
    let half = 1 << 20
    let server = try serve(
      """
      [export.mirror.backend]
      type = "mirror"
      state = "\(directory.path("state"))"
      members = ["\(try image("m1", 0, count: half))", "\(try image("m2", 0, count: half))"]
      [export.stripe]
      blocksize = 4096
      async = true
      [export.stripe.backend]
      type = "stripe"
      chunk = 4096
      members = [{ type = "memory", size = 8192 }, "\(try image("s", 0, count: 8192))"]
      [export.kept.backend]
      type = "overlay"
      base = "\(try image("base", 5, count: 65536))"
      layer = "\(directory.path("layer"))"
      """)
    try server.process.waitForLine(containing: "export 'stripe' acknowledges writes before")
    let result = try nbdsh(
      """
      for name, size in (("mirror", 1048576 - 8192), ("stripe", 16384), ("kept", 65536)):
          g = nbd.NBD(); g.connect_uri("\(server.tcp)" + name)
          assert g.get_size() == size, (name, g.get_size())
          data = (name.encode() * 4096)[:4096]
          g.pwrite(data, 0)
          g.flush()
          assert g.pread(4096, 0) == data
          g.shutdown()
      """)
    #expect(result.exitStatus == 0, "\(result.standardError)")
    try server.process.waitForLine(containing: "export 'mirror': half 2 is up to date and in use")
    let status = try run(builtProgram("rootlinkd"), ["status", "--control", server.control])
    #expect(status.standardOutput.contains("half of a mirror"), "\(status.standardOutput)")
    #expect(try server.process.terminate() == 0)
    #expect(try contents(directory.path("m1")).prefix(6) == ArraySlice("mirror".utf8))
    #expect(try contents(directory.path("m2")).prefix(6) == ArraySlice("mirror".utf8))
    #expect(try contents(directory.path("base")).allSatisfy { $0 == 5 })
  }
}
