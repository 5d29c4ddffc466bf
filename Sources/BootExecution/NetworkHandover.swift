// SPDX-License-Identifier: Apache-2.0
// Peace with the network manager of the real root: the interface under the root device must keep
// its address after the switch of roots, or the machine hangs with its root gone.
//
// /run is carried over by every initramfs, so that is where each manager finds, before it starts,
// what makes it leave the interface as it is:
//   systemd-networkd  a .network file that sorts first and keeps the configuration
//   NetworkManager    a configuration snippet that leaves the device unmanaged
//   ifupdown          its state files: `ifup` finds the interface configured already;
//                     and unit drop-ins, because `ifdown -a` at shutdown would take it down
// /run/rootlink/attachment.json says for programs and people what is attached over what.
//
// Names and addresses reach these files from leases: what holds a byte that a name or an address
// cannot have is left out. A line break in a search domain must not become a line of ours.

public import LinuxSystem
public import WireFormat

/// Why the interface may lose its address later. The root is attached all the same.
public enum NetworkHandoverError: Error, Equatable, Sendable {
  case notWritten(path: ByteString, SystemError)

  /// What happened, and what a person can do about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .notWritten(let path, let error):
      (
        "cannot write \(path.printable): \(error.text)",
        "keep the network manager of the root away from the interface under it"
      )
    }
  }
}

/// What the running system must know of the network under its root.
public struct NetworkHandover: Equatable, Sendable {
  /// One export, attached to one device.
  public struct Attachment: Equatable, Sendable {
    /// `/dev/nbd0`.
    public var device: ByteString
    public var export: ByteString
    /// `tcp`, `unix` or `rdma`.
    public var transport: ByteString
    /// Of the server, as text: a numeric address, or a path for a Unix socket.
    public var serverAddress: ByteString
    /// 0 for a Unix socket.
    public var serverPort: UInt16
    /// Our end, as text; empty for a Unix socket.
    public var localAddress: ByteString
    /// What holds our end; nil for a Unix socket.
    public var interface: NetworkInterface?

    public init(
      device: ByteString, export: ByteString, transport: ByteString, serverAddress: ByteString,
      serverPort: UInt16, localAddress: ByteString, interface: NetworkInterface?
    ) {
      self.device = device
      self.export = export
      self.transport = transport
      self.serverAddress = serverAddress
      self.serverPort = serverPort
      self.localAddress = localAddress
      self.interface = interface
    }
  }

  public var attachments: [Attachment]
  /// From the lease, as text; empty for none.
  public var gateway: ByteString
  public var nameServers: [ByteString]
  public var searchDomains: [ByteString]

  public init(
    attachments: [Attachment], gateway: ByteString = "", nameServers: [ByteString] = [],
    searchDomains: [ByteString] = []
  ) {
    self.attachments = attachments
    self.gateway = gateway
    self.nameServers = nameServers
    self.searchDomains = searchDomains
  }
}

/// A file to be left in /run, and whether its text is added to what stands there.
public struct HandoverFile: Equatable, Sendable {
  public var path: ByteString
  public var text: ByteString
  /// False: the file is replaced.
  public var isAppended = false
}

extension NetworkHandover {
  /// Everything to be written, decided before the first write. Reads nothing.
  public var files: [HandoverFile] {
    var files: [HandoverFile] = []
    for interface in interfaces {
      let name = interface.name
      files.append(
        HandoverFile(
          path: "/run/systemd/network/00-rootlink-" + name + ".network",
          text: networkdText(for: interface)))
      files.append(
        HandoverFile(
          path: "/run/NetworkManager/conf.d/00-rootlink-" + name + ".conf",
          text: "# Written by rootlink: the root device is reached over this interface.\n"
            + "[device-rootlink-" + name + "]\nmatch-device=" + networkManagerMatch(interface)
            + "\nmanaged=0\n"))
      files.append(
        HandoverFile(
          path: "/run/network/ifstate", text: name + "=" + name + "\n", isAppended: true))
      // The one that `ifup` itself looks at; the other is for those who read all of them.
      files.append(HandoverFile(path: "/run/network/ifstate." + name, text: name + "\n"))
      files.append(
        HandoverFile(
          path: "/run/systemd/system/ifup@" + unitEscaped(name) + ".service.d/rootlink.conf",
          text: "# Written by rootlink: the root device is reached over this interface.\n"
            + "[Service]\nExecStop=\n"))
    }
    if !files.isEmpty {
      var text: ByteString =
        "# Written by rootlink: the root device is reached over an interface.\n"
      text += "[Service]\nExecStop=\nExecStop=/sbin/ifdown -a --read-environment --exclude=lo"
      for interface in interfaces { text += " --exclude=" + interface.name }
      files.append(
        HandoverFile(
          path: "/run/systemd/system/networking.service.d/rootlink.conf", text: text + "\n"))
    }
    files.append(HandoverFile(path: "/run/rootlink/attachment.json", text: json))
    return files
  }

  /// Leaves the files, `root` before every path; empty for the machine itself. A file that cannot
  /// be written does not keep the others from being written; the first failure is thrown.
  public func write(below root: ByteString = "") throws(NetworkHandoverError) {
    var failure: NetworkHandoverError?
    for file in files {
      let path = root + file.path
      do {
        try makeDirectories(directory(of: path))
        var text = file.text
        if file.isAppended, let present = try? readFile(path, limit: 65536) {
          if holdsLine(present, file.text) { continue }
          text = present + file.text
        }
        try replaceFile(path, with: text)
      } catch {
        if failure == nil { failure = .notWritten(path: path, error) }
      }
    }
    if let failure { throw failure }
  }

  /// The interfaces to be left alone, each once: those with a name that files can carry. The
  /// loopback interface belongs to nobody else.
  private var interfaces: [NetworkInterface] {
    var found: [NetworkInterface] = []
    for attachment in attachments {
      guard let interface = attachment.interface, isPlainName(interface.name) else { continue }
      guard interface.name != "lo" else { continue }
      var isKnown = false
      for other in found where other.name == interface.name { isKnown = true }
      if !isKnown { found.append(interface) }
    }
    return found
  }

  private func networkdText(for interface: NetworkInterface) -> ByteString {
    var text: ByteString =
      "# Written by rootlink: the root device is reached over this interface.\n"
    text += "[Match]\nName=" + interface.name + "\n\n"
    text += "[Network]\nDHCP=no\nKeepConfiguration=yes\nLinkLocalAddressing=ipv6\n"
    for server in nameServers where isAddress(server) { text += "DNS=" + server + "\n" }
    for domain in searchDomains where isDomain(domain) { text += "Domains=" + domain + "\n" }
    return text
  }

  private func networkManagerMatch(_ interface: NetworkInterface) -> ByteString {
    interface.hardwareAddress.count == 6
      ? "mac:" + interface.hardwareText : "interface-name:" + interface.name
  }

  private var json: ByteString {
    var text: ByteString = "{\"attachments\":["
    for (index, attachment) in attachments.enumerated() {
      if index > 0 { text += "," }
      text += "{\"device\":" + quoted(attachment.device)
      text += ",\"export\":" + quoted(attachment.export)
      text += ",\"transport\":" + quoted(attachment.transport)
      text += ",\"server\":" + quoted(attachment.serverAddress)
      text += ",\"port\":" + ByteString("\(attachment.serverPort)")
      if let interface = attachment.interface {
        text += ",\"address\":" + quoted(attachment.localAddress)
        text += ",\"prefixLength\":" + ByteString("\(interface.prefixLength)")
        text += ",\"interface\":" + quoted(interface.name)
        text += ",\"hardwareAddress\":" + quoted(interface.hardwareText)
      }
      text += "}"
    }
    text += "],\"gateway\":" + (gateway.isEmpty ? "null" : quoted(gateway))
    text += ",\"nameServers\":" + list(nameServers)
    return text + ",\"searchDomains\":" + list(searchDomains) + "}\n"
  }

  private func list(_ texts: [ByteString]) -> ByteString {
    var text: ByteString = "["
    for (index, one) in texts.enumerated() { text += (index > 0 ? "," : "") + quoted(one) }
    return text + "]"
  }
}

/// A JSON string. Bytes that are not printable ASCII become `\u00NN`: text from outside need not
/// be UTF-8, and no byte is lost.
private func quoted(_ text: ByteString) -> ByteString {
  let digits = Array("0123456789abcdef".utf8)
  var bytes: [UInt8] = [0x22]
  for byte in text.bytes {
    if byte == 0x22 || byte == 0x5c {
      bytes += [0x5c, byte]
    } else if byte >= 0x20, byte < 0x7f {
      bytes.append(byte)
    } else {
      bytes += [0x5c, 0x75, 0x30, 0x30, digits[Int(byte >> 4)], digits[Int(byte & 15)]]
    }
  }
  return ByteString(bytes + [0x22])
}

private func isLetterOrDigit(_ byte: UInt8) -> Bool {
  (byte >= 0x30 && byte <= 0x39) || (byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7a)
}

/// True for what a file name, a section name and a match can all carry unquoted.
private func isPlainName(_ name: ByteString) -> Bool {
  guard !name.isEmpty, name.count < 16, name.bytes[0] != 0x2e else { return false }
  for byte in name.bytes {
    guard isLetterOrDigit(byte) || byte == 0x2d || byte == 0x2e || byte == 0x5f else {
      return false
    }
  }
  return true
}

/// True for the bytes of an IPv4 or IPv6 address; whether it is one, its reader says.
private func isAddress(_ text: ByteString) -> Bool {
  guard !text.isEmpty, text.count <= 45 else { return false }
  for byte in text.bytes {
    let isHexadecimal =
      (byte >= 0x30 && byte <= 0x39) || (byte | 0x20 >= 0x61 && byte | 0x20 <= 0x66)
    guard isHexadecimal || byte == 0x2e || byte == 0x3a else { return false }
  }
  return true
}

private func isDomain(_ text: ByteString) -> Bool {
  guard !text.isEmpty, text.count <= 255 else { return false }
  for byte in text.bytes {
    guard isLetterOrDigit(byte) || byte == 0x2d || byte == 0x2e || byte == 0x5f else {
      return false
    }
  }
  return true
}

/// A name inside a unit's name. Source: systemd.unit(5), "String escaping for inclusion in unit
/// names"; the name holds only bytes that `isPlainName` lets through.
private func unitEscaped(_ name: ByteString) -> ByteString {
  var bytes: [UInt8] = []
  for byte in name.bytes {
    if byte == 0x2d { bytes += Array("\\x2d".utf8) } else { bytes.append(byte) }
  }
  return ByteString(bytes)
}

private func directory(of path: ByteString) -> ByteString {
  guard let slash = path.bytes.lastIndex(of: 0x2f) else { return "." }
  return ByteString(path.bytes[..<slash])
}

private func holdsLine(_ text: ByteString, _ line: ByteString) -> Bool {
  for one in text.fields(separatedBy: 0x0a) where one + "\n" == line { return true }
  return false
}
