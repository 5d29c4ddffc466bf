// SPDX-License-Identifier: Apache-2.0
// An RNBD device becomes a ublk device, and is taken up again: the process that carries its data makes
// the session, because what a session registers and connects does not outlive a fork.

#if ROOTLINK_RDMA
  import CLinux
  import LinuxSystem
  import RDMAVerbs
  import RNBDClient
  import RNBDProtocol
  import RTRSProtocol
  import UblkDriver
  import WireFormat

  enum RNBDProcess {
    /// Requests that the kernel has out at a time: their data lie in registered memory, 128 KiB each.
    static let queueDepth: UInt16 = 64
    /// As large as Linux's server takes by default, and more than most requests are.
    static let requestByteCountMaximum: UInt32 = 128 << 10
    /// What a path allocates that comes back: connection identifiers and queue pairs.
    static let reserveByteCount = 2 << 20
    /// For paths and the answer of the server. Longer than it has a session whose client died: 35 s.
    static let openMilliseconds: UInt64 = 45_000

    /// What the process tells of the device that it has opened.
    struct Opened {
      static let byteCount = 1 + OpenAnswer.byteCount + 4
      var answer: OpenAnswer
      var dataByteCountMaximum: UInt32

      var encoded: [UInt8] {
        var bytes: [UInt8] = [0]
        bytes.append(encoding: answer)
        bytes.append(native: dataByteCountMaximum)
        return bytes
      }

      init(answer: OpenAnswer, dataByteCountMaximum: UInt32) {
        self.answer = answer
        self.dataByteCountMaximum = dataByteCountMaximum
      }

      init?(decoding bytes: [UInt8]) {
        guard bytes.count == Self.byteCount,
          let answer = try? OpenAnswer(
            decoding: bytes.span.extracting(1..<(1 + OpenAnswer.byteCount)))
        else { return nil }
        self.answer = answer
        dataByteCountMaximum = bytes.span.native(UInt32.self, at: 1 + OpenAnswer.byteCount)
      }
    }

    static func start(
      _ plan: RNBDPlan, device: UblkDevice, information: DeviceInformation, page: UblkStatePage
    ) throws(UblkProcessError) -> (process: UInt32, opened: Opened) {
      let started = try UblkProcess.start(
        readyMilliseconds: openMilliseconds + UblkProcess.readyMilliseconds
      ) { surroundings, ready in
        carry(plan, device, information, page, surroundings, ready: ready)
      }
      spareFromKillall(started.process, device: device.name)
      guard let opened = Opened(decoding: started.told) else {
        _ = clinux_kill(CInt(started.process), 9)
        throw .silent
      }
      return (started.process, opened)
    }

    /// In the child; returns when the device is gone.
    private static func carry(
      _ plan: RNBDPlan, _ device: UblkDevice, _ information: DeviceInformation,
      _ page: UblkStatePage, _ surroundings: UblkSurroundings, ready: consuming FileDescriptor
    ) {
      becomeKeeper(named: "rootlink-ublk", keeping: [ready.rawValue] + surroundings.descriptors)
      let descriptor = surroundings.log
      var log = KeeperLog(descriptor: descriptor, isKernelLog: true)
      for failure in TaskGuard.applyAll() {
        log.warn(device.name, failure.guard.text, failure.error)
      }
      let depth = information.queueDepth
      let sizes = TransportSizes(
        requestCount: depth, dataByteCount: requestByteCountMaximum,
        connectionCount: UInt16(plan.connectionCount) + 1)
      let transport: RDMATransport
      do { transport = try RDMATransport(plan.paths, sizes: sizes) } catch {
        return tell(
          ready, RNBDFailure(reason: error.report.reason, advice: error.report.advice))
      }
      let queue: UblkQueue
      do { queue = try UblkQueue(device, depth: depth) } catch {
        return UblkProcess.tell(ready, error.report.reason)
      }
      let ring: IORing
      do { ring = try IORing(entryCount: 256, .oneThread) } catch {
        return UblkProcess.tell(ready, UblkError.ring(error).report.reason)
      }
      var limits = ClientLimits()
      limits.inFlightMaximum = Int(depth)
      if plan.payloadByteCount > 0 { limits.dataByteCount = UInt32(plan.payloadByteCount) }
      var uuids: [RTRSUUID] = []
      for _ in plan.paths { uuids.append(randomIdentifier()) }
      let session = ClientSession(
        uuid: randomIdentifier(), name: plan.session, paths: uuids,
        connectionCount: sizes.connectionCount, requestCount: depth, policy: plan.policy,
        limits: limits, at: MonotonicTime.now.nanoseconds)
      let shutdown = ShutdownWatch(
        surroundings.signs, patience: ShutdownPatience(absenceSeconds: plan.shutdownTimeSeconds),
        device: device.name, log: KeeperLog(descriptor: descriptor, isKernelLog: true))
      var engine = RNBDEngine(
        plan, queue: queue, transport: transport, session: session, ring: ring, page: page,
        shutdown: shutdown, log: log, device: device.name)
      let opened: Opened
      do throws(RNBDFailure) {
        let (answer, dataByteCount) = try engine.open(until: .milliseconds(openMilliseconds))
        opened = Opened(
          answer: answer, dataByteCountMaximum: min(dataByteCount, requestByteCountMaximum))
        guard plan.byteCount == 0 || plan.byteCount == answer.sectorCount &* 512 else {
          throw RNBDFailure(
            reason: "the server's device has another size than before",
            advice: "detach, and attach again")
        }
      } catch { return tell(ready, error) }
      do { try engine.start() } catch {
        return UblkProcess.tell(ready, "io_uring: \(error.text)")
      }
      let told = opened.encoded
      do { try AllocationSeal.seal(reserveByteCount: reserveByteCount) } catch {
        return UblkProcess.tell(ready, "the seal on allocation: \(error.text)")
      }
      do { try ready.write(told) } catch { return }
      _ = clinux_close(ready.release())
      do { try engine.run() } catch { clinux_exit_now(1) }
      clinux_exit_now(0)
    }

    private static func randomIdentifier() -> RTRSUUID {
      RTRSUUID(high: clinux_random(), low: clinux_random())
    }

    /// Reason and advice, in two lines.
    private static func tell(_ ready: consuming FileDescriptor, _ failure: RNBDFailure) {
      UblkProcess.tell(ready, failure.reason + "\n" + failure.advice)
    }
  }

  extension UblkDevice {
    /// Makes the device, starts who carries its data, then the device itself.
    static func attach(
      _ plan: RNBDPlan, index: UInt32?, isReadOnly: Bool
    ) throws(UblkAttachError) -> (device: UblkDevice, opened: RNBDProcess.Opened) {
      let control = try openControl()
      let information: DeviceInformation
      do throws(UblkError) {
        try control.checkFeatures()
        information = try control.addDevice(
          DeviceInformation(
            queueDepth: RNBDProcess.queueDepth,
            requestByteCountMaximum: RNBDProcess.requestByteCountMaximum,
            device: index ?? DeviceInformation.anyDevice, features: UblkControl.needed))
      } catch { throw .driver(error) }
      let device = UblkDevice(index: information.device)
      do throws(UblkAttachError) {
        let opened = try device.bringUp(plan, information, isReadOnly: isReadOnly, control)
        return (device, opened)
      } catch {
        try? control.deleteDevice(device.index)
        device.forget()
        throw error
      }
    }

    private func bringUp(
      _ plan: RNBDPlan, _ information: DeviceInformation, isReadOnly: Bool,
      _ control: borrowing UblkControl
    ) throws(UblkAttachError) -> RNBDProcess.Opened {
      let page = try page(isNew: true)
      let started: (process: UInt32, opened: RNBDProcess.Opened)
      do {
        started = try RNBDProcess.start(plan, device: self, information: information, page: page)
      } catch { throw .process(error) }
      do throws(UblkAttachError) {
        let parameters: DeviceParameters
        do throws(UblkGeometryError) {
          parameters = try DeviceParameters(
            UblkExport(started.opened, isReadOnly: isReadOnly),
            requestByteCountMaximum: information.requestByteCountMaximum)
        } catch { throw .driver(.geometry(error)) }
        var plan = plan
        plan.deviceIndex = index
        plan.byteCount = started.opened.answer.sectorCount &* 512
        plan.payloadByteCount = UInt64(parameters.requestSectorCountMaximum) * 512
        do {
          try replaceFile(keeperPlanPath, with: plan.encoded, mode: 0o600)
        } catch { throw .state(keeperPlanPath, error) }
        do throws(UblkError) {
          try control.setParameters(parameters, of: index)
          try control.startDevice(index, server: started.process)
          try makeNode()
        } catch { throw .driver(error) }
      } catch {
        _ = clinux_kill(CInt(started.process), 9)
        throw error
      }
      return started.opened
    }
  }

  extension UblkExport {
    init(_ opened: RNBDProcess.Opened, isReadOnly: Bool) {
      let answer = opened.answer
      self.init(byteCount: answer.sectorCount &* 512)
      minimumBlockByteCount = UInt32(answer.logicalBlockByteCount)
      preferredBlockByteCount = max(
        UInt32(answer.physicalBlockByteCount), UInt32(answer.logicalBlockByteCount))
      maximumPayloadByteCount = opened.dataByteCountMaximum
      self.isReadOnly = isReadOnly
      takesFlush = answer.cachePolicy.contains(.writeBack)
      takesFUA = answer.cachePolicy.contains(.fua)
      takesTrim = answer.discardSectorCountMaximum > 0 && !isReadOnly
      takesWriteZeroes = answer.writeZeroesSectorCountMaximum > 0 && !isReadOnly
      trimByteCountMaximum = UInt64(answer.discardSectorCountMaximum) * 512
      writeZeroesByteCountMaximum = UInt64(answer.writeZeroesSectorCountMaximum) * 512
    }
  }
#endif
