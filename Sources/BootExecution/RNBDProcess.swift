// SPDX-License-Identifier: Apache-2.0
// The process that carries the devices of one RNBD session. It makes the session itself, because what a
// session registers and connects does not outlive a fork.

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
    /// Requests that the kernel has out at a time, of all devices of a session: their data lie in
    /// registered memory, 128 KiB each.
    static let requestCountMaximum = 128
    /// Of one device.
    static func queueDepth(diskCount: Int) -> UInt16 {
      UInt16(min(64, requestCountMaximum / max(1, diskCount)))
    }
    /// As large as Linux's server takes by default, and more than most requests are.
    static let requestByteCountMaximum: UInt32 = 128 << 10
    /// What a path allocates that comes back: connection identifiers and queue pairs.
    static let reserveByteCount = 2 << 20
    /// For paths and the answer of the server. Longer than it has a session whose client died: 35 s.
    static let openMilliseconds: UInt64 = 45_000

    /// What the process tells of the devices that it has opened, behind a 0.
    struct Opened {
      var answers: [OpenAnswer]
      var dataByteCountMaximum: UInt32

      var encoded: [UInt8] {
        var bytes: [UInt8] = [0]
        bytes.append(native: dataByteCountMaximum)
        for answer in answers { bytes.append(encoding: answer) }
        return bytes
      }

      init(answers: [OpenAnswer], dataByteCountMaximum: UInt32) {
        self.answers = answers
        self.dataByteCountMaximum = dataByteCountMaximum
      }

      /// Nil unless it is about `count` devices.
      init?(decoding bytes: [UInt8], count: Int) {
        guard bytes.count == 5 + count * OpenAnswer.byteCount else { return nil }
        dataByteCountMaximum = bytes.span.native(UInt32.self, at: 1)
        answers = []
        for number in 0..<count {
          let start = 5 + number * OpenAnswer.byteCount
          guard
            let answer = try? OpenAnswer(
              decoding: bytes.span.extracting(start..<(start + OpenAnswer.byteCount)))
          else { return nil }
          answers.append(answer)
        }
      }
    }

    /// In the child; returns when the devices are gone.
    static func carry(
      _ whole: RNBDPlan, _ members: [UblkMember], _ surroundings: UblkSurroundings,
      ready: consuming FileDescriptor
    ) {
      becomeKeeper(named: "rootlink-ublk", keeping: [ready.rawValue] + surroundings.descriptors)
      let descriptor = surroundings.log
      let name = members[0].device.name
      var log = KeeperLog(descriptor: descriptor, isKernelLog: true)
      for failure in TaskGuard.applyAll(isInherited: surroundings.nodes >= 0) {
        log.warn(name, failure.guard.text, failure.error)
      }
      var plan = whole
      if plan.isOfAttached {
        // Some of the session's devices may be gone since.
        var indices: [UInt32] = []
        for member in members { indices.append(member.device.index) }
        plan = plan.only(indices: indices)
      }
      guard plan.disks.count == members.count else {
        return UblkProcess.tell(ready, "the devices are not those of the session")
      }
      let depth = members[0].information.queueDepth
      let sizes = TransportSizes(
        requestCount: depth * UInt16(members.count), dataByteCount: requestByteCountMaximum,
        connectionCount: UInt16(plan.connectionCount) + 1)
      let transport: RDMATransport
      do throws(RNBDFailure) { transport = try open(plan.paths, sizes, surroundings) } catch {
        return tell(ready, error)
      }
      var disks: [RNBDDisk] = []
      for (member, disk) in zip(members, plan.disks) {
        do {
          let queue = try UblkQueue(member.device, depth: depth, in: surroundings.nodes)
          disks.append(RNBDDisk(disk, member, queue: queue))
        } catch { return UblkProcess.tell(ready, error.report.reason) }
      }
      for number in [surroundings.nodes, surroundings.processes] where number >= 0 {
        _ = clinux_close(number)
      }
      let ring: IORing
      do { ring = try IORing(entryCount: 256, .oneThread) } catch {
        return UblkProcess.tell(ready, UblkError.ring(error).report.reason)
      }
      let shutdown = ShutdownWatch(
        surroundings.signs, patience: ShutdownPatience(absenceSeconds: plan.shutdownTimeSeconds),
        device: name, log: KeeperLog(descriptor: descriptor, isKernelLog: true))
      var engine = RNBDEngine(
        plan, disks: disks, depth: depth, transport: transport, session: session(plan, sizes),
        ring: ring, shutdown: shutdown, log: log)
      disks = []  // The engine lets go of one that is stopped.
      let opened: Opened
      do throws(RNBDFailure) {
        opened = try engine.open(until: .milliseconds(openMilliseconds))
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

    private static func session(_ plan: RNBDPlan, _ sizes: TransportSizes) -> ClientSession {
      var limits = ClientLimits()
      limits.inFlightMaximum = Int(sizes.requestCount)
      for disk in plan.disks where disk.payloadByteCount > 0 {
        limits.dataByteCount = max(limits.dataByteCount, UInt32(disk.payloadByteCount))
      }
      var uuids: [RTRSUUID] = []
      for _ in plan.paths { uuids.append(randomIdentifier()) }
      return ClientSession(
        uuid: randomIdentifier(), name: plan.session, paths: uuids,
        connectionCount: sizes.connectionCount, requestCount: sizes.requestCount,
        policy: plan.policy, limits: limits, at: MonotonicTime.now.nanoseconds)
    }

    /// Every file that RDMA needs is opened here: in /dev and /sys as process 1 has them, where our own
    /// root is an initramfs that was left. Our root is the same afterwards: a process with another one
    /// would keep it from being unmounted.
    private static func open(
      _ paths: [PathAddresses], _ sizes: TransportSizes, _ surroundings: UblkSurroundings
    ) throws(RNBDFailure) -> RDMATransport {
      var own: CInt = -1
      if surroundings.processes >= 0 {
        do throws(SystemError) {
          own = try FileDescriptor.open("/", .path).release()
          let first = try FileDescriptor.open("1/root", .path, in: surroundings.processes)
          _ = try checked(clinux_enter_root(first.rawValue))
        } catch {
          throw RNBDFailure(
            reason: "the root of process 1: \(error.text)", advice: "look at the kernel log")
        }
      }
      let transport: RDMATransport
      do { transport = try RDMATransport(paths, sizes: sizes) } catch {
        throw RNBDFailure(reason: error.report.reason, advice: error.report.advice)
      }
      if own >= 0 {
        _ = clinux_enter_root(own)
        _ = clinux_close(own)
      }
      return transport
    }

    private static func randomIdentifier() -> RTRSUUID {
      RTRSUUID(high: clinux_random(), low: clinux_random())
    }

    /// Reason and advice, in two lines.
    private static func tell(_ ready: consuming FileDescriptor, _ failure: RNBDFailure) {
      UblkProcess.tell(ready, failure.reason + "\n" + failure.advice)
    }
  }

  extension RNBDPlan {
    /// With those of its devices alone that have these numbers, in their order.
    func only(indices: [UInt32]) -> RNBDPlan {
      var plan = self
      plan.disks = []
      for index in indices {
        for disk in disks where disk.index == index { plan.disks.append(disk) }
      }
      return plan
    }

    /// They are attached already: their numbers and sizes are known.
    var isOfAttached: Bool { disks[0].byteCount > 0 }

    /// What the kernel is to know of each device; nil when `told` is about others.
    func exports(told: [UInt8]) -> [UblkExport]? {
      guard let opened = RNBDProcess.Opened(decoding: told, count: disks.count) else { return nil }
      var exports: [UblkExport] = []
      for (disk, answer) in zip(disks, opened.answers) {
        exports.append(
          UblkExport(
            answer, dataByteCountMaximum: opened.dataByteCountMaximum,
            isReadOnly: disk.accessMode == .readOnly))
      }
      return exports
    }
  }

  extension UblkExport {
    init(_ answer: OpenAnswer, dataByteCountMaximum: UInt32, isReadOnly: Bool) {
      self.init(byteCount: answer.sectorCount &* 512)
      minimumBlockByteCount = UInt32(answer.logicalBlockByteCount)
      preferredBlockByteCount = max(
        UInt32(answer.physicalBlockByteCount), UInt32(answer.logicalBlockByteCount))
      maximumPayloadByteCount = dataByteCountMaximum
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
