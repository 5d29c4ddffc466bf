// SPDX-License-Identifier: Apache-2.0
import CLinux
public import LinuxSystem
public import NetlinkProtocol
import WireFormat

/// The kernel's nbd driver through generic netlink.
public struct NBDFamilySocket: ~Copyable {
  private var socket: GenericNetlinkSocket
  public let family: GenericFamily

  private init(socket: consuming GenericNetlinkSocket, family: GenericFamily) {
    self.socket = socket
    self.family = family
  }

  /// Nil when the driver is not there or too old, even after its module was asked for: the
  /// question makes the kernel run modprobe with the family's alias; where that finds nothing
  /// (no alias list in a small initramfs) the module is asked for by its name.
  public static func open(
    until deadline: Deadline
  ) throws(GenericNetlinkError) -> NBDFamilySocket? {
    var socket: GenericNetlinkSocket
    do { socket = try GenericNetlinkSocket() } catch { throw .failed(error) }
    do {
      let family = try socket.family(named: NBDFamily.name, until: deadline)
      return NBDFamilySocket(socket: socket, family: family)
    } catch {
      guard error.errno == SystemError.noSuchFile.errno else { throw error }
    }
    guard !NBDDevice.moduleIsLoaded else { return nil }
    NBDDevice.loadModule()
    guard NBDDevice.moduleIsLoaded else { return nil }
    do {
      let family = try socket.family(named: NBDFamily.name, until: deadline)
      return NBDFamilySocket(socket: socket, family: family)
    } catch {
      guard error.errno == SystemError.noSuchFile.errno else { throw error }
      return nil
    }
  }

  /// Sends one message of the family; what the driver answered before its acknowledgement.
  public mutating func request(
    _ payload: [UInt8], until deadline: Deadline
  ) throws(GenericNetlinkError) -> [NBDKernelMessage] {
    var answers: [NBDKernelMessage] = []
    for message in try socket.request(type: family.id, payload: payload, until: deadline) {
      do { answers.append(try NBDKernelMessage(decoding: message)) } catch {
        throw .malformed(error)
      }
    }
    return answers
  }

  /// Hears LINK_DEAD from here on. Use a socket that asks nothing: questions drop events.
  public func joinEvents() throws(GenericNetlinkError) {
    guard let group = family.group(named: NBDFamily.multicastGroup) else {
      throw .refused(.noSuchFile, kernelText: nil)
    }
    do { try socket.join(group: group) } catch { throw .failed(error) }
  }

  /// For poll(2).
  public var rawDescriptor: CInt { socket.rawDescriptor }

  /// The next events; none of a datagram that is not the driver's. ENOBUFS: some were lost.
  public func events(until deadline: Deadline) throws(GenericNetlinkError) -> [NBDKernelMessage] {
    var events: [NBDKernelMessage] = []
    for message in try socket.receive(until: deadline) where message.type == family.id {
      do {
        events.append(try NBDKernelMessage(decoding: GenericMessage(decoding: message.payload)))
      } catch { throw .malformed(error) }
    }
    return events
  }
}
