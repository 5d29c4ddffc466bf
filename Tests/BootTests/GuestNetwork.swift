// SPDX-License-Identifier: Apache-2.0
// A network namespace for one guest and its servers: the well-known port is free in it, and nothing
// of it is seen outside.

import Foundation

final class GuestNetwork: Sendable {
  private let holder: HostProcess
  private let name: String

  init(named name: String) async throws {
    self.name = name
    holder = try HostProcess(
      ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 1000"],
      output: BootLab.logs.appending(path: "\(name).network.log"), lifetimeSeconds: 1000)
    try await waitUntil("the namespace is up") { self.holder.text.contains("up\n") }
  }

  /// The process in the namespace: the only child of `timeout`.
  private var member: Int32 {
    let path = "/proc/\(holder.processIdentifier)/task/\(holder.processIdentifier)/children"
    let text = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
    return text.split(separator: " ").first.flatMap { Int32($0) } ?? 0
  }

  func command(_ arguments: [String]) -> [String] {
    ["nsenter", "--net=/proc/\(member)/ns/net"] + arguments
  }

  func run(_ arguments: String...) async throws {
    _ = try await HostProcess.run(command(arguments))
  }

  func isListening(onPort port: Int) -> Bool {
    let suffix = ":" + String(format: "%04X", port)
    for family in ["tcp", "tcp6"] {
      let path = "/proc/\(member)/net/\(family)"
      let table = (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
      for line in table.split(separator: "\n") {
        let fields = line.split(separator: " ")
        if fields.count > 3, fields[1].hasSuffix(suffix), fields[3] == "0A" { return true }
      }
    }
    return false
  }

  /// `rootlinkd` with the one export `root`, once it listens.
  func serve(_ image: URL, options: String = "", port: Int = 10809) async throws -> HostProcess {
    let server = try HostProcess(
      command([
        BootLab.server.path, "serve", "--export", "root=\(image.path)\(options)",
        "--listen", "tcp:0.0.0.0:\(port)",
      ]), output: BootLab.logs.appending(path: "\(name).server-\(port).log"), lifetimeSeconds: 900)
    try await waitUntil("rootlinkd listens: \(server.text)") { self.isListening(onPort: port) }
    return server
  }

  /// A wire of its own instead of the user-mode network, with dnsmasq as the DHCP server on it. Who
  /// sends a client identifier gets another address than who sends none.
  func startTapWithDHCP() async throws -> HostProcess {
    try await run("ip", "tuntap", "add", "tap0", "mode", "tap")
    try await run("ip", "address", "add", "192.0.2.1/24", "dev", "tap0")
    try await run("ip", "link", "set", "tap0", "up")
    let leases = BootLab.logs.appending(path: "\(name).leases")
    try? FileManager.default.removeItem(at: leases)
    let server = try HostProcess(
      command([
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0",
        "--interface=tap0", "--bind-interfaces", "--log-facility=-", "--log-dhcp", "--no-ping",
        "--dhcp-leasefile=\(leases.path)", "--dhcp-authoritative", "--pid-file=",
        "--dhcp-match=set:named,61",
        "--dhcp-range=tag:!named,192.0.2.100,192.0.2.119,255.255.255.0,1h",
        "--dhcp-range=tag:named,192.0.2.150,192.0.2.169,255.255.255.0,1h",
      ]), output: BootLab.logs.appending(path: "\(name).dhcp.log"), lifetimeSeconds: 900)
    try await waitUntil("dnsmasq has started") { server.text.contains("started") }
    return server
  }

  static let tapOptions = [
    "-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no",
    "-device", "virtio-net-pci,netdev=n0,romfile=",
  ]
}

/// Waits for a fact, and says which one did not come.
func waitUntil(
  _ fact: @autoclosure () -> String, withinSeconds seconds: Double = 20,
  _ holds: @Sendable () -> Bool
) async throws {
  let clock = ContinuousClock()
  let deadline = clock.now + .seconds(seconds)
  while !holds() {
    guard clock.now < deadline else { throw FactError.didNotComeTrue(fact(), seconds) }
    try await Task.sleep(for: .milliseconds(50))
  }
}

enum FactError: Error {
  case didNotComeTrue(String, Double)
}
