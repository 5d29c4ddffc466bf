// SPDX-License-Identifier: Apache-2.0
// The leases that count for a plan: those of one interface, laid over each other. The boot
// interface's, when it is known and has one; else those of the best and newest file. Files that
// name no interface come in at their rank.

import WireFormat

struct LeaseSelection {
  /// Nil when no file was a lease.
  private(set) var lease: Lease?
  /// Of the files that `lease` was made from, best first.
  private(set) var paths: [ByteString] = []
  private(set) var warnings: [PlanWarning] = []

  private struct Candidate {
    var lease: Lease
    var rank: Int
    var isPersistent: Bool

    func goesBefore(_ other: Candidate) -> Bool {
      if rank != other.rank { return rank < other.rank }
      if lease.modificationTime != other.lease.modificationTime {
        return lease.modificationTime > other.lease.modificationTime
      }
      return lease.path.bytes.lexicographicallyPrecedes(other.lease.path.bytes)
    }
  }

  init(from input: PlanningInput, network: NetworkParameters) {
    var candidates: [Candidate] = []
    if input.leaseFiles.count > PlanningInput.leaseFileCountMaximum {
      warnings.append(
        .tooManyLeaseFiles(
          count: input.leaseFiles.count, maximum: PlanningInput.leaseFileCountMaximum))
    }
    for path in input.oversizedLeasePaths { warn(tooLong: path) }
    for file in input.leaseFiles.prefix(PlanningInput.leaseFileCountMaximum) {
      guard let source = LeaseSource(file.path) else { continue }
      guard file.bytes.count <= LeaseFile.byteCountMaximum else {
        warn(tooLong: file.path)
        continue
      }
      for lease in Self.leases(in: file, from: source, of: input)
      where Self.isBelievable(lease, in: input, network: network) {
        candidates.append(
          Candidate(
            lease: lease, rank: source.rank(in: input.environment),
            isPersistent: source.isPersistent))
      }
    }
    select(from: candidates, bootInterface: network.bootInterface)
  }

  private mutating func warn(tooLong path: ByteString) {
    warnings.append(.leaseFileTooLong(path: path, maximum: LeaseFile.byteCountMaximum))
  }

  private mutating func select(from candidates: [Candidate], bootInterface: ByteString?) {
    let sorted = candidates.ordered { $0.goesBefore($1) }
    var interface = ByteString()
    for candidate in sorted where !candidate.lease.interface.isEmpty {
      if interface.isEmpty { interface = candidate.lease.interface }
      if candidate.lease.interface == bootInterface {
        interface = candidate.lease.interface
        break
      }
    }
    var chosen: [Candidate] = []
    var hasFresh = false
    for candidate in sorted {
      guard candidate.lease.interface.isEmpty || candidate.lease.interface == interface else {
        continue
      }
      chosen.append(candidate)
      if !candidate.isPersistent { hasFresh = true }
    }
    for candidate in chosen where !(hasFresh && candidate.isPersistent) {
      paths.append(candidate.lease.path)
      if lease == nil {
        lease = candidate.lease
      } else {
        lease?.fillGaps(from: candidate.lease)
      }
    }
    if lease?.interface.isEmpty == true, let bootInterface { lease?.interface = bootInterface }
  }

  private static func leases(
    in file: LeaseFile, from source: LeaseSource, of input: PlanningInput
  ) -> [Lease] {
    var interface = source.interface
    if let index = source.interfaceIndex {
      for known in input.interfaces where known.index == index { interface = known.name }
    }
    let producer: Lease.Producer =
      switch source.format {
      case .netConf: .klibc
      case .dhcpopts: .dracut
      case .networkManager: .networkManager
      case .networkd: .networkd
      case .kernelPnp: .kernel
      case .dhclient: .dhclient
      case .dhcpcd: .dhcpcd
      }
    var lease = Lease(
      producer: producer, interface: interface, path: file.path,
      modificationTime: file.modificationTime)
    switch source.format {
    case .netConf: lease.readNetConf(file.bytes)
    case .dhcpopts: lease.readDhcpopts(file.bytes)
    case .networkManager: lease.readNetworkManager(file.bytes)
    case .networkd: lease.readNetworkd(file.bytes)
    case .kernelPnp: lease.readKernelPnp(file.bytes)
    case .dhcpcd: return lease.readPacket(file.bytes) ? [lease] : []
    case .dhclient:
      var leases = DhclientLeases.read(file)
      for index in leases.indices where leases[index].interface.isEmpty {
        leases[index].interface = interface
      }
      return leases
    }
    return lease.isEmpty ? [] : [lease]
  }

  /// From an `ip=` in dracut's form, and from a peer in its second field, kernel autoconfiguration
  /// makes up a boot server.
  private static func isBelievable(
    _ lease: Lease, in input: PlanningInput, network: NetworkParameters
  ) -> Bool {
    guard lease.producer == .kernel, lease.isStatic else { return true }
    return input.environment != .dracut && !network.hasDracutForm
  }
}

extension Lease {
  /// Nothing was learnt: a file of another kind, or of a network that is not there yet.
  fileprivate var isEmpty: Bool {
    address == nil && nextServer == nil && rootPath == nil && serverName == nil
      && dhcpServer == nil && nameServers.isEmpty
  }
}
