// SPDX-License-Identifier: Apache-2.0
import Foundation

/// What was waited for has not happened.
public struct NotHappened: Error, CustomStringConvertible {
  public let description: String
}

/// Waits for a fact, 20 s at most: far longer than it takes on a busy machine.
public func wait(_ what: String, until fact: () -> Bool) throws {
  let deadline = ContinuousClock.now + .seconds(20)
  while !fact() {
    guard ContinuousClock.now < deadline else {
      throw NotHappened(description: "\(what) did not happen")
    }
    usleep(1000)
  }
}
