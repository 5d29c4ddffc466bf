// SPDX-License-Identifier: Apache-2.0
import Foundation
import ImageBuilder

/// Why no image was made.
enum Failure: Error {
  case module(ModuleIndexError)
  case archive(CPIOError)
  case noKernel(directory: String)
  case unreadable(path: String, reason: String)
  case unwritable(path: String, reason: String)
  case tool(name: String, reason: String)
  case noInit(tried: [String])
  case noNetworkCard
  case request(reason: String, advice: String)

  var isRequestWrong: Bool { if case .request = self { true } else { false } }

  var report: (reason: String, advice: String) {
    switch self {
    case .module(let error): error.report
    case .archive(let error): error.report
    case .noKernel(let directory):
      ("there is no \(directory)/modules.dep", "name the version with --kernel, or run depmod")
    case .unreadable(let path, let reason): ("cannot read \(path): \(reason)", "check the path")
    case .unwritable(let path, let reason):
      ("cannot write \(path): \(reason)", "check the directory and its space")
    case .tool(let name, let reason):
      ("\(name): \(reason)", "install the package that has \(name), or choose another --compress")
    case .noInit(let tried):
      (
        "there is no rootlink; looked at " + tried.joined(separator: ", "),
        "name it with --init"
      )
    case .noNetworkCard:
      (
        "this machine shows no network card that a module of that kernel is for",
        "name the modules of the machine that will boot with --module"
      )
    case .request(let reason, let advice): (reason, advice)
    }
  }
}
