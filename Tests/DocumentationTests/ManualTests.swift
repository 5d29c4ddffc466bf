// SPDX-License-Identifier: Apache-2.0
// The manual says what the programs do: compared both ways, so that neither can change alone.

import ConfigurationFile
import Foundation
import Testing

@Suite("The manual")
struct ManualTests {
  static let repository = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
  static let pages = [
    "rootlink.8", "rootlinkd.8", "rootlink-cmdline.7", "rootlink-init.8", "rootlink-mkinitramfs.8",
  ]
  static let mustRunAll = ProcessInfo.processInfo.environment["ROOTLINK_REQUIRE_ALL"] != nil

  static func source(_ page: String) throws -> String {
    try String(
      contentsOf: repository.appendingPathComponent("docs/man/\(page)"), encoding: .utf8)
  }

  /// The page without fonts: `\fBx\fP` is x, `\-` is -.
  static func plain(_ page: String) throws -> String {
    try source(page).replacing(/\\f[A-Z]/, with: "").replacing("\\-", with: "-")
  }

  /// The lines of a section, by its heading.
  static func section(_ heading: String, of page: String) throws -> [Substring] {
    let lines = try plain(page).split(separator: "\n")
    let start = try #require(lines.firstIndex(of: ".SH \(heading)"), "\(page): \(heading)")
    return Array(lines[(start + 1)...].prefix { !$0.hasPrefix(".SH ") })
  }

  static func options(in text: String) -> Set<String> {
    Set(text.matches(of: /(?:^|[^A-Za-z0-9_-])(--[a-z][a-z-]*)/).map { String($0.1) })
  }

  /// What a program built beside this test prints.
  static func output(of program: String, _ arguments: [String]) throws -> String {
    let directory = URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent()
    let process = Process()
    let pipe = Pipe()
    process.executableURL = directory.appendingPathComponent(program)
    process.arguments = arguments
    process.standardOutput = pipe
    process.standardError = FileHandle.nullDevice
    try process.run()
    let data = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return String(decoding: data, as: UTF8.self)
  }

  static let helps: [(page: String, program: String, arguments: [[String]])] = [
    ("rootlink.8", "rootlink", [["--help"]]),
    (
      "rootlinkd.8", "rootlinkd",
      [["--help"], ["serve", "--help"], ["check", "--help"], ["status", "--help"]]
    ),
    ("rootlink-mkinitramfs.8", "rootlink-mkinitramfs", [["--help"]]),
  ]

  @Test("has every option that the help has, and no other", arguments: helps)
  func options(page: String, program: String, arguments: [[String]]) throws {
    let help = try arguments.map { try Self.output(of: program, $0) }.joined(separator: "\n")
    let known = Self.options(in: help)
    #expect(known.contains("--version"), "\(program) --help printed: \(help.prefix(200))")
    let documented = Self.options(
      in: try Self.section("OPTIONS", of: page).joined(separator: "\n"))
    #expect(documented == known)
    let shown = Self.options(in: try Self.section("SYNOPSIS", of: page).joined(separator: "\n"))
    #expect(shown == known)
  }

  /// In EXIT STATUS of both: what DESIGN.md promises to scripts.
  @Test(
    "gives the three exit statuses",
    arguments: ["rootlink.8", "rootlinkd.8", "rootlink-mkinitramfs.8"])
  func exitStatus(page: String) throws {
    let bold = try Self.section("EXIT STATUS", of: page).filter { $0.hasPrefix(".B ") }
    #expect(bold.filter { $0 != ".B attach" } == [".B 0", ".B 1", ".B 2"])
  }

  @Test("has EXAMPLES before OPTIONS and every section that a page must have", arguments: pages)
  func sections(page: String) throws {
    let headings = try Self.plain(page).split(separator: "\n").filter { $0.hasPrefix(".SH ") }
      .map { String($0.dropFirst(4)) }
    for heading in [
      "NAME", "DESCRIPTION", "EXAMPLES", "KERNEL PARAMETERS", "EXIT STATUS",
      "DIAGNOSTICS", "SEE ALSO",
    ] {
      #expect(headings.contains(heading), "\(heading)")
    }
    if let options = headings.firstIndex(of: "OPTIONS") {
      let examples = try #require(headings.firstIndex(of: "EXAMPLES"))
      #expect(examples < options)
    }
  }

  /// Names as the planner compares them, where `-` is `_`.
  static func plannerParameters() throws -> Set<String> {
    try parameters(of: "BootParameters").union((0...7).map { "nbd\($0)" })
  }

  static func parameters(of file: String) throws -> Set<String> {
    let text = try String(
      contentsOf: repository.appendingPathComponent("Sources/BootPlanning/\(file).swift"),
      encoding: .utf8)
    return Set(text.matches(of: /isNamed\("([^"]+)"\)/).map { String($0.1) })
  }

  @Test("has every kernel parameter that process 1 reads")
  func startParameters() throws {
    let known = try Self.parameters(of: "StartParameters")
    #expect(known.count > 15, "the source is not as this test expects it")
    let text = try Self.section("KERNEL PARAMETERS", of: "rootlink-init.8")
      .joined(separator: "\n")
    for name in known {
      #expect(
        text.contains("\(name)=") || ["ro", "rw", "rootwait", "rd.break", "break"].contains(name),
        "\(name) is not in rootlink-init(8)")
    }
  }

  /// Keys inside a value, in the manual's descriptions.
  static let valueKeys: Set = [
    "sessname", "path", "device_path", "access_mode", "io_mode", "port", "queues", "dev", "bs",
    "timeout", "connections", "socket", "UUID", "LABEL", "PARTUUID", "PARTLABEL", "nbd", "NBD",
  ]

  @Test("has every kernel parameter that the planner reads, and no other")
  func parameters() throws {
    let known = try Self.plannerParameters()
    #expect(known.count > 20, "the planner's source is not as this test expects it")
    let text = try Self.section("KERNEL PARAMETERS", of: "rootlink-cmdline.7")
      .joined(separator: "\n")
    var documented = Set(
      text.matches(of: /([A-Za-z][A-Za-z0-9_.-]*)=/).map {
        String($0.1).replacing("-", with: "_")
      })
    for flag in ["ro", "rw", "rootwait"] where text.contains(flag) { documented.insert(flag) }
    documented.subtract(Self.valueKeys)
    if documented.contains("nbd0"), documented.contains("nbd7") {
      documented.formUnion((1...6).map { "nbd\($0)" })
    }
    #expect(known.subtracting(documented).isEmpty, "not in rootlink-cmdline(7)")
    #expect(documented.subtracting(known).isEmpty, "the planner does not read it")
  }

  @Test("of the configuration has every key that is known, in its order, and no other")
  func configurationKeys() throws {
    let section =
      try Self.section("KEYS", of: "rootlinkd.toml.5")
      + Self.section("BACKENDS", of: "rootlinkd.toml.5")
    // Behind `.TP` stands what is explained, in bold: one key, or several with commas.
    var documented: [String] = []
    for (line, next) in zip(section, section.dropFirst()) where line == ".TP" {
      documented += next.split(whereSeparator: { " \",".contains($0) }).dropFirst().map(String.init)
    }
    let known = ConfigurationKeys.all
    let isKey = documented.filter { known.contains($0) || $0.contains(".") }
    let top = documented.filter { ["listen", "control"].contains($0) }
    #expect(!top.isEmpty)
    #expect(Set(isKey) == Set(known))
    #expect(isKey.count == Set(isKey).count, "a key is explained twice")
  }

  @Test("of the design lists the modules of the package, built as the package builds them")
  func modules() throws {
    let package = try String(
      contentsOf: Self.repository.appendingPathComponent("Package.swift"), encoding: .utf8)
    var built: [String: String] = ["CLinux": "both ways", "rootlink": "both ways"]
    built["CVerbs"] = "both ways"
    built["rootlinkd"] = "ordinary"
    for match in package.matches(of: /(bothWays|ordinary)\(\s*"([A-Za-z]+)"/) {
      built[String(match.2)] = match.1 == "ordinary" ? "ordinary" : "both ways"
    }
    let design = try String(
      contentsOf: Self.repository.appendingPathComponent("docs/design.md"), encoding: .utf8)
    var listed: [String: String] = [:]
    for match in design.matches(of: /(?m)^\| ([A-Za-z]+) \| .* \| (both ways|ordinary) \|$/) {
      listed[String(match.1)] = String(match.2)
    }
    #expect(listed == built)
  }

  static let hasGroff = FileManager.default.isExecutableFile(atPath: "/usr/bin/groff")

  @Test(
    "is parsed by groff without a warning",
    .enabled(if: hasGroff || mustRunAll, "groff is missing: install groff-base"),
    arguments: pages + ["rootlinkd.toml.5"])
  func parses(page: String) throws {
    let process = Process()
    let pipe = Pipe()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/groff")
    process.arguments = [
      "-man", "-Tutf8", "-ww", "-z",
      Self.repository.appendingPathComponent("docs/man/\(page)").path,
    ]
    process.standardError = pipe
    try process.run()
    let complaints = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    #expect(String(decoding: complaints, as: UTF8.self) == "")
    #expect(process.terminationStatus == 0)
  }
}
