// SPDX-License-Identifier: Apache-2.0
import LinuxSystem
import WireFormat

/// Why there is no layer to write into.
public enum LayerError: Error, Equatable, Sendable {
  /// The system refuses what a layer needs there, or the image is too large for one.
  case cannotKeep(directory: ByteString, SystemError)
  /// There is no such file.
  case gone(ByteString)
  /// Somebody else has it locked, perhaps another process.
  case inUse(ByteString)
  /// Not a layer of ours, or one of another attachment, export or image.
  case foreign(ByteString, StaticFieldName)
  /// Cut off or overwritten.
  case torn(ByteString, StaticFieldName)

  /// What happened, with the path, and what the administrator can do about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .cannotKeep(let directory, let error):
      (
        "no overlay can be kept in \(directory.printable): \(error.text)",
        "set overlay_directory, or layers= of the export, to a directory with space that "
          + "rootlinkd may write to"
      )
    case .gone(let path):
      ("there is no layer \(path.printable)", "boot the machine that wants it anew")
    case .inUse(let path):
      (
        "the layer \(path.printable) is in use",
        "stop the other rootlinkd, or give it other layers="
      )
    case .foreign(let path, let what):
      (
        "the layer \(path.printable) does not belong here: \(what.text)",
        "bring the image back that it was made for, or remove the file and boot the machine anew"
      )
    case .torn(let path, let what):
      (
        "the layer \(path.printable) is damaged: \(what.text)",
        "remove the file and boot the machine anew"
      )
    }
  }
}
