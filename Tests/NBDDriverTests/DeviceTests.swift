// SPDX-License-Identifier: Apache-2.0
import NBDDriver
import TestSupport
import Testing
import WireFormat

@Suite("An nbd device")
struct DeviceTests {
  static let names: [(ByteString, UInt32?)] = [
    ("/dev/nbd0", 0), ("nbd15", 15), ("/dev/nbd32767", 32767), ("/dev/nbd32768", nil),
    ("/dev/nbd", nil), ("nbd", nil), ("/dev/nbd0p1", nil), ("nbd01", nil), ("nbd-1", nil),
    ("/dev/sda", nil), ("", nil), ("/dev//nbd0", nil), ("nbd99999999999999999999", nil),
  ]

  @Test("has a name that is nbd and a number", arguments: names)
  func name(text: ByteString, index: UInt32?) {
    #expect(NBDDevice(named: text)?.index == index)
  }

  @Test("is read from sysfs")
  func attributes() throws {
    let tree = try FakeTree.attached()
    let devices = NBDDevice.all(root: tree.root)
    #expect(devices.map(\.index) == [0, 1])
    let device = devices[0]
    #expect(device.isAttached)
    #expect(device.ownerThread == 143)
    #expect(device.interface == .netlink)
    #expect(device.backendIdentifier == "192.0.2.1:10809/root")
    #expect(device.sizeByteCount == 67_108_864)
    #expect(device.blockByteCount == 512)
    #expect(!device.isReadOnly)
    #expect(device.partitions == ["nbd0p1", "nbd0p2", "nbd0p10"])
    #expect(!devices[1].isAttached)
    #expect(devices[1].interface == nil)
    #expect(!NBDDevice(index: 2, root: tree.root).exists)
  }

  @Test("was attached through ioctl when it has no backend file")
  func ioctl() throws {
    let tree = try FakeTree.attached()
    try tree.remove("sys/block/nbd0/backend")
    try tree.write("proc/143/comm", "nbd-client\n")
    let owner = try #require(NBDDevice(index: 0, root: tree.root).owner)
    #expect(owner.interface == .ioctl)
    #expect(ByteString(owner.text) == "attached through ioctl by process 143 (nbd-client)")
  }

  @Test("has numbers that do not make it trap", arguments: ["", "x", "-1", "99999999999999999999"])
  func nonsense(text: String) throws {
    let tree = try FakeTree.attached()
    for file in ["pid", "size", "queue/logical_block_size", "ro", "dev", "nbd0p1/dev"] {
      try tree.write("sys/block/nbd0/" + file, text)
    }
    let status = DeviceStatus(NBDDevice(index: 0, root: tree.root))
    #expect(status.owner == nil)
    #expect(status.sizeByteCount == 0)
  }
}

@Suite("The users of a device")
struct DeviceUserTests {
  static func users(_ change: (FakeTree) throws -> Void) throws -> [DeviceUser] {
    let tree = try FakeTree.attached()
    try change(tree)
    return NBDDevice(index: 0, root: tree.root).users
  }

  @Test("are none on a device that is attached only")
  func none() throws {
    #expect(try Self.users { _ in }.isEmpty)
  }

  static let mounts: [(String, line: String, device: ByteString, place: ByteString)] = [
    ("the disk", "20 1 43:0 / /mnt rw - ext4 /dev/nbd0 rw", "/dev/nbd0", "/mnt"),
    (
      "a partition, optional fields", "20 1 43:2 / / rw shared:1 master:2 - ext4 /dev/root rw",
      "/dev/nbd0p2", "/"
    ),
    (
      "a place with a blank", "20 1 43:1 / /a\\040b\\134c rw - ext4 /dev/nbd0p1 rw",
      "/dev/nbd0p1", "/a b\\c"
    ),
    (
      "a file system with a number of its own",
      "20 1 0:33 /sub /mnt rw - btrfs /dev/nbd0p1 rw", "/dev/nbd0p1", "/mnt"
    ),
  ]

  @Test("are file systems", arguments: mounts)
  func mounted(name: String, line: String, device: ByteString, place: ByteString) throws {
    let users = try Self.users { try $0.write("proc/self/mountinfo", line + "\n") }
    #expect(users == [.mounted(device: device, on: place)])
  }

  static let foreign: [String] = [
    "20 1 43:32 / /mnt rw - ext4 /dev/nbd1 rw", "20 1 43:11 / /mnt rw - ext4 /dev/nbd0p11 rw",
    "20 1 8:0 / /mnt rw - ext4 /dev/nbd00 rw", "20 1 43:0 /", "- - - - - - -", "",
  ]

  @Test("are not those of other devices", arguments: foreign)
  func notMounted(line: String) throws {
    #expect(try Self.users { try $0.write("proc/self/mountinfo", line) }.isEmpty)
  }

  @Test("are swap, stacked devices, loops and processes")
  func others() throws {
    let users = try Self.users { tree in
      try tree.write(
        "proc/swaps", "Filename Type Size Used Priority\n/dev/nbd0p2\tpartition\t1\t0\t-2\n")
      try tree.write("sys/block/nbd0/nbd0p1/holders/dm-0/x", "")
      try tree.write("sys/block/nbd0/holders/md127/x", "")
      try tree.write("sys/block/loop3/loop/backing_file", "/dev/nbd0p10\n")
      try tree.write("sys/block/loop4/loop/backing_file", "/dev/nbd0p100\n")
      try tree.write("proc/77/comm", "blkid\n")
      try tree.link("proc/77/fd/3", to: "/dev/nbd0p1")
      try tree.link("proc/77/fd/4", to: "/dev/nbd0")
      try tree.link("proc/78/fd/3", to: "/dev/nbd1")
      // The process of the thread that attached it.
      try tree.write("proc/143/status", "Name:\tqemu-nbd\nTgid:\t140\n")
      try tree.link("proc/140/fd/9", to: "/dev/nbd0")
    }
    #expect(
      users == [
        .swap(device: "/dev/nbd0p2"),
        .heldBy(device: "/dev/nbd0", holder: "/dev/md127"),
        .heldBy(device: "/dev/nbd0p1", holder: "/dev/dm-0"),
        .loop(device: "/dev/nbd0p10", by: "/dev/loop3"),
        .open(process: 77, name: "blkid"),
      ])
    #expect(
      users.map { ByteString($0.text) } == [
        "swap on /dev/nbd0p2", "part of /dev/md127", "part of /dev/dm-0", "backing /dev/loop3",
        "open in process 77 (blkid)",
      ])
  }
}

@Suite("The geometry of a device")
struct GeometryTests {
  static let accepted: [(String, ExportGeometry, block: UInt64, kibibytes: UInt32?)] = [
    ("nothing said", ExportGeometry(sizeByteCount: 512), 512, nil),
    (
      "a minimum of 1",
      ExportGeometry(sizeByteCount: 1 << 30, minimumBlockByteCount: 1), 512, nil
    ),
    (
      "a minimum of a page", ExportGeometry(sizeByteCount: 4096, minimumBlockByteCount: 4096),
      4096, nil
    ),
    (
      "the largest size", ExportGeometry(sizeByteCount: 1 << 63 - 1), 512, nil
    ),
    (
      "a payload of the kernel's limit",
      ExportGeometry(sizeByteCount: 4096, maximumPayloadByteCount: 1280 << 10), 512, nil
    ),
    (
      "a payload a little below",
      ExportGeometry(sizeByteCount: 4096, maximumPayloadByteCount: 1280 << 10 - 1), 512, 1279
    ),
    (
      "a payload of a page",
      ExportGeometry(sizeByteCount: 4096, maximumPayloadByteCount: 4096), 512, 4
    ),
    (
      "no limit", ExportGeometry(sizeByteCount: 4096, maximumPayloadByteCount: .max), 512, nil
    ),
  ]

  @Test("is the least block that the server takes, at least 512", arguments: accepted)
  func accepts(name: String, export: ExportGeometry, block: UInt64, kibibytes: UInt32?) throws {
    let geometry = try DeviceGeometry(export, pageByteCount: 4096)
    #expect(geometry.sizeByteCount == export.sizeByteCount)
    #expect(geometry.blockByteCount == block)
    #expect(geometry.maximumKibibytes == kibibytes)
  }

  static let refused: [(ExportGeometry, GeometryError)] = [
    (ExportGeometry(sizeByteCount: 0), .empty),
    (ExportGeometry(sizeByteCount: 1 << 63), .tooLarge(byteCount: 1 << 63)),
    (ExportGeometry(sizeByteCount: .max), .tooLarge(byteCount: .max)),
    (ExportGeometry(sizeByteCount: 511), .belowOneBlock(byteCount: 511, blockByteCount: 512)),
    (
      ExportGeometry(sizeByteCount: 1 << 20, minimumBlockByteCount: 0),
      .blockNotPowerOfTwo(byteCount: 0)
    ),
    (
      ExportGeometry(sizeByteCount: 1 << 20, minimumBlockByteCount: 513),
      .blockNotPowerOfTwo(byteCount: 513)
    ),
    (
      ExportGeometry(sizeByteCount: 1 << 20, minimumBlockByteCount: 8192),
      .blockAbovePage(byteCount: 8192, pageByteCount: 4096)
    ),
    (
      ExportGeometry(sizeByteCount: 1 << 20, maximumPayloadByteCount: 4095),
      .payloadBelowPage(byteCount: 4095, pageByteCount: 4096)
    ),
  ]

  @Test("is refused when the kernel could not serve it", arguments: refused)
  func refuses(export: ExportGeometry, error: GeometryError) {
    #expect(throws: error) { try DeviceGeometry(export, pageByteCount: 4096) }
  }
}

@Suite("A partition table")
struct PartitionTableTests {
  /// A disk's first 4096 bytes, with a partition of type and sectors in entry `entry`.
  static func disk(entry: Int = 0, type: UInt8 = 0x83, sectors: UInt8 = 1) -> [UInt8] {
    var head = [UInt8](repeating: 0, count: 4096)
    head[446 + entry * 16 + 4] = type
    head[446 + entry * 16 + 12] = sectors
    head[510] = 0x55
    head[511] = 0xaa
    return head
  }

  static var fat: [UInt8] {
    var head = disk(type: 0x6b)
    head.replaceSubrange(446..<450, with: "Oper".utf8)
    return head
  }

  static var gpt: [UInt8] {
    var head = disk(type: 0, sectors: 0)
    head.replaceSubrange(512..<520, with: "EFI PART".utf8)
    return head
  }

  /// The beginning of a disk. A failure shows its name, not its bytes.
  struct Head: CustomTestStringConvertible {
    var testDescription: String
    var bytes: [UInt8]
    var isTable: Bool
    init(_ name: String, _ bytes: [UInt8], _ isTable: Bool) {
      (testDescription, self.bytes, self.isTable) = (name, bytes, isTable)
    }
  }

  static let heads = [
    Head("one partition", disk(), true), Head("in the last entry", disk(entry: 3), true),
    Head("GPT", gpt, true), Head("no entry used", disk(type: 0), false),
    Head("an entry without sectors", disk(sectors: 0), false),
    Head("a FAT boot sector", fat, false),
    Head("zeroes", [UInt8](repeating: 0, count: 4096), false), Head("nothing", [], false),
    Head("one block", Array(disk().prefix(512)), true),
    Head("less", Array(disk().prefix(511)), false),
  ]

  @Test("is recognized in the first blocks", arguments: heads)
  func recognized(head: Head) {
    #expect(NBDDevice.holdsPartitionTable(head.bytes) == head.isTable)
  }
}
