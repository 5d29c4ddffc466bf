// SPDX-License-Identifier: Apache-2.0
import Foundation
import WireFormat

/// A copy of the few files of /sys, /proc and /run that the driver reads, below a directory of its
/// own, which goes away with it.
final class FakeTree: Sendable {
  let directory: URL
  var root: ByteString { ByteString(directory.path) }

  init(_ files: [String: String] = [:]) throws {
    directory = FileManager.default.temporaryDirectory.appending(path: "nbd-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    for (path, text) in files { try write(path, text) }
  }

  deinit { try? FileManager.default.removeItem(at: directory) }

  func write(_ path: String, _ text: String) throws {
    let file = directory.appending(path: path)
    try FileManager.default.createDirectory(
      at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data(text.utf8).write(to: file)
  }

  func link(_ path: String, to target: String) throws {
    let link = directory.appending(path: path)
    try FileManager.default.createDirectory(
      at: link.deletingLastPathComponent(), withIntermediateDirectories: true)
    try FileManager.default.createSymbolicLink(atPath: link.path, withDestinationPath: target)
  }

  func remove(_ path: String) throws {
    try FileManager.default.removeItem(at: directory.appending(path: path))
  }

  /// As Linux 6.12 shows an attached device with two partitions; process 143 has ended.
  static func attached() throws -> FakeTree {
    try FakeTree([
      "sys/block/nbd0/dev": "43:0\n",
      "sys/block/nbd0/pid": "143\n",
      "sys/block/nbd0/backend": "192.0.2.1:10809/root\n",
      "sys/block/nbd0/size": "131072\n",
      "sys/block/nbd0/ro": "0\n",
      "sys/block/nbd0/queue/logical_block_size": "512\n",
      "sys/block/nbd0/nbd0p1/dev": "43:1\n",
      "sys/block/nbd0/nbd0p2/dev": "43:2\n",
      "sys/block/nbd0/nbd0p10/dev": "43:10\n",
      "sys/block/nbd1/dev": "43:32\n",
      "sys/block/nbd1/size": "0\n",
      "sys/block/nbd1/ro": "0\n",
      "sys/block/sda/size": "8\n",
      "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
      "proc/self/mountinfo": "1 1 0:2 / / rw - rootfs rootfs rw\n",
    ])
  }
}
