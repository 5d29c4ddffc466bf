// SPDX-License-Identifier: Apache-2.0
// Looks, while a device has no connection, whether the system goes down, and says in the kernel log
// what follows from it. Allocates nothing and opens nothing after it was made.

import CLinux
import LinuxSystem
import WireFormat

struct ShutdownWatch: ~Copyable {
  static let lookMilliseconds: UInt64 = 1000

  private let signs: ShutdownSigns
  private var patience: ShutdownPatience
  private var log: KeeperLog
  private let deviceName: [UInt8]
  private var isRestart = false
  /// When to look again, as long as there is no connection.
  private(set) var next = MonotonicTime(nanoseconds: 0)

  init(
    _ signs: ShutdownSigns, patience: ShutdownPatience, device: ByteString,
    log: consuming KeeperLog
  ) {
    self.signs = signs
    self.patience = patience
    self.log = log
    deviceName = device.bytes
  }

  /// True once: from here on every request is to fail. May not return at all: when the system has
  /// not ended long after that, it ends the machine.
  mutating func look(isServed: Bool, at now: MonotonicTime) -> Bool {
    if isServed {
      _ = patience.order(isServed: true, isGoingDown: false, at: now)
      return false
    }
    guard next <= now else { return false }
    next = now.advanced(byMilliseconds: Self.lookMilliseconds)
    let order = patience.order(
      isServed: false, isGoingDown: signs.isGoingDown, isAbandoned: signs.isAbandoned, at: now)
    switch order {
    case .nothing: return false
    case .warn:
      isRestart = signs.isRestart
      log.begin(.warning, deviceName)
      log.add("the system is going down and its server is away; requests wait for ")
      log.add(patience.absenceSeconds)
      log.add(" s more")
      log.end()
      return false
    case .refuse:
      log.begin(.error, deviceName)
      log.add("the system is going down and its server was away for ")
      log.add(patience.absenceSeconds)
      log.add(" s; every request fails from here on, what was not written is lost")
      log.end()
      return true
    case .endMachine:
      endMachine()
      return false
    }
  }

  private mutating func endMachine() {
    let end = signs.end(isRestart: isRestart)
    log.begin(.error, deviceName)
    log.add("the system has not ended since its requests began to fail; ")
    log.add(end.text)
    log.end()
    switch end {
    case .powerOff: _ = clinux_reboot(CInt(clinux_POWER_OFF))
    case .restart: _ = clinux_reboot(CInt(clinux_RESTART))
    case .halt: _ = clinux_reboot(CInt(clinux_HALT))
    }
  }
}
