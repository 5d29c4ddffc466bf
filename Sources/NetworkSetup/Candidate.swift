// SPDX-License-Identifier: Apache-2.0
// One interface that may become the one, and how far it is.

import BootPlanning
import DHCPProtocol
import NetlinkProtocol
import WireFormat

/// What is wanted: one `ip=`, or what is done without any.
struct NetworkWish {
  var request: InterfaceRequest
  /// Nil: whichever answers first.
  var interface: ByteString?
  /// Of the interface, when its name is not known: `BOOTIF=`.
  var hardwareAddress: [UInt8]?
  var isFulfilled = false
}

/// Of one network card there are few, and each has much: it is changed where it is.
final class Candidate {
  enum Stage: Equatable { case waitingForCarrier, asking, checking, done, abandoned }

  let wish: Int
  let link: LinkDescription
  /// Whether it is to be set down again when another one is taken.
  let wasDown: Bool
  var stage = Stage.waitingForCarrier

  var packets: PacketSocket?
  var client: DHCPClient?

  var routers: RouterSocket?
  var nextSolicitation: UInt64 = 0
  var solicitationCount = 0
  var advertisement: RouterAdvertisement?
  var messages6: DHCPv6Socket?
  var client6: DHCPv6Client?
  /// What is to be said once its address has been checked.
  var configuration: InterfaceConfiguration?

  init(wish: Int, link: LinkDescription) {
    self.wish = wish
    self.link = link
    wasDown = !link.isUp
  }

  var isWorking: Bool { stage != .done && stage != .abandoned }

  var descriptors: [CInt] {
    var numbers: [CInt] = []
    if let packets { numbers.append(packets.number) }
    if let routers { numbers.append(routers.number) }
    if let messages6 { numbers.append(messages6.number) }
    return numbers
  }

  func close() {
    packets?.close()
    routers?.close()
    messages6?.close()
    packets = nil
    routers = nil
    messages6 = nil
    client = nil
    client6 = nil
  }
}

extension InterfaceRequest.Method {
  /// Routers are listened to.
  var hearsRouters: Bool {
    switch self {
    case .dhcp6, .routerAdvertisement, .either6: true
    default: false
    }
  }
}
