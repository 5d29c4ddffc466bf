// SPDX-License-Identifier: Apache-2.0
import CVerbs
import LinuxSystem

/// On one device: what memory its queue pairs may use. Must outlive all of them.
@safe public struct ProtectionDomain: ~Copyable {
  // SAFETY: made by `init` and given back by `deinit` alone. If something of it is still there
  // then, the kernel refuses and it stays.
  @unsafe let raw: UnsafeMutableRawPointer

  /// On the device that `connection` is bound to; it may go away afterwards.
  public init(on connection: borrowing ConnectionIdentifier) throws(VerbsError) {
    guard let device = unsafe cverbs_device_of(connection.raw) else {
      throw .notBound(.createDomain)
    }
    var made: UnsafeMutableRawPointer?
    try verbs(.createDomain, unsafe cverbs_domain_create(&made, device))
    guard let made = unsafe made else { throw .failed(.createDomain, .noMemory) }
    unsafe raw = unsafe made
  }

  deinit { _ = unsafe cverbs_domain_destroy(raw) }
}

/// Whole pages, zeroed, that several devices may reach: a region on each. Must outlive them.
@safe @frozen public struct RegisteredPages: ~Copyable {
  // SAFETY: mapped by `init` and given back by `deinit` alone.
  @unsafe public let bytes: UnsafeMutableRawBufferPointer

  /// `byteCount`, 1 to 2^40, is rounded up to whole pages.
  public init(byteCount: Int) throws(VerbsError) {
    let page = 65_536  // No machine's pages are larger.
    guard byteCount > 0, byteCount <= 1 << 40 else {
      throw .failed(.registerMemory, .invalidArgument)
    }
    let rounded = (byteCount + page - 1) / page * page
    guard let memory = unsafe cverbs_pages_create(rounded) else {
      throw .failed(.registerMemory, .noMemory)
    }
    unsafe bytes = UnsafeMutableRawBufferPointer(start: unsafe memory, count: rounded)
  }

  deinit { unsafe cverbs_pages_destroy(bytes.baseAddress!, bytes.count) }

  /// Somebody else gives them back.
  @unsafe consuming func release() { discard self }
}

/// Memory that one device reaches: whole pages, which stay in memory for as long as they are
/// registered. Must not outlive its domain.
@safe public struct MemoryRegion: ~Copyable {
  public struct Access: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// Receives may lie in it.
    public static let localWrite = Access(rawValue: UInt32(cverbs_local_write))
    /// The peer may write to all of it with `remoteKey`.
    public static let remoteWrite = Access(rawValue: UInt32(cverbs_remote_write))
    /// Memory windows may be bound to it.
    public static let bindsWindows = Access(rawValue: UInt32(cverbs_bind_windows))
  }

  // SAFETY: made by `init` and given back by `deinit` alone, the registration before the pages.
  @unsafe let raw: UnsafeMutableRawPointer
  /// All of it. The device may write wherever receives and keys allow, at any time.
  @unsafe public let bytes: UnsafeMutableRawBufferPointer
  /// For segments of ours.
  public let localKey: UInt32
  /// For the peer; means nothing without `remoteWrite`.
  public let remoteKey: UInt32
  private let ownsPages: Bool

  /// With pages of its own. ENOMEM, too, when the limit on locked memory is reached.
  public init(
    byteCount: Int, in domain: borrowing ProtectionDomain, _ access: Access
  ) throws(VerbsError) {
    let pages = try RegisteredPages(byteCount: byteCount)
    try unsafe self.init(pages.bytes, ownsPages: true, domain, access)
    // Its own from here on.
    unsafe pages.release()
  }

  /// Of pages that others may have registered, too.
  public init(
    of pages: borrowing RegisteredPages, in domain: borrowing ProtectionDomain, _ access: Access
  ) throws(VerbsError) {
    // SAFETY: the caller keeps the pages.
    try unsafe self.init(pages.bytes, ownsPages: false, domain, access)
  }

  @unsafe private init(
    _ memory: UnsafeMutableRawBufferPointer, ownsPages: Bool,
    _ domain: borrowing ProtectionDomain, _ access: Access
  ) throws(VerbsError) {
    var made: UnsafeMutableRawPointer?
    var local: UInt32 = 0
    var remote: UInt32 = 0
    // SAFETY: pages that are there, a domain that is alive, variables of ours.
    let result = unsafe cverbs_region_create(
      &made, domain.raw, memory.baseAddress!, memory.count, access.rawValue, &local, &remote)
    guard result == 0, let made = unsafe made else {
      throw .failed(.registerMemory, SystemError(errno: 0 &- result))
    }
    unsafe raw = unsafe made
    unsafe bytes = unsafe memory
    localKey = local
    remoteKey = remote
    self.ownsPages = ownsPages
  }

  deinit {
    // Pages that the device may still reach must not become somebody else's.
    guard unsafe cverbs_region_destroy(raw) == 0, ownsPages else { return }
    unsafe cverbs_pages_destroy(bytes.baseAddress!, bytes.count)
  }

  public var byteCount: Int { unsafe bytes.count }

  /// Where a byte is for the device, and for the peer.
  public func address(_ offset: Int) -> UInt64 {
    precondition(offset >= 0 && offset <= byteCount, "a place inside the region")
    return unsafe UInt64(UInt(bitPattern: bytes.baseAddress!)) + UInt64(offset)
  }

  public func segment(_ offset: Int, _ byteCount: Int) -> MemorySegment {
    precondition(
      byteCount >= 0 && offset >= 0 && offset <= self.byteCount - byteCount,
      "a piece of the region")
    return MemorySegment(
      address: address(offset), byteCount: UInt32(byteCount), key: localKey)
  }
}

/// A window of type 2: a key that opens a piece of a region to the peer of one queue pair, and that is
/// ended and given anew by requests in the send queue. Not every device has them:
/// `DeviceLimits.bindsWindows`. Must not outlive its domain, and must be gone before the region.
@safe public struct MemoryWindow: ~Copyable {
  // SAFETY: made by `init` and given back by `deinit` alone.
  @unsafe let raw: UnsafeMutableRawPointer
  /// The key that it was made with, which opens nothing. Bind it with the one after.
  public let firstKey: UInt32

  public init(in domain: borrowing ProtectionDomain) throws(VerbsError) {
    var made: UnsafeMutableRawPointer?
    var key: UInt32 = 0
    // SAFETY: variables of ours, a domain that is alive.
    try verbs(.createWindow, unsafe cverbs_window_create(&made, domain.raw, &key))
    guard let made = unsafe made else { throw .failed(.createWindow, .noMemory) }
    unsafe raw = unsafe made
    firstKey = key
  }

  deinit { _ = unsafe cverbs_window_destroy(raw) }

  /// The next of the 256 that a window goes through.
  public static func key(after key: UInt32) -> UInt32 { cverbs_next_key(key) }
}
