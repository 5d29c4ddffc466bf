// SPDX-License-Identifier: Apache-2.0
// Requests that a disk is at work on: a ring of io_uring, and memory for each request, so that one
// that waits for the disk holds up none of the others of its connection.
//
// A slot is free, or its memory belongs to the kernel until its completion has been taken, and then
// to a reply until that has been sent: what a disk has brought is copied once, by the socket. The
// memory must outlive both: whoever gives the object up waits for all slots first.
//
//   free ──► the kernel's ──► ended ──► settled ──► free, or unsent ──► free

import BlockBackends
import CLinux
import LinuxSystem
import NBDProtocol

@safe final class PendingTransfers {
  /// What a slot is used for.
  struct Slot {
    var request = ExtendedRequest(command: .read, cookie: 0)
    /// Where the data lie, until the slot is free.
    var place = TransferMemory.Place()
    /// Once it is settled.
    var error = ErrorNumber.none
    var isWanted = true
  }

  /// The deepest queue; the drivers of Linux and QEMU ask for up to 128.
  static let slotCount = 128
  /// What the data of all take at most: what does not fit has to be done in place.
  static let byteCountMaximum = TransferMemory.byteCountMaximum(slotCount: slotCount)

  private let ring: IORing
  private var memory: TransferMemory
  @unsafe private let slots: UnsafeMutablePointer<Slot>
  /// The first `freeCount` are free.
  @unsafe private let freeSlots: UnsafeMutablePointer<Int>
  private var freeCount = slotCount
  /// The first `unsentCount` are those that replies still have to send.
  @unsafe private let unsentSlots: UnsafeMutablePointer<Int>
  private var unsentCount = 0
  /// A ring of those that are settled, in the order in which they ended.
  @unsafe private let settledSlots: UnsafeMutablePointer<Int>
  private var settledStart = 0
  private var settledCount = 0
  /// Completions with these numbers say that the client has sent something, that it takes something,
  /// or that it has gone.
  private static let inputNumber = UInt64.max
  private static let outputNumber = UInt64.max - 1
  private var awaitsInput = false
  private var awaitsOutput = false
  @unsafe private let completions: UnsafeMutableBufferPointer<clinux_completion>
  private var completionCount = 0
  private var completionIndex = 0

  /// Made and used by one thread.
  init() throws(SystemError) {
    let ring = try IORing(entryCount: UInt32(Self.slotCount), .oneThread)
    let memory = try TransferMemory(slotCount: Self.slotCount)
    self.ring = ring
    self.memory = memory
    // SAFETY of all: freed by `deinit`, and every index used is below the count.
    unsafe slots = .allocate(capacity: Self.slotCount)
    unsafe slots.initialize(repeating: Slot(), count: Self.slotCount)
    unsafe freeSlots = .allocate(capacity: Self.slotCount)
    for index in 0..<Self.slotCount {
      // The lowest are used first: what is used is then what has been used before.
      unsafe (freeSlots + index).initialize(to: Self.slotCount - 1 - index)
    }
    unsafe unsentSlots = .allocate(capacity: Self.slotCount)
    unsafe unsentSlots.initialize(repeating: 0, count: Self.slotCount)
    unsafe settledSlots = .allocate(capacity: Self.slotCount)
    unsafe settledSlots.initialize(repeating: 0, count: Self.slotCount)
    unsafe completions = .allocate(capacity: Self.slotCount)
    unsafe completions.initialize(repeating: clinux_completion())
  }

  deinit {
    precondition(isEmpty)
    unsafe slots.deallocate()  // SAFETY: allocated by `init`; the elements are trivial.
    unsafe freeSlots.deallocate()
    unsafe unsentSlots.deallocate()
    unsafe settledSlots.deallocate()
    unsafe completions.deallocate()
  }

  var isEmpty: Bool { freeCount == Self.slotCount }
  var hasRoom: Bool { freeCount > 0 }
  /// The disk has something of them yet to do, as far as completions have been taken.
  var isAtWork: Bool { freeCount + settledCount + unsentCount < Self.slotCount }

  /// There is something for `nextSettled`.
  var hasSettled: Bool { settledCount > 0 }

  /// A slot for a transfer of so many bytes, and where its data are to lie; nil when there is no room.
  private func takeSlot(_ request: ExtendedRequest, _ count: Int) -> Int? {
    guard freeCount > 0 else { return nil }
    // SAFETY: below the count.
    let slot = unsafe freeSlots[freeCount - 1]
    guard let place = memory.take(count, slot: slot) else { return nil }
    return takeSlot(request, place)
  }

  private func takeSlot(_ request: ExtendedRequest, _ place: TransferMemory.Place) -> Int {
    precondition(freeCount > 0)
    freeCount -= 1
    // SAFETY: indices below the count.
    let slot = unsafe freeSlots[freeCount]
    unsafe slots[slot] = Slot(request: request, place: place)
    return slot
  }

  private func free(_ slot: Int) {
    unsafe memory.giveBack(slots[slot].place)  // SAFETY: below the count.
    freeButPlace(slot)
  }

  private func freeButPlace(_ slot: Int) {
    unsafe freeSlots[freeCount] = slot  // SAFETY: not more slots are freed than were taken.
    freeCount += 1
  }

  /// Begins to read; false when there is no room.
  func read(
    _ request: ExtendedRequest, _ count: Int, from descriptor: CInt, at offset: UInt64
  ) throws(SystemError) -> Bool {
    guard let slot = takeSlot(request, count) else { return false }
    do {
      // SAFETY: the slot is the kernel's from here on.
      try unsafe ring.queueRead(
        descriptor, into: slots[slot].place.buffer, at: offset, data: UInt64(slot))
      return true
    } catch {
      free(slot)
      throw error
    }
  }

  /// Reads, and waits for it; nil when there is no room.
  func readNow(
    _ request: ExtendedRequest, _ count: Int, from descriptor: CInt, at offset: UInt64
  ) -> Ended? {
    guard let slot = takeSlot(request, count) else { return nil }
    // SAFETY: the slot's memory, which is as long.
    let place = unsafe slots[slot].place.buffer
    let result = unsafe clinux_pread(descriptor, place.baseAddress, place.count, Int64(offset))
    return unsafe Ended(slot: slot, request: request, result: Int(result), buffer: place)
  }

  /// Begins to write a copy of `bytes`; false when there is no room.
  func write(
    _ request: ExtendedRequest, copying bytes: UnsafeRawBufferPointer, to target: BackendDirectRange
  ) throws(SystemError) -> Bool {
    guard let slot = takeSlot(request, bytes.count) else { return false }
    // SAFETY: both are as long.
    unsafe slots[slot].place.buffer.copyMemory(from: bytes)
    do {
      try queueWrite(slot, to: target)
      return true
    } catch {
      free(slot)
      throw error
    }
  }

  /// Room for the data of a long WRITE that are yet to come: for `write`, or else for `giveBack`. It
  /// counts for `isEmpty` from `write` on. Nil when there is none now.
  func place(of byteCount: Int) -> TransferMemory.Place? {
    precondition(byteCount > TransferMemory.shortByteCount)
    return memory.take(byteCount, slot: 0)
  }
  func giveBack(_ place: TransferMemory.Place) { memory.giveBack(place) }

  /// Begins to write what `place` has given and the client has filled. There must be room. After a
  /// failure the place is still the caller's.
  func write(
    _ request: ExtendedRequest, _ place: TransferMemory.Place, to target: BackendDirectRange
  ) throws(SystemError) {
    let slot = takeSlot(request, place)
    do { try queueWrite(slot, to: target) } catch {
      freeButPlace(slot)
      throw error
    }
  }

  private func queueWrite(_ slot: Int, to target: BackendDirectRange) throws(SystemError) {
    // SAFETY: the slot is the kernel's from here on.
    try unsafe ring.queueWrite(
      target.descriptor, from: UnsafeRawBufferPointer(slots[slot].place.buffer), at: target.offset,
      isDurable: target.isSync, data: UInt64(slot))
  }

  /// A transfer that has ended. Its memory is there until `finish` or `finishSent`.
  @safe struct Ended {
    var slot: Int
    var request: ExtendedRequest
    /// A negated errno, or how many bytes were moved.
    var result: Int
    let buffer: UnsafeMutableRawBufferPointer
  }

  /// The next transfer that has ended, to be settled or finished; nil when no more is known of.
  func next() -> Ended? {
    while true {
      if completionIndex == completionCount {
        completionIndex = 0
        completionCount = unsafe ring.take(into: completions)  // SAFETY: the room is ours.
        if completionCount == 0 { return nil }
      }
      let completion = unsafe completions[completionIndex]  // SAFETY: below the count.
      completionIndex += 1
      if completion.data == Self.inputNumber {
        awaitsInput = false
        continue
      }
      if completion.data == Self.outputNumber {
        awaitsOutput = false
        continue
      }
      let slot = Int(completion.data)
      let used = unsafe slots[slot]  // SAFETY: the number is one of `takeSlot`.
      return unsafe Ended(
        slot: slot, request: used.request, result: Int(completion.result),
        buffer: used.place.buffer)
    }
  }

  /// Keeps what is to be answered, until `nextSettled`.
  func settle(_ ended: Ended, _ error: ErrorNumber, isWanted: Bool) {
    precondition(settledCount < Self.slotCount)
    // SAFETY: indices below the count.
    unsafe slots[ended.slot].error = error
    unsafe slots[ended.slot].isWanted = isWanted
    unsafe settledSlots[(settledStart + settledCount) % Self.slotCount] = ended.slot
    settledCount += 1
  }

  /// What is to be answered, or forgotten if it is not wanted.
  @safe struct Settled {
    var slot: Int
    var request: ExtendedRequest
    var error: ErrorNumber
    var isWanted: Bool
    let buffer: UnsafeMutableRawBufferPointer
  }

  /// The next that was settled, to be finished or kept; nil when there is no more.
  func nextSettled() -> Settled? {
    guard settledCount > 0 else { return nil }
    // SAFETY: indices below the count.
    let slot = unsafe settledSlots[settledStart]
    settledStart = (settledStart + 1) % Self.slotCount
    settledCount -= 1
    let used = unsafe slots[slot]
    return unsafe Settled(
      slot: slot, request: used.request, error: used.error, isWanted: used.isWanted,
      buffer: used.place.buffer)
  }

  /// It is not needed any more.
  func finish(_ slot: Int) { free(slot) }

  /// Instead of `finish`: the memory is there until `finishSent`.
  func keepUntilSent(_ slot: Int) {
    unsafe unsentSlots[unsentCount] = slot  // SAFETY: there are not more slots than room.
    unsentCount += 1
  }

  /// All replies have been sent, or never will be.
  func finishSent() {
    while unsentCount > 0 {
      unsentCount -= 1
      free(unsafe unsentSlots[unsentCount])  // SAFETY: below the count.
    }
  }

  /// Hands over what was begun, and learns what has ended.
  func submit() throws(SystemError) { try ring.submit() }

  /// Hands over what was begun, and waits until something has ended or, if a socket is given, until
  /// it can be read from.
  func wait(orToReadFrom socket: CInt?) throws(SystemError) {
    if let socket, !awaitsInput {
      try ring.queueReadable(socket, data: Self.inputNumber)
      awaitsInput = true
    }
    _ = try ring.submitAndWait(nanoseconds: nil)
  }

  /// The same, until the socket can be written to.
  func wait(orToWriteTo socket: CInt) throws(SystemError) {
    if !awaitsOutput {
      try ring.queueWritable(socket, data: Self.outputNumber)
      awaitsOutput = true
    }
    _ = try ring.submitAndWait(nanoseconds: nil)
  }
}
