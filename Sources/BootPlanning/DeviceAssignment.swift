// SPDX-License-Identifier: Apache-2.0
// Which device each target becomes: what `root=` names, else `nbddev=`, else what the value itself
// names, else the lowest that is left.

import WireFormat

struct DeviceAssignment {
  /// The device that `root=` names.
  var rootDevice: DeviceName?
  /// `nbddev=`.
  var nbdDevice: DeviceName?
  /// `root=/dev/nbd` or `/dev/root`: the first target takes whatever is free.
  var anyDeviceWillDo = false

  /// Sets the devices of the targets, drops those whose device is taken, and says which.
  func assign(to wishes: inout [Wish]) -> [PlanWarning] {
    guard !wishes.isEmpty else { return [] }
    if !wishes[0].isDeviceFixed {
      if wishes[0].target.blockProtocol == .nbd, let nbdDevice { wishes[0].device = nbdDevice }
      if let rootDevice, firstBecomes(rootDevice, in: wishes) { wishes[0].device = rootDevice }
    }
    var warnings: [PlanWarning] = []
    var taken: [DeviceName] = []
    var kept: [Wish] = []
    for wish in wishes {
      if let device = wish.device?.wholeDevice {
        if taken.contains(device) {
          warnings.append(
            .deviceAlreadyTaken(device, parameter: Self.withoutEquals(wish.target.origin)))
          continue
        }
        taken.append(device)
      }
      kept.append(wish)
    }
    for index in kept.indices {
      if kept[index].device == nil, index > 0 || !anyDeviceWillDo {
        kept[index].device = Self.lowest(kept[index].target.driver, notIn: taken)
      }
      if let device = kept[index].device?.wholeDevice {
        kept[index].target.device = device
        if kept[index].target.blockProtocol == .nbd { kept[index].target.driver = device.driver }
        taken.append(device)
      }
    }
    wishes = kept
    return warnings
  }

  /// Of several targets numbered from 0, `root=` may mean another one than the first.
  private func firstBecomes(_ device: DeviceName, in wishes: [Wish]) -> Bool {
    if wishes.count == 1 { return true }
    for wish in wishes.dropFirst() where wish.device?.wholeDevice == device.wholeDevice {
      return false
    }
    return device.driver != wishes[0].target.driver || Int(device.number) >= wishes.count
  }

  private static func lowest(
    _ driver: DeviceName.Driver, notIn taken: [DeviceName]
  ) -> DeviceName {
    var device = DeviceName(driver, 0)
    while taken.contains(device) { device.number += 1 }
    return device
  }

  private static func withoutEquals(_ origin: ByteString) -> ByteString {
    ByteString(origin.bytes.last == .equals ? origin.bytes.dropLast() : origin.bytes[...])
  }
}
