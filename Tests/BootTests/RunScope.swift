// SPDX-License-Identifier: Apache-2.0
// How much a run has: `make test` the cases that come first, `make test-faults` and
// `make test-boots` all.

import Foundation

enum RunScope {
  static let isWhole = ProcessInfo.processInfo.environment["ROOTLINK_LONG"] == "1"
  /// Why a case is not run.
  static let reason = "long; `make test-faults` or `make test-boots` runs it"

  static func cases<Case>(_ all: [Case], short count: Int) -> [Case] {
    isWhole ? all : Array(all.prefix(count))
  }
}
