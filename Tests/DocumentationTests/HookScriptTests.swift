// SPDX-License-Identifier: Apache-2.0
import Foundation
import Testing

/// Hooks carry no decisions: what they do is tried in guests, what they must not do is tried here.
@Suite("The hooks")
struct HookScriptTests {
  static func scripts() throws -> [URL] {
    let manager = FileManager.default
    var found: [URL] = []
    for directory in ["initramfs-hooks", "dracut/57rootlink"] {
      found += try manager.contentsOfDirectory(
        at: ManualTests.repository.appendingPathComponent(directory),
        includingPropertiesForKeys: nil)
    }
    return found.filter { $0.lastPathComponent.hasPrefix(".") == false }
  }

  @Test("read no kernel command line of their own")
  func parseNothing() throws {
    let scripts = try Self.scripts()
    #expect(scripts.count >= 11)
    for script in scripts {
      let text = try String(contentsOf: script, encoding: .utf8)
      #expect(!text.contains("/proc/cmdline"), "\(script.lastPathComponent)")
      #expect(text.contains("# SPDX-License-Identifier: Apache-2.0"))
      #expect(FileManager.default.isExecutableFile(atPath: script.path))
    }
  }

  static let hasShellcheck = FileManager.default.isExecutableFile(atPath: "/usr/bin/shellcheck")

  @Test(
    "pass shellcheck",
    .enabled(
      if: hasShellcheck || ManualTests.mustRunAll, "shellcheck is missing: install shellcheck"))
  func shellcheck() throws {
    let process = Process()
    let pipe = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/shellcheck")
    process.arguments = try Self.scripts().map(\.path).sorted()
    process.standardOutput = pipe
    try process.run()
    let complaints = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    #expect(String(decoding: complaints, as: UTF8.self) == "")
  }
}
