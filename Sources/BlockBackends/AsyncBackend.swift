// SPDX-License-Identifier: Apache-2.0
import WireFormat

/// Acknowledges before it is durable: flush and FUA are answered at once, and a loss of power loses
/// what the system had not written back by itself, also what clients were told to be safe. The end
/// of the process alone loses nothing. For media that can be made anew.
public final class AsyncBackend: BlockBackend {
  /// What whoever serves it has to say of it, in the log and in the export's description.
  public static let remark: ByteString =
    "acknowledges writes before they are durable: a loss of power loses them"

  /// For the end of the server, and for whoever wants to be certain: flush this.
  public let base: any BlockBackend

  /// Nothing is flushed when it ends: that is its owner's business.
  public init(over base: any BlockBackend) { self.base = base }

  /// The medium's; so are the next two.
  public var byteCount: UInt64 { base.byteCount }
  public var blockSizes: BackendBlockSizes { base.blockSizes }
  public var capabilities: BackendCapabilities { base.capabilities }
  /// The medium's, marked.
  public var summary: ByteString { "async(" + base.summary + ")" }

  /// The medium's.
  public func read(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) {
    try unsafe base.read(into: buffer, at: offset)
  }
  /// Not durable, whatever `isDurable` says.
  public func write(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool
  ) throws(BackendError) {
    try unsafe base.write(bytes, at: offset, isDurable: false)
  }
  /// Not durable, whatever `isDurable` says.
  public func writeZeroes(
    _ range: Range<UInt64>, mayPunch: Bool, isDurable: Bool, mustBeFast: Bool
  ) throws(BackendError) {
    try base.writeZeroes(range, mayPunch: mayPunch, isDurable: false, mustBeFast: mustBeFast)
  }
  /// Not durable, whatever `isDurable` says.
  public func trim(_ range: Range<UInt64>, isDurable: Bool) throws(BackendError) {
    try base.trim(range, isDurable: false)
  }
  /// Does nothing.
  public func flush() throws(BackendError) {}
  /// The medium's; so is what follows.
  public func extents(
    in range: Range<UInt64>, maximum: Int
  ) throws(BackendError) -> [BackendExtent] {
    try base.extents(in: range, maximum: maximum)
  }
  public func fileRange(of range: Range<UInt64>) -> BackendFileRange? {
    base.fileRange(of: range)
  }
  public func readWithoutWaiting(
    into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(BackendError) -> Bool { try unsafe base.readWithoutWaiting(into: buffer, at: offset) }
  public func prefetch(_ range: Range<UInt64>) { base.prefetch(range) }
}
