// SPDX-License-Identifier: Apache-2.0
// The one queue of a device: requests are fetched and committed through the caller's ring, data
// are moved by pread(2) and pwrite(2). All of it belongs to one thread, the one that fetches first.
//
// With user copy no tag needs a buffer of its own: the memory of a queue of 128 requests of
// 512 KiB would be 64 MiB, all of it locked.

import CLinux
public import LinuxSystem
import WireFormat

/// The queue of one device, open and mapped for as long as this value lives.
@safe public struct UblkQueue: ~Copyable {
  /// Tags are below it. It must be what ADD_DEV granted.
  public let depth: UInt16
  private let file: FileDescriptor
  // SAFETY: mapped by `init` with `byteCount` bytes, unmapped by `deinit` alone; the kernel writes
  // an entry before it completes the command of its tag.
  @unsafe private let descriptors: UnsafeMutableRawPointer
  private let byteCount: Int

  /// Opens and maps. EBUSY while another process has it. `nodes`: /dev, for who cannot reach it by
  /// its name, or -1.
  public init(_ device: UblkDevice, depth: UInt16, in nodes: CInt = -1) throws(UblkError) {
    let node = device.characterNode
    let opened: FileDescriptor
    do throws(SystemError) {
      if nodes >= 0 {
        opened = try FileDescriptor.open(device.characterName, .readWrite, in: nodes)
      } else {
        try ensureDeviceNode(
          node, .character, numberPath: device.characterDirectory + "/dev",
          milliseconds: UblkControl.nodeMilliseconds)
        opened = try FileDescriptor.open(node, .readWrite)
      }
    } catch { throw .node(node, error) }
    let page = max(4096, Int(clinux_page_size()))
    let mappedByteCount = (Int(depth) * RequestDescriptor.byteCount + page - 1) / page * page
    // SAFETY: a new mapping of that many bytes, or none.
    guard let mapped = unsafe clinux_map_shared(opened.rawValue, mappedByteCount, 0) else {
      throw .node(node, .invalidArgument)
    }
    self.depth = depth
    file = opened
    byteCount = mappedByteCount
    unsafe descriptors = unsafe mapped
  }

  deinit { unsafe clinux_unmap(descriptors, byteCount) }

  /// The request that a completed command of `tag` stands for.
  public borrowing func descriptor(_ tag: UInt16) -> RequestDescriptor {
    precondition(tag < depth, "a tag is below the depth")
    let offset = Int(tag) * RequestDescriptor.byteCount
    // SAFETY: inside the mapping, by the check above; entries are aligned to 8 bytes.
    return unsafe RequestDescriptor(
      word: descriptors.load(fromByteOffset: offset, as: UInt32.self),
      sectorCount: descriptors.load(fromByteOffset: offset + 4, as: UInt32.self),
      firstSector: descriptors.load(fromByteOffset: offset + 8, as: UInt64.self))
  }

  /// Queues the first fetch of a tag: completes when a request has come.
  public borrowing func queueFetch(
    _ tag: UInt16, on ring: borrowing IORing, data: UInt64
  ) throws(SystemError) {
    try queue(QueueCommand(tag: tag), QueueCommand.fetch, on: ring, data: data)
  }

  /// Queues the end of a tag's request, and the fetch of the next. `result`: bytes done for reads
  /// and writes, 0, or a negated errno.
  public borrowing func queueCommit(
    _ tag: UInt16, result: Int32, on ring: borrowing IORing, data: UInt64
  ) throws(SystemError) {
    try queue(
      QueueCommand(tag: tag, result: result), QueueCommand.commitAndFetch, on: ring, data: data)
  }

  private borrowing func queue(
    _ command: QueueCommand, _ operation: UInt32, on ring: borrowing IORing, data: UInt64
  ) throws(SystemError) {
    var words = command.words
    try unsafe withUnsafeBytes(of: &words) { bytes throws(SystemError) in
      // SAFETY: copied by the call.
      try unsafe ring.queueCommand(
        file.rawValue, operation: operation, command: bytes, data: data)
    }
  }

  /// Copies data of a write into `buffer`. EINVAL once the request is not ours any more.
  public borrowing func takeData(
    _ tag: UInt16, offset: UInt32, into buffer: UnsafeMutableRawBufferPointer
  ) -> Int {
    // SAFETY: the caller's buffer.
    unsafe clinux_pread(
      file.rawValue, buffer.baseAddress, buffer.count,
      QueueCommand.dataPosition(tag: tag, offset: offset))
  }

  /// Gives data to a read. EINVAL once the request is not ours any more.
  public borrowing func giveData(
    _ tag: UInt16, offset: UInt32, from buffer: UnsafeRawBufferPointer
  ) -> Int {
    // SAFETY: the caller's buffer.
    unsafe clinux_pwrite(
      file.rawValue, buffer.baseAddress, buffer.count,
      QueueCommand.dataPosition(tag: tag, offset: offset))
  }
}
