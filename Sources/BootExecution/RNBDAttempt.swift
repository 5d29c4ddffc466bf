// SPDX-License-Identifier: Apache-2.0
// The part of an attempt that attaches a device of an RNBD server.

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
    func attachRNBD(_ book: inout AddressBook) throws(AttemptError) -> AttachedTarget {
      loadRDMAModules()
      guard hasRDMADevice else { throw .noRDMADevice }
      let plan = try rnbdPlan(&book)
      let start = MonotonicTime.now
      let made: (device: UblkDevice, opened: RNBDProcess.Opened)
      do {
        made = try UblkDevice.attach(
          plan, index: target.device?.number, isReadOnly: target.accessMode == .readOnly)
      } catch {
        // What the process behind the device says has two lines.
        guard case .process(.failed(let text)) = error, let (reason, advice) = text.cut(at: 0x0a)
        else { throw .ublk(error) }
        throw .rnbd(reason: reason, advice: advice)
      }
      let device = made.device
      let attachMilliseconds = MonotonicTime.now.milliseconds(since: start)
      let looked = MonotonicTime.now
      do {
        var head: [UInt8] = []
        _ = try FileDescriptor.open(device.node).read(into: &head, maximum: 4096)
      } catch {
        try? device.end(isForced: true)
        throw .firstRead(device: device.node, error)
      }
      let server = plan.paths[0].destination
      let record = AttachmentRecord(
        server: server.text, export: plan.deviceName.text, attachedSeconds: wallClockSeconds(),
        ownerThread: 0, backendIdentifier: "",
        connectionCount: plan.connectionCount * UInt32(plan.paths.count))
      try? replaceFile(device.recordPath, with: record.encoded)  // For `rootlink status`.
      return AttachedTarget(
        device: .ublk(device),
        export: NegotiatedExport(
          name: plan.deviceName.text, byteCount: device.sizeByteCount,
          flags: target.accessMode == .readOnly ? .readOnly : [], blockSizes: nil),
        server: server, local: localAddress(towards: server) ?? plan.paths[0].source,
        connectionCount: Int(plan.connectionCount) * plan.paths.count, connectMilliseconds: 0,
        negotiateMilliseconds: 0, attachMilliseconds: attachMilliseconds,
        firstReadMilliseconds: MonotonicTime.now.milliseconds(since: looked),
        partitions: device.partitions, keeperError: nil)
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
      let accessMode: RNBDProtocol.AccessMode =
        switch target.accessMode {
        case .readOnly: .readOnly
        case .readWrite: .readWrite
        case .migration: .migration
        }
      let policy: RTRSProtocol.PathPolicy =
        switch target.pathPolicy {
        case .roundRobin: .roundRobin
        case .minLatency: .minLatency
        case .minInFlight, nil: .minInFlight
        }
      do throws(WireError) {
        return RNBDPlan(
          deviceIndex: 0, session: try SessionName(usable(target.session)),
          deviceName: try RNBDProtocol.DeviceName(target.devicePath ?? ""),
          accessMode: accessMode, paths: paths,
          connectionCount: min(max(target.queueCount ?? target.connectionCount, 1), 15),
          policy: policy, deadTimeSeconds: UInt64(target.deadTimeSeconds ?? 0),
          shutdownTimeSeconds: target.shutdownTimeSeconds.map { UInt64($0) }
            ?? ShutdownPatience.absenceSecondsDefault)
      } catch { throw .rnbdName(error) }
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

  extension UblkDevice {
    /// Starts another process for a device of an RNBD server whose own is gone.
    func takeUp(
      _ plan: RNBDPlan, _ information: DeviceInformation, _ control: borrowing UblkControl
    ) throws(UblkAttachError) -> UInt32 {
      let page = try page(isNew: false)
      let started: (process: UInt32, opened: RNBDProcess.Opened)
      do {
        started = try RNBDProcess.start(plan, device: self, information: information, page: page)
      } catch { throw .process(error) }
      do { try control.endRecovery(index, server: started.process) } catch {
        _ = clinux_kill(CInt(started.process), 9)
        throw .driver(error)
      }
      return started.process
    }
  }
#endif
