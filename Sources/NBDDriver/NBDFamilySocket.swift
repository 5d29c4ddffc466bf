// SPDX-License-Identifier: Apache-2.0
import CLinux
public import LinuxSystem
public import NetlinkProtocol
import WireFormat

/// The kernel's nbd driver through generic netlink.
public struct NBDFamilySocket: ~Copyable {
  private var socket: NetlinkSocket
  public let family: GenericFamily

  private init(socket: consuming NetlinkSocket, family: GenericFamily) {
    self.socket = socket
    self.family = family
  }

  /// Nil when the driver is not there or too old, even after its module was asked for: the
  /// question makes the kernel run modprobe with the family's alias; where that finds nothing
  /// (no alias list in a small initramfs) the module is asked for by its name.
  public static func open(
    until deadline: Deadline
  ) throws(NetlinkError) -> NBDFamilySocket? {
    var socket: NetlinkSocket
    do { socket = try NetlinkSocket() } catch { throw .failed(error) }
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
  ) throws(NetlinkError) -> [NBDKernelMessage] {
    var answers: [NBDKernelMessage] = []
    for message in try socket.request(type: family.id, payload: payload, until: deadline) {
      do { answers.append(try NBDKernelMessage(decoding: message)) } catch {
        throw .malformed(error)
      }
    }
    return answers
  }

  /// A socket of its own that hears LINK_DEAD from here on; the caller closes it.
  public func openEvents() throws(NetlinkError) -> CInt {
    guard let group = family.group(named: NBDFamily.multicastGroup) else {
      throw .refused(.noSuchFile, kernelText: nil)
    }
    do {
      let socket = try NetlinkSocket()
      try socket.join(group: group)
      return socket.release()
    } catch { throw .failed(error) }
  }
}
