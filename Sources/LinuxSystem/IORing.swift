// SPDX-License-Identifier: Apache-2.0
// A ring of io_uring for one thread: things to do are queued, one call hands them over and waits,
// and what was done comes back with the number that it was queued under.

public import CLinux

/// Source: io_uring(7). Nothing allocates once the ring is open.
@safe public struct IORing: ~Copyable {
  public struct Options: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// For commands of more than 16 bytes.
    public static let wideCommands = Options(rawValue: UInt32(clinux_ring_wide_commands))
    /// The kernel's work for the ring is done by this thread while it waits, all at once: a request
    /// that arrives interrupts nothing. Since Linux 6.1.
    public static let oneThread = Options(rawValue: UInt32(clinux_ring_one_thread))
  }

  // SAFETY: made by clinux_ring_open, which gives one only on success, and closed by `deinit` alone.
  @unsafe private let ring: OpaquePointer

  /// `entryCount`: how much can be queued before it is handed over; twice as many completions fit.
  /// EPERM where io_uring is switched off (kernel.io_uring_disabled), ENOSYS where there is none.
  public init(entryCount: UInt32, _ options: Options = []) throws(SystemError) {
    var made: OpaquePointer?
    // SAFETY: a pointer of ours that the call fills.
    _ = try checked(unsafe clinux_ring_open(&made, entryCount, options.rawValue))
    guard let made = unsafe made else { throw .noMemory }
    unsafe ring = unsafe made
  }

  deinit { unsafe clinux_ring_close(ring) }

  /// Queues a command to a driver. `command` must be alive during the call only.
  public borrowing func queueCommand(
    _ descriptor: CInt, operation: UInt32, command: UnsafeRawBufferPointer, data: UInt64
  ) throws(SystemError) {
    // SAFETY: the bytes that the caller vouches for; the call copies them.
    _ = try checked(
      unsafe clinux_ring_command(
        ring, descriptor, operation, command.baseAddress, command.count, data))
  }

  /// Queues recv(2). `buffer` must stay where it is until the completion.
  public borrowing func queueReceive(
    _ descriptor: CInt, into buffer: UnsafeMutableRawBufferPointer, data: UInt64
  ) throws(SystemError) {
    // SAFETY: the caller keeps the buffer.
    _ = try checked(
      unsafe clinux_ring_receive(ring, descriptor, buffer.baseAddress, buffer.count, data))
  }

  /// Queues read(2). `buffer` must stay where it is until the completion.
  public borrowing func queueRead(
    _ descriptor: CInt, into buffer: UnsafeMutableRawBufferPointer, data: UInt64
  ) throws(SystemError) {
    // SAFETY: the caller keeps the buffer.
    _ = try checked(
      unsafe clinux_ring_read(ring, descriptor, buffer.baseAddress, buffer.count, data))
  }

  /// Queues pread(2). `buffer` must stay where it is until the completion.
  public borrowing func queueRead(
    _ descriptor: CInt, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64,
    data: UInt64
  ) throws(SystemError) {
    // SAFETY: the caller keeps the buffer.
    _ = try checked(
      unsafe clinux_ring_read_at(
        ring, descriptor, buffer.baseAddress, buffer.count, offset, data))
  }

  /// Queues pwrite(2), and fdatasync(2) of what it writes if `isDurable`. `bytes` must stay where
  /// they are until the completion.
  public borrowing func queueWrite(
    _ descriptor: CInt, from bytes: UnsafeRawBufferPointer, at offset: UInt64, isDurable: Bool,
    data: UInt64
  ) throws(SystemError) {
    // SAFETY: the caller keeps the bytes.
    _ = try checked(
      unsafe clinux_ring_write_at(
        ring, descriptor, bytes.baseAddress, bytes.count, offset, isDurable ? 1 : 0, data))
  }

  /// Hands over what is queued, without waiting. What has ended by then can be taken.
  public borrowing func submit() throws(SystemError) {
    let result = unsafe clinux_ring_submit(ring)
    // EINTR, and EAGAIN or EBUSY for a queue that a look at the completions empties.
    if result != -4, result != -11, result != -16 { _ = try checked(result) }
  }

  /// Queues one wait until the descriptor can be written to.
  public borrowing func queueWritable(_ descriptor: CInt, data: UInt64) throws(SystemError) {
    _ = try checked(unsafe clinux_ring_poll(ring, descriptor, UInt32(clinux_POLLOUT), data))
  }

  /// Queues one wait until the descriptor can be read from.
  public borrowing func queueReadable(_ descriptor: CInt, data: UInt64) throws(SystemError) {
    _ = try checked(unsafe clinux_ring_poll(ring, descriptor, UInt32(clinux_POLLIN), data))
  }

  /// Hands over what is queued and waits for a completion; false when the time is up. Nil is for
  /// ever.
  public borrowing func submitAndWait(nanoseconds: UInt64?) throws(SystemError) -> Bool {
    let time = nanoseconds.map { Int64(clamping: $0) } ?? -1
    let result = unsafe clinux_ring_wait(ring, 1, time)
    // ETIME, EINTR, and EAGAIN or EBUSY for a queue that a look at the completions empties.
    if result == -62 { return false }
    if result == -4 || result == -11 || result == -16 { return true }
    _ = try checked(result)
    return true
  }

  /// Takes completions that are there, at most as many as fit; how many.
  public borrowing func take(
    into completions: UnsafeMutableBufferPointer<clinux_completion>
  ) -> Int {
    // SAFETY: the room that the caller vouches for.
    Int(unsafe clinux_ring_take(ring, completions.baseAddress, UInt32(completions.count)))
  }
}
