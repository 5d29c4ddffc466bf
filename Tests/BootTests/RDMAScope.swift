// SPDX-License-Identifier: Apache-2.0
import Foundation

/// How much a run has: `make test` one run against Linux's client, `make test-rdma` all.
enum RDMAScope {
  static let isWhole = ProcessInfo.processInfo.environment["ROOTLINK_RDMA"] == "all"
  /// Why a test is not run.
  static let reason = "long; `make test-rdma` runs it"
}
