// SPDX-License-Identifier: Apache-2.0

import WireFormat

/// A lease's root-path (option 17), which may be meant for NFS, iSCSI or somebody else.
struct RootPath {
  /// Without the `nbdroot=` that some administrators put in front. Its indices are offsets in the
  /// root-path as it was sent.
  let text: Text

  init(_ value: ByteString) {
    let bytes = value.bytes[...]
    text = bytes.hasPrefix("nbdroot=") ? bytes.dropFirst(8) : bytes
  }

  private static let foreignWords = [
    "iscsi", "nfs", "nfs4", "fcoe", "aoe", "cifs", "smb", "http", "https", "ftp", "tftp", "nvmf",
    "nvme", "virtiofs", "9p", "ceph", "glusterfs", "sshfs", "live", "block", "overlay", "rbd",
    "srp", "ib_srp",
  ]

  /// It belongs to another protocol: a scheme that is not ours, with or without `//`.
  var isForeign: Bool {
    if text.schemeEnd != nil { return !NBDURI.isNBD(text) }
    guard let (word, _) = text.cut(at: .colon) else { return false }
    for foreign in Self.foreignWords where word.isEqual(to: foreign) { return true }
    return false
  }

  /// It says by itself that it is for NBD. A bare path may be NFS.
  var isExplicit: Bool { RootParameter.namesServer(text) || isPrefixed }
  private var isPrefixed: Bool { text.startIndex > 0 }

  /// What it asks for, or nil when it is not one of ours or does not follow the grammar.
  var request: NBDRequest? {
    guard !text.isEmpty, !isForeign else { return nil }
    do throws(SyntaxError) {
      return try NBDRootGrammar.request(from: text, in: .rootPath)
    } catch {
      return nil
    }
  }
}
