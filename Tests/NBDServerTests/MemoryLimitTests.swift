// SPDX-License-Identifier: Apache-2.0
import BlockServer
import Testing

@testable import NBDServer

@Suite("The memory of a connection")
struct MemoryLimitTests {
  @Test(
    "is no more than the configuration is checked against",
    arguments: [65_536, 33_554_432] as [UInt32])
  func bound(requestByteCount: UInt32) {
    #expect(
      SessionBuffers.byteCount(requests: requestByteCount)
        <= ServerConfiguration.connectionByteCount + UInt64(requestByteCount))
  }
}
