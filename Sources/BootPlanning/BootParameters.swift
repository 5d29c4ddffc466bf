// SPDX-License-Identifier: Apache-2.0
// The words of the command line that matter here, sorted by name. Single values: the last one
// wins, as in the kernel.

import WireFormat

struct BootParameters {
  var roots: [KernelParameter] = []
  var netroots: [KernelParameter] = []
  var rnbdRoots: [KernelParameter] = []
  var nbdRoot: KernelParameter?
  var nbdDevice: KernelParameter?
  var nbdPort: KernelParameter?
  var nbdServer: KernelParameter?
  // Aliases: mkinitcpio's hooks, Arch's install image, LibreELEC.
  var aliasHost: KernelParameter?
  var aliasName: KernelParameter?
  var aliasPort: KernelParameter?
  var archisoServer: KernelParameter?
  var archisoName: KernelParameter?
  var libreelec: [KernelParameter] = []
  /// `nbd0=` to `nbd7=`, in the order of their first mention; the last of each wins.
  var numbered: [(number: UInt32, parameter: KernelParameter)] = []

  var rootFileSystem: ByteString?
  var rootFlags: ByteString?
  var isReadOnly: Bool?
  var rootWait = DeviceWait.usual
  var rootDelaySeconds: UInt32?
  var initProgram: ByteString?

  var timeout: KernelParameter?
  var connections: KernelParameter?
  var deadTime: KernelParameter?
  var shutdownTime: KernelParameter?
  var silence: KernelParameter?
  var answer: KernelParameter?
  var driver: KernelParameter?
  var softRDMA: KernelParameter?
  var pathPolicy: KernelParameter?
  var paths: [KernelParameter] = []
  var replicas: [KernelParameter] = []

  var ip: [ByteString] = []
  var nfsAddresses: [ByteString] = []
  var bootInterfaceAddress: ByteString?
  var bootDevice: ByteString?
  var nameServers: [ByteString] = []

  static let repeatCountMaximum = 64

  init(_ words: [KernelParameter]) {
    for word in words { read(word) }
  }

  private mutating func read(_ word: KernelParameter) {
    guard let value = word.value else {
      if word.isNamed("ro") { isReadOnly = true }
      if word.isNamed("rw") { isReadOnly = false }
      if word.isNamed("rootwait") { rootWait = .forEver }
      return
    }
    guard let first = word.name.bytes.first else { return }
    switch first {
    case 0x72: readRootWord(word, value)
    case 0x6e: readNBDWord(word, value)
    default: readOther(word, value)
    }
  }

  /// Names with `r`.
  private mutating func readRootWord(_ word: KernelParameter, _ value: ByteString) {
    if word.isNamed("root") {
      Self.append(word, to: &roots)
    } else if word.isNamed("rootfstype") {
      rootFileSystem = value
    } else if word.isNamed("rootflags") {
      rootFlags = value
    } else if word.isNamed("rootwait") {
      if let seconds = value.decimal(maximum: UInt64(UInt32.max)) {
        rootWait = .seconds(UInt32(truncatingIfNeeded: seconds))
      }
    } else if word.isNamed("rootdelay") {
      rootDelaySeconds = value.decimal(maximum: UInt64(UInt32.max)).map {
        UInt32(truncatingIfNeeded: $0)
      }
    } else if word.isNamed("rootlink.timeout") {
      timeout = word
    } else if word.isNamed("rootlink.connections") {
      connections = word
    } else if word.isNamed("rootlink.deadtime") {
      deadTime = word
    } else if word.isNamed("rootlink.shutdowntime") {
      shutdownTime = word
    } else if word.isNamed("rootlink.silence") {
      silence = word
    } else if word.isNamed("rootlink.answer") {
      answer = word
    } else if word.isNamed("rootlink.driver") {
      driver = word
    } else if word.isNamed("rootlink.rdma") {
      softRDMA = word
    } else if word.isNamed("rootlink.policy") {
      pathPolicy = word
    } else if word.isNamed("rootlink.path") {
      Self.append(word, to: &paths)
    } else if word.isNamed("rootlink.replica") {
      Self.append(word, to: &replicas)
    } else if word.isNamed("rnbd_root") {
      Self.append(word, to: &rnbdRoots)
    }
  }

  /// Names with `n`.
  private mutating func readNBDWord(_ word: KernelParameter, _ value: ByteString) {
    if word.isNamed("nbdroot") {
      nbdRoot = word
    } else if word.isNamed("netroot") {
      Self.append(word, to: &netroots)
    } else if word.isNamed("nbddev") {
      nbdDevice = word
    } else if word.isNamed("nbdport") {
      nbdPort = word
    } else if word.isNamed("nbdserver") {
      nbdServer = word
    } else if word.isNamed("nbd_host") {
      aliasHost = word
    } else if word.isNamed("nbd_name") {
      aliasName = word
    } else if word.isNamed("nbd_port") {
      aliasPort = word
    } else if word.isNamed("nfsaddrs") {
      nfsAddresses.append(value)
    } else if word.isNamed("nameserver") {
      if nameServers.count < Lease.nameServerCountMaximum { nameServers.append(value) }
    } else if word.name.count == 4, word.name.hasPrefix("nbd") {
      readNumbered(word)
    }
  }

  private mutating func readNumbered(_ word: KernelParameter) {
    let digit = word.name.bytes[3]
    guard digit >= 0x30, digit <= 0x37 else { return }
    let number = UInt32(digit - 0x30)
    for index in numbered.indices where numbered[index].number == number {
      numbered[index].parameter = word
      return
    }
    numbered.append((number, word))
  }

  private mutating func readOther(_ word: KernelParameter, _ value: ByteString) {
    if word.isNamed("ibnbd_root") {
      Self.append(word, to: &rnbdRoots)
    } else if word.isNamed("ip") {
      if ip.count < Self.repeatCountMaximum { ip.append(value) }
    } else if word.isNamed("BOOTIF") {
      bootInterfaceAddress = value
    } else if word.isNamed("bootdev") {
      bootDevice = value
    } else if word.isNamed("archiso_nbd_srv") {
      archisoServer = word
    } else if word.isNamed("archiso_nbd_name") {
      archisoName = word
    } else if word.isNamed("boot") || word.isNamed("disk") {
      if value.hasPrefix("NBD=") { Self.append(word, to: &libreelec) }
    } else if word.isNamed("init") {
      initProgram = value
    }
  }

  /// One more than the limit is kept, so that the planner can say that there are too many.
  private static func append(_ word: KernelParameter, to list: inout [KernelParameter]) {
    if list.count <= repeatCountMaximum { list.append(word) }
  }
}
