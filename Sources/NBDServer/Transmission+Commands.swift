// SPDX-License-Identifier: Apache-2.0
// What the commands mean that move no data, and how all of them are answered.

import BlockBackends
import BlockServer
import NBDProtocol
import WireFormat

// Each is called between `begin` and `end`, with flags that have been looked at.
extension Transmission {
  mutating func flush(_ request: ExtendedRequest) -> ErrorNumber {
    guard request.offset == 0, request.length == 0 else { return .einval }
    do {
      try backend.flush()
    } catch {
      return ErrorNumber(error)
    }
    tally.flushes &+= 1
    return .none
  }

  mutating func trim(_ request: ExtendedRequest) -> ErrorNumber {
    do {
      let range = try rules.check(.trim, offset: request.offset, length: request.length)
      do {
        try backend.trim(range, isDurable: request.flags.contains(.fua))
      } catch {
        return ErrorNumber(error)
      }
    } catch {
      return ErrorNumber(error, of: .trim)
    }
    tally.trims &+= 1
    return .none
  }

  mutating func writeZeroes(_ request: ExtendedRequest) -> ErrorNumber {
    do {
      let range = try rules.check(.writeZeroes, offset: request.offset, length: request.length)
      do {
        try backend.writeZeroes(
          range, mayPunch: !request.flags.contains(.noHole),
          isDurable: request.flags.contains(.fua), mustBeFast: request.flags.contains(.fastZero))
      } catch {
        return ErrorNumber(error)
      }
    } catch {
      return ErrorNumber(error, of: .writeZeroes)
    }
    tally.zeroes &+= 1
    return .none
  }

  func cache(_ request: ExtendedRequest) -> ErrorNumber {
    do {
      let range = try rules.check(.about, offset: request.offset, length: request.length)
      if !range.isEmpty { backend.prefetch(range) }
    } catch {
      return ErrorNumber(error, of: .about)
    }
    return .none
  }

  /// `query`: the payload, if there is one. The extents are not empty unless there is an error.
  func blockStatus(
    _ request: ExtendedRequest, query: UnsafeRawBufferPointer
  ) -> (ErrorNumber, [ExtentStatus]) {
    var length = request.length
    if request.flags.contains(.payloadLength) {
      let bytes = unsafe [UInt8](query)  // SAFETY: the caller's, which are there during the call.
      guard let query = try? BlockStatusQuery(decoding: bytes.span),
        query.contextIDs == [MetaContext.allocationID]
      else { return (.einval, []) }
      length = query.length
    }
    // Nothing can be told of nothing.
    guard length > 0 else { return (.einval, []) }
    do {
      let range = try rules.check(.about, offset: request.offset, length: length)
      do {
        let extents = try AllocationStatus.extents(
          of: range, isOne: request.flags.contains(.reqOne), alignment: rules.alignment,
          in: backend)
        return (.none, extents)
      } catch {
        return (ErrorNumber(error), [])
      }
    } catch {
      return (ErrorNumber(error, of: .about), [])
    }
  }

  /// Reads what is data and names what is not, behind what waits to be sent; nothing is a part of
  /// it yet. How many bytes that are, when there was no error.
  func readPieces(
    _ pieces: [HoleFinder.Piece], from start: UInt64, for request: ExtendedRequest
  ) -> (error: ErrorNumber, byteCount: Int) {
    let style = terms.style
    var offset = start
    var end = 0
    for (index, piece) in pieces.enumerated() {
      let isLast = index == pieces.count - 1
      end += encode(after: end) { output in
        if piece.isHole {
          style.encodeHole(
            of: request, offset: offset, byteCount: piece.byteCount, isLast: isLast, into: &output)
        } else {
          style.encodeDataHead(
            of: request, offset: offset, byteCount: piece.byteCount, isLast: isLast, into: &output)
        }
      }
      if !piece.isHole {
        // SAFETY: the caller has made room for all heads and data.
        let data = unsafe replies.room(for: piece.byteCount, after: end)
        do {
          try unsafe backend.read(into: data, at: offset)
        } catch {
          return (ErrorNumber(error), 0)
        }
        end += piece.byteCount
      }
      offset += UInt64(piece.byteCount)
    }
    return (.none, end)
  }
}

// Answers. Whoever executes a request has made room for them.
extension Transmission {
  /// Appends the answer of a command that has no data, or none because of the error.
  mutating func reply(_ error: ErrorNumber, to request: ExtendedRequest) {
    if error != .none { tally.errors &+= 1 }
    let style = terms.style
    replies.append(encode { style.encode(error, to: request, into: &$0) })
  }

  /// Appends the head of an answer to READ that comes in one piece; the data follow it.
  mutating func replyHead(of request: ExtendedRequest, byteCount: Int) {
    let style = terms.style
    replies.append(
      encode {
        style.encodeDataHead(
          of: request, offset: request.offset, byteCount: byteCount, isLast: true, into: &$0)
      })
  }

  /// Appends the answer to BLOCK_STATUS.
  mutating func reply(_ extents: [ExtentStatus], to request: ExtendedRequest) {
    let chunk = BlockStatusChunk(
      contextID: MetaContext.allocationID, extents: extents,
      isExtended: terms.style == .extended)
    let byteCount = chunk.encodedByteCount
    let style = terms.style
    replies.append(
      encode {
        style.encodeHead(
          chunk.type, of: request, isLast: true, payloadByteCount: byteCount, into: &$0)
      })
    replies.append(encode(upTo: byteCount) { chunk.encode(into: &$0) })
  }

  /// Writes behind what waits, and gives the number of bytes.
  private func encode(
    upTo maximum: Int = ReplyStyle.headByteCountMaximum, after skipped: Int = 0,
    _ body: (inout OutputSpan<UInt8>) -> Void
  ) -> Int {
    // SAFETY: `room` looks at its limits; the bytes are those of nobody else.
    let room = unsafe replies.room(for: maximum, after: skipped).bindMemory(to: UInt8.self)
    var output = unsafe OutputSpan(buffer: room, initializedCount: 0)
    body(&output)
    return unsafe output.finalize(for: room)
  }
}
