// SPDX-License-Identifier: Apache-2.0

import BootPlanning
import LinuxSystem
import NBDDriver
import NBDProtocol
import WireFormat

/// Tells the network manager of the root which interface to leave alone. What fails is said, and
/// does not keep the machine from booting.
func handOverNetwork(_ plan: AttachmentPlan, _ targets: [AttachedTarget], _ log: Log) {
  var attachments: [NetworkHandover.Attachment] = []
  for target in targets {
    let isUnix = target.local == nil
    var interface: NetworkInterface?
    if let local = target.local {
      interface = try? NetworkInterface(holding: local)
      do {
        try keepAddress(local)
      } catch {
        log.write(
          .warning,
          "\(local.hostAndPort.host.printable) keeps the lifetime of its lease: \(error.text)",
          next: "the root goes away with the address when the lease ends")
      }
    }
    let (address, port) = target.server.hostAndPort
    attachments.append(
      NetworkHandover.Attachment(
        device: target.device.node, export: target.export.name,
        transport: isUnix ? "unix" : "tcp", serverAddress: address, serverPort: port,
        localAddress: target.local?.hostAndPort.host ?? "", interface: interface))
  }
  guard !attachments.isEmpty else { return }
  var nameServers: [ByteString] = []
  for server in plan.resolver.nameServers {
    if let text = server.text { nameServers.append(text) }
  }
  let gateway = plan.lease?.gateway?.text ?? ""
  let handover = NetworkHandover(
    attachments: attachments, gateway: ByteString(gateway), nameServers: nameServers,
    searchDomains: plan.resolver.searchDomains)
  do {
    try handover.write()
  } catch {
    log.write(.warning, error.report.reason, next: error.report.advice)
  }
}
