// SPDX-License-Identifier: Apache-2.0
// `ip=`, `BOOTIF=` and `bootdev=`, as far as a plan depends on them: which interface boots, who
// serves when the address is static, what this machine is called. Nothing here is an error: these
// words belong to others, who will say what is wrong with them.

import WireFormat

/// One `ip=`. Source: Linux `Documentation/admin-guide/nfs/nfsroot.rst`; dracut.cmdline(7).
struct IPParameter: Equatable {
  /// `dev:method`, dracut's own form: the kernel reads nonsense from it.
  var isDracutForm = false
  var device: ByteString?
  /// The second field: a boot server to the kernel and klibc, a peer to dracut and systemd.
  var secondField: ByteString?
  var hostName: ByteString?
  var nameServers: [ServerAddress] = []

  private static let methods = [
    "dhcp", "on", "any", "dhcp6", "auto6", "either6", "link6", "single-dhcp", "off", "none", "both",
    "bootp", "rarp", "static", "ibft",
  ]

  init(_ value: ByteString) {
    let fields = value.bytes[...].colonFields.map { Self.withoutBrackets($0) }
    if fields.count == 1 {
      if !Self.isMethod(fields[0]), IPv4Address(fields[0]) == nil,
        ServerGrammar.isInterfaceName(fields[0])
      {
        device = ByteString(fields[0])
      }
      return
    }
    if fields.count <= 4, Self.isMethod(fields[1]), ServerGrammar.isInterfaceName(fields[0]) {
      isDracutForm = true
      device = ByteString(fields[0])
      return
    }
    secondField = Self.nonEmpty(fields[1])
    if fields.count > 4, !fields[4].isEmpty {
      // `host.domain`: the kernel takes the domain for NIS.
      hostName = ServerGrammar.strictHostName(fields[4].cut(at: .dot)?.head ?? fields[4])
    }
    if fields.count > 5, ServerGrammar.isInterfaceName(fields[5]) {
      device = ByteString(fields[5])
    }
    for field in fields.dropFirst(7).prefix(2) {
      if let address = IPv4Address(field), address.namesAHost {
        nameServers.append(.ipv4(address))
      } else if let address = ServerGrammar.ipv6(field) {
        nameServers.append(address)
      }
    }
  }

  private static func withoutBrackets(_ field: Text) -> Text {
    field.count >= 2 && field.first == .openBracket && field.last == .closeBracket
      ? field.dropFirst().dropLast() : field
  }

  private static func isMethod(_ field: Text) -> Bool {
    let name = field.cut(at: .comma)?.head ?? field
    for method in methods where name.isEqual(to: method) { return true }
    return false
  }

  private static func nonEmpty(_ field: Text) -> ByteString? {
    field.isEmpty ? nil : ByteString(field)
  }
}

struct NetworkParameters {
  /// The interface that `bootdev=`, `ip=` or `BOOTIF=` names.
  var bootInterface: ByteString?
  /// The second field of `ip=` where it is a boot server.
  var staticServer: IPv4Address?
  var hostName: ByteString?
  var nameServers: [ServerAddress] = []
  /// An `ip=` in dracut's form, from which kernel autoconfiguration makes up addresses.
  var hasDracutForm = false

  init(_ parameters: BootParameters, in input: PlanningInput) {
    // `nfsaddrs=` is the kernel's old name of `ip=`; only the kernel reads it.
    let words = input.environment == .bare ? parameters.nfsAddresses + parameters.ip : parameters.ip
    var devices: [ByteString] = []
    for word in words {
      let ip = IPParameter(word)
      if ip.isDracutForm { hasDracutForm = true }
      if let device = ip.device, !devices.contains(device) { devices.append(device) }
      if let name = ip.hostName { hostName = name }
      if input.environment != .dracut, !ip.isDracutForm, let field = ip.secondField,
        let address = IPv4Address(field.bytes[...]), address.namesAHost
      {
        staticServer = address
      }
      nameServers += ip.nameServers
    }
    if let device = parameters.bootDevice, ServerGrammar.isInterfaceName(device.bytes[...]) {
      bootInterface = device
    } else if devices.count == 1 {
      bootInterface = devices[0]
    } else if let address = parameters.bootInterfaceAddress.flatMap(Self.hardwareAddress) {
      for interface in input.interfaces where interface.hardwareAddress == address {
        bootInterface = interface.name
      }
    }
    for word in parameters.nameServers {
      let text = word.bytes[...]
      if let address = IPv4Address(text), address.namesAHost {
        nameServers.append(.ipv4(address))
      } else if let address = ServerGrammar.ipv6(text) {
        nameServers.append(address)
      }
    }
  }

  /// `BOOTIF=`: six bytes with `-` or `:` between, behind the byte for Ethernet that PXELINUX puts
  /// there.
  private static func hardwareAddress(_ value: ByteString) -> [UInt8]? {
    var bytes: [UInt8] = []
    for field in value.bytes.split(whereSeparator: { $0 == .minus || $0 == .colon }) {
      guard bytes.count < 7, field.count == 2, let high = field.first?.hexadecimalDigit,
        let low = field.last?.hexadecimalDigit
      else { return nil }
      bytes.append(high << 4 | low)
    }
    if bytes.count == 7 { bytes.removeFirst() }
    return bytes.count == 6 ? bytes : nil
  }
}
