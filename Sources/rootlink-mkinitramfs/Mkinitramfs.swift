// SPDX-License-Identifier: Apache-2.0
// Packs rootlink and the kernel modules that a machine needs into an initramfs. The same input
// gives the same bytes. Exit status: 0 done, 1 it could not be done, 2 the request is wrong.

import ArgumentParser
import Foundation
import ImageBuilder

enum Compression: String, ExpressibleByArgument, CaseIterable { case gzip, zstd, none }

struct Mkinitramfs: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rootlink-mkinitramfs",
    abstract: "Packs an initramfs of one program and the kernel modules that it needs.",
    discussion: "Exit status: 0 done, 1 could not be done, 2 the request is wrong. "
      + "Manual: rootlink-mkinitramfs(8).",
    version: "rootlink-mkinitramfs 0.1.0")

  @Option(name: .shortAndLong, help: ArgumentHelp("Write the image to FILE.", valueName: "file"))
  var output: String
  @Option(
    help: ArgumentHelp(
      "Take the modules of this kernel (default: the one that runs).", valueName: "version"))
  var kernel: String?
  @Option(
    help: ArgumentHelp(
      "Take the modules from DIRECTORY, which has modules.dep.", valueName: "directory"))
  var modulesDirectory: String?
  @Option(
    help: ArgumentHelp("Look for modules and firmware below DIRECTORY.", valueName: "directory"))
  var root: String = ""
  @Option(
    help: ArgumentHelp(
      "Load NAME, and what it needs, at once (default: what this machine's network cards need).",
      valueName: "name"))
  var module: [String] = []
  @Option(
    help: ArgumentHelp(
      "Load NAME when it is needed: a file system, overlay, 8021q, ublk_drv (default: ext4).",
      valueName: "name"))
  var onDemand: [String] = []
  @Flag(
    help:
      "Leave out of modules what only debuggers, BPF and backtraces read, and the signature: faster, but it taints."
  )
  var strip = false
  @Flag(help: "No modules: the kernel has all that is needed built in.")
  var noModules = false
  @Option(help: ArgumentHelp("The program (default: rootlink).", valueName: "file"))
  var `init`: String?
  @Option(help: ArgumentHelp("gzip (default), zstd or none.", valueName: "format"))
  var compress: Compression = .gzip
  @Option(help: ArgumentHelp("A static busybox, for a shell on the console.", valueName: "file"))
  var shell: String?
  @Option(help: ArgumentHelp("A file below /lib/firmware.", valueName: "name"))
  var firmware: [String] = []
  @Option(
    help: ArgumentHelp(
      "Words that count as if they stood at the end of the kernel command line.",
      valueName: "file"))
  var parameters: String?
  @Flag(help: "Do not print what went in.")
  var quiet = false

  func run() throws {
    if noModules, !module.isEmpty || !onDemand.isEmpty || kernel != nil || modulesDirectory != nil {
      throw Failure.request(
        reason: "--no-modules goes with no other option about modules", advice: "leave one out")
    }
    if kernel != nil, modulesDirectory != nil {
      throw Failure.request(
        reason: "--kernel and --modules-directory exclude each other", advice: "leave one out")
    }
    var contents = ImageContents()
    try contents.addProgram(try program())
    if !noModules { try addModules(to: &contents) }
    if let shell { try contents.addShell(shell) }
    for name in firmware { try contents.addFirmware(name, root: root) }
    if let parameters {
      let data = try Tools.read(parameters)
      guard data.count <= 64 * 1024, !data.contains(0) else {
        throw Failure.request(
          reason: "\(parameters) is no list of parameters", advice: "give text of at most 64 KiB")
      }
      try contents.add(file: data, at: "etc/rootlink/parameters", permissions: 0o644)
    }
    let plain = Data(contents.archive.encoded())
    let image = try compressed(plain)
    try Tools.write(image, to: URL(fileURLWithPath: output))
    if quiet { return }
    let text =
      contents.listing + "\(pad(plain.count))  bytes of archive\n"
      + "\(pad(image.count))  bytes in \(output), \(compress.rawValue)\n"
    FileHandle.standardOutput.write(Data(text.utf8))
  }

  private func program() throws -> String {
    if let `init` { return `init` }
    let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
      .deletingLastPathComponent().path
    let places = [own + "/rootlink", "/usr/sbin/rootlink"]
    for path in places where FileManager.default.isExecutableFile(atPath: path) { return path }
    throw Failure.noInit(tried: places)
  }

  private func addModules(to contents: inout ImageContents) throws {
    let tree = try KernelTree(
      directory: modulesDirectory ?? root + "/lib/modules/" + (kernel ?? KernelTree.runningVersion))
    var names = module
    if names.isEmpty {
      names = tree.modulesOfThisMachine()
      if names.isEmpty { throw Failure.noNetworkCard }
    }
    if !names.contains("nbd") { names.append("nbd") }
    try contents.addModules(names, group: "start", from: tree, stripped: strip)
    for name in onDemand.isEmpty ? ["ext4"] : onDemand {
      try contents.addModules(
        [name], group: KernelModule.name(of: name), from: tree, stripped: strip)
    }
    try contents.addModuleList()
  }

  /// gzip and zstd write nothing of their own into it: no name, no time.
  private func compressed(_ plain: Data) throws -> Data {
    if compress == .none { return plain }
    return try Tools.inDirectory { directory in
      let file = directory.appendingPathComponent("image")
      try Tools.write(plain, to: file)
      return compress == .gzip
        ? try Tools.output("gzip", ["-9nc"], of: file.path)
        : try Tools.output("zstd", ["-19", "-qc"], of: file.path)
    }
  }
}

@main
enum Program {
  static func main() {
    do {
      var command = try Mkinitramfs.parseAsRoot()
      try command.run()
    } catch let failure as Failure {
      let report = failure.report
      FileHandle.standardError.write(
        Data("rootlink-mkinitramfs: \(report.reason); \(report.advice)\n".utf8))
      exit(failure.isRequestWrong ? 2 : 1)
    } catch {
      let message = Mkinitramfs.fullMessage(for: error) + "\n"
      guard Mkinitramfs.exitCode(for: error) == .success else {
        FileHandle.standardError.write(Data(message.utf8))
        exit(2)
      }
      FileHandle.standardOutput.write(Data(message.utf8))
    }
  }
}
