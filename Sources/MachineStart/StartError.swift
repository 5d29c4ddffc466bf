// SPDX-License-Identifier: Apache-2.0
import BootPlanning
import LinuxSystem
import NetworkSetup
import WireFormat

/// Why the machine did not get as far as its init.
indirect enum StartError: Error, Equatable, Sendable {
  case commandLine(SystemError)
  case parameters(PlanError)
  case network(NetworkError)
  /// What was wrong has been said.
  case notAttached(wrongRequest: Bool)
  case noRootNamed
  /// After `seconds`; `present` are the devices that were there, with what lies on them.
  case rootMissing(ByteString, seconds: UInt64, present: [ByteString])
  case deviceEmpty(ByteString)
  case noFileSystem(ByteString)
  case notMounted(ByteString, fileSystem: ByteString, SystemError)
  case overlay(step: ByteString, SystemError)
  case noInit(ByteString)
  case system(step: StaticFieldName, SystemError)

  /// Another attempt cannot do better.
  var isRequestWrong: Bool {
    switch self {
    case .parameters, .noRootNamed: true
    case .notAttached(let wrongRequest): wrongRequest
    default: false
    }
  }

  var report: (reason: String, advice: String) {
    switch self {
    case .commandLine(let error):
      ("the kernel command line cannot be read: \(error.text)", "the kernel needs /proc")
    case .parameters(let error): error.report
    case .network(let error): error.report
    case .notAttached:
      ("the root device is not attached", "the lines above say why")
    case .noRootNamed:
      ("nothing names a root device", "add nbdroot= or root= to the kernel command line")
    case .rootMissing(let root, let seconds, let present):
      (
        "the root \(root.printable) has not appeared within \(seconds) s"
          + (present.isEmpty ? "; no disk is there" : "; there are " + present.printableList),
        "check root=; rootwait waits for ever"
      )
    case .deviceEmpty(let device):
      (
        "\(device.printable) is empty: no export is attached to it",
        "name a server with nbdroot=, or a root path in the DHCP lease"
      )
    case .noFileSystem(let device):
      (
        "no file system is recognized on \(device.printable)",
        "name it with rootfstype=, or the partition with root="
      )
    case .notMounted(let device, let fileSystem, let error):
      (
        "\(device.printable) cannot be mounted as \(fileSystem.printable): \(error.text)",
        error.errno == 19
          ? "the image lacks the module \(fileSystem.printable)"
          : "check the file system, rootfstype= and rootflags="
      )
    case .overlay(let step, let error):
      (
        "the layer in memory cannot be made (\(step.printable)): \(error.text)",
        error.errno == 19 ? "the image lacks the module overlay" : "check rootlink.overlay="
      )
    case .noInit(let path):
      ("\(path.printable) cannot be executed on the root", "check init= and what the export holds")
    case .system(let step, let error): ("\(step): \(error.text)", "see the lines above")
    }
  }
}
