// SPDX-License-Identifier: Apache-2.0
import LinuxSystem

/// What becomes of those who connect; called by reactors.
struct Acceptance: Sendable {
  /// No connection can be accepted now.
  let failed: @Sendable (SystemError) -> Void
  let take: @Sendable (consuming AcceptedConnection) -> Void
}
