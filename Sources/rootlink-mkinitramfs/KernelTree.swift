// SPDX-License-Identifier: Apache-2.0
// The modules of one kernel, as they lie in a root.

import Foundation
import ImageBuilder

struct KernelTree {
  let version: String
  /// `/lib/modules/6.12.0`
  let directory: String
  let index: ModuleIndex

  init(directory: String) throws {
    self.directory = directory
    version = URL(fileURLWithPath: directory).lastPathComponent
    func text(_ name: String) -> String? {
      (try? Data(contentsOf: URL(fileURLWithPath: directory + "/" + name))).map {
        String(decoding: $0, as: UTF8.self)
      }
    }
    guard let dependencies = text("modules.dep") else {
      throw Failure.noKernel(directory: directory)
    }
    do {
      index = try ModuleIndex(
        dependencies: dependencies, builtin: text("modules.builtin") ?? "",
        softDependencies: text("modules.softdep") ?? "", aliases: text("modules.alias") ?? "")
    } catch { throw Failure.module(error) }
  }

  /// Of the kernel that runs.
  static var runningVersion: String {
    let text = (try? String(contentsOfFile: "/proc/sys/kernel/osrelease", encoding: .utf8)) ?? ""
    return text.trimmingCharacters(in: .whitespacesAndNewlines)
  }

  /// Where it lies in the image: without what compresses it.
  func imagePath(of module: KernelModule) -> String {
    var path = module.path
    for suffix in [".xz", ".zst", ".gz"] where path.hasSuffix(suffix) {
      path.removeLast(suffix.count)
    }
    return "lib/modules/\(version)/\(path)"
  }

  /// What the network cards of this machine need: of each, the modules for it and for what it is
  /// plugged into.
  func modulesOfThisMachine(sysfs: String = "/sys") -> [String] {
    var names: [String] = []
    let manager = FileManager.default
    for interface in ((try? manager.contentsOfDirectory(atPath: sysfs + "/class/net")) ?? [])
      .sorted()
    {
      let link = sysfs + "/class/net/" + interface + "/device"
      guard manager.fileExists(atPath: link) else { continue }
      var device = URL(fileURLWithPath: link).resolvingSymlinksInPath()
      while device.path.hasPrefix(sysfs + "/devices/") {
        if let alias = try? String(
          contentsOfFile: device.path + "/modalias", encoding: .utf8)
        {
          for name in index.modules(
            forModalias: alias.trimmingCharacters(in: .whitespacesAndNewlines))
          where !names.contains(name) {
            names.append(name)
          }
        }
        device.deleteLastPathComponent()
      }
    }
    return names
  }
}
