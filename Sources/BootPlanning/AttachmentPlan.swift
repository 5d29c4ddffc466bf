// SPDX-License-Identifier: Apache-2.0
// What the planner hands out: devices to attach and the root to mount from them.

import WireFormat

/// The root file system, as far as the command line and the lease say.
public struct PlannedRoot: Equatable, Sendable {
  /// A node (`/dev/nbd0p1`, `/dev/mapper/x`) or a tag (`UUID=...`); nil when something else than
  /// this program mounts the root.
  public var device: ByteString?
  /// From `rootfstype=`, else from a field of dracut's forms; nil when nothing says so.
  public var fileSystem: ByteString?
  /// Mount options without `ro` and `rw`.
  public var flags: ByteString?
  /// Nil when nothing says so.
  public var isReadOnly: Bool?
  /// A writable layer is wanted over a read-only export.
  public var isOverlay = false
  /// `root=/dev/root` or `root=/dev/nbd`: /dev/root is to be a symbolic link to the device.
  public var needsRootLink = false

  public init() {}
}

/// How long to wait for the root device once it was attached.
public enum DeviceWait: Equatable, Sendable {
  /// As long as whoever waits thinks right: PID 1 of our own 30 s.
  case usual
  /// `rootwait=`; in a plan also `rootdelay=`, and then 30 at least.
  case seconds(UInt32)
  /// `rootwait` alone.
  case forEver
}

/// What a resolver in the initramfs may ask.
public struct ResolverConfiguration: Equatable, Sendable {
  /// Those of the command line, then those of the lease; none twice, and
  /// `Lease.nameServerCountMaximum` at most.
  public var nameServers: [ServerAddress] = []
  /// Of the lease.
  public var searchDomains: [ByteString] = []

  public init() {}
}

/// All that is to be done, decided before anything is.
public struct AttachmentPlan: Equatable, Sendable {
  /// In the order in which they are attached; the first carries the root. Empty: nothing to do.
  public var targets: [AttachmentTarget] = []
  /// To be attached instead when a target fails: `nbdroot=` beside `ibnbd-root=`.
  public var fallbackTargets: [AttachmentTarget] = []
  /// What is to be mounted once `targets` are attached.
  public var root = PlannedRoot()
  /// The root when `fallbackTargets` were used.
  public var fallbackRoot: PlannedRoot?
  /// What was passed over or guessed, for a line on the console each.
  public var warnings: [PlanWarning] = []
  /// How long attaching may be tried; 0 is for ever.
  public var attachTimeoutSeconds: UInt32 = 180
  public var deviceWait = DeviceWait.usual
  /// The interface that the line or the lease names.
  public var interface: ByteString?
  public var resolver = ResolverConfiguration()
  /// What was learnt from the leases of `interface`, best first; nil when there is none.
  public var lease: Lease?
  /// What the RNBD targets need first; nil when the machine has an RDMA device of its own.
  public var softRDMA: SoftRDMADevice?
  /// `init=`, for the program as PID 1.
  public var initProgram: ByteString?

  public init() {}

  /// Whether there is nothing to attach.
  public var isEmpty: Bool { targets.isEmpty }
  /// Whether a server, be it only of a fallback, is reached otherwise than over a Unix socket.
  public var needsNetwork: Bool {
    for target in targets + fallbackTargets where target.needsNetwork { return true }
    return false
  }
}
