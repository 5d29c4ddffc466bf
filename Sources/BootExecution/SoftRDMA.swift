// SPDX-License-Identifier: Apache-2.0
// Makes the soft RDMA device that the command line asks for, as `rdma link add` does.

#if ROOTLINK_RDMA
  import BootPlanning
  import LinuxSystem
  import NetlinkProtocol
  import WireFormat

  extension SoftRDMADevice {
    private static func openSocket() throws(NetlinkError) -> NetlinkSocket {
      do { return try NetlinkSocket(protocol: RDMALinkRequest.socketProtocol) } catch {
        throw .failed(error)
      }
    }

    static let answerMilliseconds: UInt64 = 10_000

    /// It is there then, made now or before.
    func make() throws(NetlinkError) {
      // The kernel asks for the module itself, where it can.
      loadModule(kind == .rxe ? "rdma_rxe" : "siw")
      var socket = try Self.openSocket()
      let request = RDMALinkRequest(name: name, kind: kindName, interface: interface)
      do throws(NetlinkError) {
        _ = try socket.request(
          type: RDMALinkRequest.type, payload: request.payload,
          until: .milliseconds(Self.answerMilliseconds))
      } catch {
        if error.errno == SystemError.exists.errno { return }
        throw error
      }
    }
  }
#endif
