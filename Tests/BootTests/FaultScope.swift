// SPDX-License-Identifier: Apache-2.0
// How much of the faults a run has: `make test` the cases that come first, `make test-faults` all.

import Foundation

enum FaultScope {
  static let isWhole = ProcessInfo.processInfo.environment["ROOTLINK_FAULTS"] == "all"
  /// Why a case is not run.
  static let reason = "long; `make test-faults` runs it"

  static func cases<Case>(_ all: [Case], short count: Int) -> [Case] {
    isWhole ? all : Array(all.prefix(count))
  }
}
