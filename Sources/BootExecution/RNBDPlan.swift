// SPDX-License-Identifier: Apache-2.0
// What the process behind an RNBD device must know to make its session: written beside the record of
// the attachment, so that another process can take the device up. One `key=value` line each, as in
// KeeperPlan, from which the key `rnbd-session` tells it apart.

#if ROOTLINK_RDMA
  import LinuxSystem
  import NBDDriver
  import RNBDClient
  import RNBDProtocol
  import RTRSProtocol
  import WireFormat

  struct RNBDPlan: Sendable {
    var deviceIndex: UInt32
    var session: SessionName
    var deviceName: RNBDProtocol.DeviceName
    var accessMode: AccessMode
    var paths: [PathAddresses]
    /// For requests, of each path; there is one more for control messages. 1 to 16.
    var connectionCount: UInt32
    var policy = PathPolicy.minInFlight
    /// The device's; 0 before it is known.
    var byteCount: UInt64 = 0
    /// The largest request that the kernel makes; 0 before it is known.
    var payloadByteCount: UInt64 = 0
    /// 0 is for ever.
    var deadTimeSeconds: UInt64 = 0
    var shutdownTimeSeconds = ShutdownPatience.absenceSecondsDefault

    static let byteCountMaximum = KeeperPlan.byteCountMaximum
    static let pathCountMaximum = 16

    var encoded: ByteString {
      var text: ByteString = ""
      func add(_ key: ByteString, _ value: ByteString) {
        text += key + "=" + ByteString(value.printable(limit: Self.byteCountMaximum)) + "\n"
      }
      func add(_ key: ByteString, _ value: UInt64) { add(key, ByteString("\(value)")) }
      add("rnbd-session", session.text)
      add("device", UInt64(deviceIndex))
      add("name", deviceName.text)
      add("access", UInt64(accessMode.rawValue))
      for path in paths {
        add(
          "path",
          ByteString(path.isIB ? "ib " : "ip ") + hexadecimal(path.destination) + " "
            + (path.source.map(hexadecimal) ?? "-"))
      }
      add("connections", UInt64(connectionCount))
      switch policy {
      case .roundRobin: add("policy", 0)
      case .minInFlight: add("policy", 1)
      case .minLatency: add("policy", 2)
      }
      add("size", byteCount)
      add("payload", payloadByteCount)
      add("dead-time", deadTimeSeconds)
      add("shutdown-time", shutdownTimeSeconds)
      return text
    }
  }

  extension RNBDPlan {
    /// Nil when `text` is no such file, whole.
    init?(decoding text: ByteString) {
      guard text.count <= Self.byteCountMaximum else { return nil }
      var values: [ByteString: ByteString] = [:]
      var paths: [PathAddresses] = []
      for line in text.fields(separatedBy: 0x0a) where !line.isEmpty {
        guard let (key, value) = line.cut(at: 0x3d), let plain = value.unescapingHexadecimal
        else { return nil }
        if key == "path" {
          guard let path = Self.path(plain), paths.count < Self.pathCountMaximum else {
            return nil
          }
          paths.append(path)
        } else {
          values[key] = plain
        }
      }
      func number(_ key: ByteString, maximum: UInt64 = .max) -> UInt64? {
        values[key]?.decimal(maximum: maximum)
      }
      guard !paths.isEmpty, let sessionText = values["rnbd-session"],
        let session = try? SessionName(sessionText), let nameText = values["name"],
        let name = try? RNBDProtocol.DeviceName(nameText),
        let device = number("device", maximum: UInt64(UInt32.max)),
        let access = number("access", maximum: 2),
        let accessMode = AccessMode(rawValue: UInt8(access)),
        let connections = number("connections", maximum: UInt64(connectionCountMaximum)),
        connections > 0, let policyNumber = number("policy", maximum: 2),
        let size = number("size"), let payload = number("payload", maximum: 1 << 20),
        let deadTime = number("dead-time"),
        let shutdownTime = number("shutdown-time", maximum: UInt64(UInt32.max))
      else { return nil }
      self.init(
        deviceIndex: UInt32(device), session: session, deviceName: name, accessMode: accessMode,
        paths: paths, connectionCount: UInt32(connections),
        policy: policyNumber == 0 ? .roundRobin : policyNumber == 1 ? .minInFlight : .minLatency,
        byteCount: size, payloadByteCount: payload, deadTimeSeconds: deadTime,
        shutdownTimeSeconds: shutdownTime)
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
