// SPDX-License-Identifier: Apache-2.0
import WireFormat

/// The leases that count for a plan: one interface's, laid over each other.
struct LeaseSelection {
  /// Nil when no file was a lease.
  var lease: Lease?
  var paths: [ByteString] = []
  var warnings: [PlanWarning] = []

  init(from input: PlanningInput, network: NetworkParameters) {}
}
