// SPDX-License-Identifier: Apache-2.0
import NBDDriver
import TestSupport
import Testing
import WireFormat

@Suite("The record of an attachment")
struct RecordTests {
  static let record = AttachmentRecord(
    server: "192.0.2.1:10809", export: "r\u{fc}\\t\n=x", attachedSeconds: 1_700_000_000,
    ownerThread: 143, backendIdentifier: "192.0.2.1:10809/root", connectionCount: 2)

  @Test("comes back as it was written, whatever the export's name")
  func roundTrip() {
    #expect(AttachmentRecord(decoding: Self.record.encoded) == Self.record)
    var every = Self.record
    every.export = ByteString((0...255).map { UInt8($0) })
    #expect(AttachmentRecord(decoding: every.encoded) == every)
  }

  @Test("is lines of keys and values")
  func text() {
    #expect(
      Self.record.encoded
        == """
        server=192.0.2.1:10809
        export=r\\xc3\\xbc\\x5ct\\x0a=x
        attached-seconds=1700000000
        pid=143
        backend=192.0.2.1:10809/root
        connections=2

        """)
    #expect(AttachmentRecord(decoding: Self.record.encoded + "later=1\n") == Self.record)
  }

  @Test("is none when a line is missing or malformed")
  func refused() {
    let text = Self.record.encoded
    for line in text.fields(separatedBy: 0x0a) where !line.isEmpty {
      let others = text.fields(separatedBy: 0x0a).filter { $0 != line }
      let cut = others.reduce(ByteString()) { $0 + $1 + "\n" }
      #expect(AttachmentRecord(decoding: cut) == nil, "without \(line.printable)")
    }
    for bad in ["x", "export=\\", "export=\\x", "export=\\x0", "export=\\xzz", "pid=-1"] {
      #expect(AttachmentRecord(decoding: text + ByteString(bad) + "\n") == nil, "\(bad)")
    }
    for count in 0..<text.count { _ = AttachmentRecord(decoding: ByteString(text.bytes[..<count])) }
  }

  @Test("counts only for the attachment that it was written for")
  func stale() throws {
    let tree = try FakeTree.attached()
    let device = NBDDevice(index: 0, root: tree.root)
    #expect(device.record == nil)
    try device.write(Self.record)
    #expect(device.record == Self.record)
    try tree.write("sys/block/nbd0/pid", "144\n")
    #expect(device.record == nil)
    try tree.write("sys/block/nbd0/pid", "143\n")
    try tree.write("sys/block/nbd0/backend", "198.51.100.1:10809/other\n")
    #expect(device.record == nil)
    try tree.remove("sys/block/nbd0/backend")
    #expect(device.record == Self.record)
    try tree.remove("sys/block/nbd0/pid")
    #expect(device.record == nil)
    device.removeRecord()
    device.removeRecord()
  }
}

@Suite("A backend identifier")
struct BackendIdentifierTests {
  @Test("is one line of at most 1024 bytes that tells exports apart")
  func identifier() {
    #expect(backendIdentifier(server: "192.0.2.1:10809", export: "root") == "192.0.2.1:10809/root")
    let long = [UInt8](repeating: 0x0a, count: 4095)
    let one = backendIdentifier(server: "h:1", export: ByteString(long + [0x61]))
    let other = backendIdentifier(server: "h:1", export: ByteString(long + [0x62]))
    #expect(one.count <= 1024)
    #expect(one.count > 1000)
    #expect(one != other)
    #expect(one.bytes.allSatisfy { $0 >= 0x20 && $0 < 0x7f })
  }
}

@Suite("The status of a device")
struct StatusTests {
  @Test("is text for people")
  func text() throws {
    let tree = try FakeTree.attached()
    try tree.write("proc/self/mountinfo", "20 1 43:1 / / rw - ext4 /dev/nbd0p1 rw\n")
    let device = NBDDevice(index: 0, root: tree.root)
    var record = RecordTests.record
    record.export = "root"
    try device.write(record)
    #expect(
      DeviceStatus(device).text
        == """
        /dev/nbd0: 67108864 bytes in blocks of 512, read-write
          server: 192.0.2.1:10809, export 'root', 2 connections
          attached through netlink to 192.0.2.1:10809/root by process 143 (gone)
          partitions: nbd0p1 nbd0p2 nbd0p10
          in use: mounted on /

        """)
    #expect(
      DeviceStatus(NBDDevice(index: 1, root: tree.root)).text == "/dev/nbd1: not attached\n")
  }

  @Test("is an object with every key for scripts")
  func json() throws {
    let tree = try FakeTree.attached()
    var json = JSONWriter()
    DeviceStatus(NBDDevice(index: 0, root: tree.root)).write(to: &json)
    #expect(
      ByteString(json.bytes)
        == """
        {"device":"/dev/nbd0","index":0,"driver":"nbd","attached":true,"size":67108864,\
        "blockSize":512,"readOnly":false,"interface":"netlink","pid":143,"process":null,\
        "backend":"192.0.2.1:10809/root","server":null,"export":null,"connections":null,\
        "keeper":null,\
        "attachedAt":null,"partitions":["/dev/nbd0p1","/dev/nbd0p2","/dev/nbd0p10"],"users":[]}
        """)
  }
}
