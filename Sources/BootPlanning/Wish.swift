// SPDX-License-Identifier: Apache-2.0

import WireFormat

/// A target before devices are handed out, with what its parameter says about the root.
struct Wish {
  var target: AttachmentTarget
  /// The device that the value itself names, perhaps with a partition.
  var device: DeviceName?
  /// `root=` and `nbddev=` do not change `device`: it is part of the parameter's name.
  var isDeviceFixed = false
  var fileSystem: ByteString?
  var mountOptions = MountOptions()
  var isOverlay = false
}
