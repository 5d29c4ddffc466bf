// SPDX-License-Identifier: Apache-2.0
// The part of an attempt that attaches devices of an RNBD server, all over one session.

#if ROOTLINK_RDMA
  import BootPlanning
  import CLinux
  import LinuxSystem
  import NBDDriver
  import NBDProtocol
  import RDMAVerbs
  import RNBDClient
  import RNBDProtocol
  import RTRSProtocol
  import UblkDriver
  import WireFormat

  extension TargetAttempt {
    func attachRNBD(_ book: inout AddressBook) throws(AttemptError) -> [AttachedTarget] {
      loadRDMAModules()
      guard hasRDMADevice else { throw .noRDMADevice }
      let plan = try rnbdPlan(&book)
      let start = MonotonicTime.now
      var indices: [UInt32?] = []
      for target in together { indices.append(target.device?.number) }
      let devices: [UblkDevice]
      do { devices = try UblkDevice.attach(.rnbd(plan), indices: indices) } catch {
        // What the process behind the devices says has two lines.
        guard case .process(.failed(let text)) = error, let (reason, advice) = text.cut(at: 0x0a)
        else { throw .ublk(error) }
        throw .rnbd(reason: reason, advice: advice)
      }
      let attachMilliseconds = MonotonicTime.now.milliseconds(since: start)
      var attached: [AttachedTarget] = []
      for (number, device) in devices.enumerated() {
        let looked = MonotonicTime.now
        do {
          var head: [UInt8] = []
          _ = try FileDescriptor.open(device.node).read(into: &head, maximum: 4096)
        } catch {
          for device in devices { try? device.end(isForced: true) }
          throw .firstRead(device: device.node, error)
        }
        let name = plan.disks[number].name.text
        let server = plan.paths[0].destination
        let record = AttachmentRecord(
          server: server.text, export: name, attachedSeconds: wallClockSeconds(),
          ownerThread: 0, backendIdentifier: "",
          connectionCount: plan.connectionCount * UInt32(plan.paths.count))
        try? replaceFile(device.recordPath, with: record.encoded)  // For `rootlink status`.
        attached.append(
          AttachedTarget(
            device: .ublk(device),
            export: NegotiatedExport(
              name: name, byteCount: device.sizeByteCount,
              flags: plan.disks[number].accessMode == .readOnly ? .readOnly : [],
              blockSizes: nil),
            server: server, local: localAddress(towards: server) ?? plan.paths[0].source,
            connectionCount: Int(plan.connectionCount) * plan.paths.count, connectMilliseconds: 0,
            negotiateMilliseconds: 0, attachMilliseconds: attachMilliseconds,
            firstReadMilliseconds: MonotonicTime.now.milliseconds(since: looked),
            partitions: device.partitions, keeperError: nil))
      }
      return attached
    }

    private func rnbdPlan(_ book: inout AddressBook) throws(AttemptError) -> RNBDPlan {
      var paths: [PathAddresses] = []
      for path in target.paths {
        if case .gid(let identifier) = path.server {
          var source: SocketAddress?
          if case .gid(let local) = path.source {
            source = SocketAddress(gid: local.bytes, port: 0)
          }
          paths.append(
            PathAddresses(
              source: source, destination: SocketAddress(gid: identifier.bytes, port: path.port),
              isIB: true))
          continue
        }
        let addresses = try book.addresses(of: path.server, port: path.port, until: deadline)
        var source: SocketAddress?
        if let local = path.source {
          source = try book.addresses(of: local, port: 0, until: deadline).first
        }
        guard let first = addresses.first else { continue }
        paths.append(PathAddresses(source: source, destination: first))
      }
      let policy: RTRSProtocol.PathPolicy =
        switch target.pathPolicy {
        case .roundRobin: .roundRobin
        case .minLatency: .minLatency
        case .minInFlight, nil: .minInFlight
        }
      var disks: [RNBDPlan.Disk] = []
      for target in together {
        let name: RNBDProtocol.DeviceName
        do throws(WireError) { name = try RNBDProtocol.DeviceName(target.devicePath ?? "") } catch {
          throw .rnbdName(error)
        }
        disks.append(RNBDPlan.Disk(index: 0, name: name, accessMode: accessMode(of: target)))
        if let server = paths.first?.destination, let device = device(name, at: server) {
          throw .attachedAlready(name: name.text, device: device.node)
        }
      }
      do throws(WireError) {
        return RNBDPlan(
          session: try SessionName(freeName(usable(target.session))), disks: disks, paths: paths,
          connectionCount: min(max(target.queueCount ?? target.connectionCount, 1), 15),
          policy: policy, deadTimeSeconds: UInt64(target.deadTimeSeconds ?? 0),
          shutdownTimeSeconds: target.shutdownTimeSeconds.map { UInt64($0) }
            ?? ShutdownPatience.absenceSecondsDefault)
      } catch { throw .rnbdName(error) }
    }

    /// What is attached already of this server and session under that name.
    private func device(
      _ name: RNBDProtocol.DeviceName, at server: SocketAddress
    ) -> UblkDevice? {
      let session = usable(target.session)
      for device in UblkDevice.all() {
        guard case .rnbd(let plan) = device.plan else { continue }
        for disk in plan.disks where disk.index == device.index {
          if plan.has(disk, called: name, of: session, at: server) { return device }
        }
      }
      return nil
    }

    private func accessMode(of target: AttachmentTarget) -> RNBDProtocol.AccessMode {
      switch target.accessMode {
      case .readOnly: .readOnly
      case .readWrite: .readWrite
      case .migration: .migration
      }
    }

    /// Servers take a name once, and a session that is there takes no further device.
    private func freeName(_ name: ByteString) -> ByteString {
      var taken: [ByteString] = []
      for device in UblkDevice.all() {
        if case .rnbd(let plan) = device.plan { taken.append(plan.session.text) }
      }
      var free = name
      var number = 0
      while taken.contains(free) {
        number += 1
        free = name + ByteString("_\(number)")
      }
      return free
    }

    /// A session's name has neither dots nor slashes; the one that is made of addresses has.
    private func usable(_ name: ByteString?) -> ByteString {
      var bytes = (name ?? "rootlink").bytes
      for index in bytes.indices where bytes[index] == 0x2e || bytes[index] == 0x2f {
        bytes[index] = 0x5f
      }
      return ByteString(bytes)
    }

    /// The address that the route to the server begins at: its interface is to be left alone.
    private func localAddress(towards server: SocketAddress) -> SocketAddress? {
      guard let socket = try? DatagramSocket.connect(to: server) else { return nil }
      return socket.localAddress
    }
  }

  /// What shows RDMA devices to programs, where it is a module that was not loaded.
  func loadRDMAModules() {
    for (module, sign) in [
      ("rdma_ucm", "/sys/class/misc/rdma_cm"), ("ib_uverbs", "/sys/class/infiniband_verbs"),
    ] as [(ByteString, ByteString)] where !fileExists(sign) {
      loadModule(module)
    }
  }

  var hasRDMADevice: Bool {
    !((try? listDirectory("/sys/class/infiniband", limit: 64)) ?? []).isEmpty
  }
#endif
