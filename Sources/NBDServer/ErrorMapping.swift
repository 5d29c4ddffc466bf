// SPDX-License-Identifier: Apache-2.0
// Backend errors and refusals as numbers of the protocol: the one place that knows both.

import BlockBackends
import BlockServer
import LinuxSystem
import NBDProtocol

extension ErrorNumber {
  /// Source: NBD `doc/proto.md`, "Error values"; the numbers on the left are Linux's.
  init(_ error: BackendError) {
    switch error {
    case .readOnly: self = .eperm
    case .range: self = .einval
    case .truncated: self = .eio
    case .notFast: self = .enotsup
    case .system(let system):
      switch system.errno {
      case 1, 13, 30: self = .eperm  // EPERM, EACCES, EROFS
      case 12: self = .enomem
      case 22: self = .einval
      case 28, 122, 27: self = .enospc  // ENOSPC, EDQUOT, EFBIG
      default: self = .eio
      }
    }
  }

  /// A range past the end has one number for what grows and another for the rest.
  init(_ refusal: RequestRefusal, of kind: RequestKind) {
    switch refusal {
    case .readOnly: self = .eperm
    case .outOfRange: self = kind == .write || kind == .writeZeroes ? .enospc : .einval
    case .misaligned, .tooLong: self = .einval
    }
  }
}
