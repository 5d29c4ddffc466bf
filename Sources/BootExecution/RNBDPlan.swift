// SPDX-License-Identifier: Apache-2.0
// What the process behind the RNBD devices of one session must know: written beside the record of each
// attachment, so that another process can take the devices up. One `key=value` line each, as in
// KeeperPlan, from which the key `rnbd-session` tells it apart; one `disk=` for each device.

#if ROOTLINK_RDMA
  import LinuxSystem
  import NBDDriver
  import RNBDClient
  import RNBDProtocol
  import RTRSProtocol
  import UblkDriver
  import WireFormat

  struct RNBDPlan: Sendable {
    /// One device of the session.
    struct Disk: Sendable {
      /// Of its ublk device.
      var index: UInt32
      /// The device's; 0 before it is known.
      var byteCount: UInt64 = 0
      /// The largest request that the kernel makes; 0 before it is known.
      var payloadByteCount: UInt64 = 0
      /// As the server is asked for it.
      var name: RNBDProtocol.DeviceName
      var accessMode: AccessMode
    }

    var session: SessionName
    /// 1 to `diskCountMaximum`.
    var disks: [Disk]
    var paths: [PathAddresses]
    /// For requests, of each path; there is one more for control messages. 1 to 16.
    var connectionCount: UInt32
    var policy = PathPolicy.minInFlight
    /// 0 is for ever.
    var deadTimeSeconds: UInt64 = 0
    var shutdownTimeSeconds = ShutdownPatience.absenceSecondsDefault

    static let byteCountMaximum = KeeperPlan.byteCountMaximum
    static let pathCountMaximum = 16
    /// Of a session: each has its own requests and their memory.
    static let diskCountMaximum = 8

    /// Whether `disk` is what was asked for of this server as `name`, by a client called `session`: one
    /// whose session got a number behind it, too.
    func has(
      _ disk: Disk, called name: RNBDProtocol.DeviceName, of session: ByteString,
      at server: SocketAddress
    ) -> Bool {
      let isSession = self.session.text == session || self.session.text.hasPrefix(session + "_")
      guard isSession, disk.name == name else { return false }
      for path in paths where path.destination.text == server.text { return true }
      return false
    }

    /// Each path for people: `10.0.0.2@10.0.0.1:1234`.
    var pathTexts: [ByteString] {
      var texts: [ByteString] = []
      for path in paths {
        texts.append((path.source.map { $0.hostAndPort.host + "@" } ?? "") + path.destination.text)
      }
      return texts
    }

    var encoded: ByteString {
      var lines = NamedLines()
      lines.add("rnbd-session", session.text)
      for disk in disks {
        lines.add(
          "disk",
          ByteString(
            "\(disk.index) \(disk.accessMode.rawValue) \(disk.byteCount) \(disk.payloadByteCount) ")
            + disk.name.text)
      }
      for path in paths {
        lines.add(
          "path",
          ByteString(path.isIB ? "ib " : "ip ") + hexadecimal(path.destination) + " "
            + (path.source.map(hexadecimal) ?? "-"))
      }
      lines.add("connections", UInt64(connectionCount))
      switch policy {
      case .roundRobin: lines.add("policy", 0)
      case .minInFlight: lines.add("policy", 1)
      case .minLatency: lines.add("policy", 2)
      }
      lines.add("dead-time", deadTimeSeconds)
      lines.add("shutdown-time", shutdownTimeSeconds)
      return lines.encoded
    }
  }

  extension RNBDPlan {
    /// Nil when `text` is no such file, whole.
    init?(decoding text: ByteString) {
      guard let lines = NamedLines(decoding: text, limit: Self.byteCountMaximum) else {
        return nil
      }
      var paths: [PathAddresses] = []
      for text in lines.all("path") {
        guard let path = Self.path(text), paths.count < Self.pathCountMaximum else { return nil }
        paths.append(path)
      }
      var disks: [Disk] = []
      for text in lines.all("disk") {
        guard let disk = Self.disk(text), disks.count < Self.diskCountMaximum else { return nil }
        disks.append(disk)
      }
      guard !paths.isEmpty, !disks.isEmpty, let sessionText = lines["rnbd-session"],
        let session = try? SessionName(sessionText),
        let connections = lines.number("connections", maximum: UInt64(connectionCountMaximum)),
        connections > 0, let policyNumber = lines.number("policy", maximum: 2),
        let deadTime = lines.number("dead-time"),
        let shutdownTime = lines.number("shutdown-time", maximum: UInt64(UInt32.max))
      else { return nil }
      self.init(
        session: session, disks: disks, paths: paths, connectionCount: UInt32(connections),
        policy: policyNumber == 0 ? .roundRobin : policyNumber == 1 ? .minInFlight : .minLatency,
        deadTimeSeconds: deadTime, shutdownTimeSeconds: shutdownTime)
    }

    /// Four numbers and the name, which may have spaces.
    private static func disk(_ text: ByteString) -> Disk? {
      var rest = text
      var numbers: [UInt64] = []
      while numbers.count < 4 {
        guard let (word, tail) = rest.cut(at: 0x20), let number = word.decimal() else { return nil }
        numbers.append(number)
        rest = tail
      }
      guard numbers[0] <= UInt64(UblkDevice.indexMaximum), numbers[1] <= 2,
        let accessMode = AccessMode(rawValue: UInt8(numbers[1])), numbers[3] <= 1 << 20,
        let name = try? RNBDProtocol.DeviceName(rest)
      else { return nil }
      return Disk(
        index: UInt32(numbers[0]), byteCount: numbers[2], payloadByteCount: numbers[3],
        name: name, accessMode: accessMode)
    }

    private static func path(_ text: ByteString) -> PathAddresses? {
      let words = text.fields(separatedBy: 0x20)
      guard words.count == 3, words[0] == "ip" || words[0] == "ib",
        let destination = socketAddress(hexadecimal: words[1])
      else { return nil }
      var path = PathAddresses(source: nil, destination: destination, isIB: words[0] == "ib")
      if words[2] == "-" { return path }
      guard let source = socketAddress(hexadecimal: words[2]) else { return nil }
      path.source = source
      return path
    }
  }
#endif
