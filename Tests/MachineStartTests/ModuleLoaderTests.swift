// SPDX-License-Identifier: Apache-2.0
import BootPlanning
import LinuxSystem
import TestSupport
import Testing
import WireFormat

@testable import MachineStart

@Suite("The list of modules")
struct ModuleLoaderTests {
  @Test("has a group and a path on each line")
  func entries() {
    let list: ByteString =
      "start /lib/modules/6.12/a.ko\n\n  ext4 /lib/modules/6.12/fs/ext4.ko\nodd\nodd \n"
    let entries = ModuleLoader.entries(list)
    #expect(entries.map(\.group) == ["start", "ext4"])
    #expect(entries.map(\.path) == ["/lib/modules/6.12/a.ko", "/lib/modules/6.12/fs/ext4.ko"])
    #expect(ModuleLoader.entries("").isEmpty)
  }

  @Test(
    "names modules as the kernel does",
    arguments: [
      ("/lib/modules/6.12/crc32c-intel.ko", "crc32c_intel"), ("nbd", "nbd"), ("a/b.ko.x", "b"),
      ("", ""), ("/", ""), ("-", "_"),
    ])
  func names(path: String, name: String) {
    #expect(ModuleLoader.name(of: ByteString(path)) == ByteString(name))
  }

  @Test(
    "prefers what it is told to, unless the command line says otherwise",
    arguments: [
      ("quiet", "nbds_max=1"), ("nbd.nbds_max=8", "nbds_max=8"), ("nbd.x", "x nbds_max=1"),
    ])
  func preferred(line: String, text: String) {
    var loader = ModuleLoader(
      commandLine: ByteString(line), blacklist: [], log: Log(.standardError))
    loader.prefer("nbd.nbds_max=1")
    #expect(ModuleLoader.parameters(of: "nbd", in: loader.words) == ByteString(text))
  }

  @Test(
    "gives a module the parameters that the command line has for it",
    arguments: [
      ("nbd", "nbd.max_part=15 quiet nbd.nbds_max=4 nbdroot=x", "max_part=15 nbds_max=4"),
      ("snd_hda", "snd-hda.flag snd_hda.text=\"a b\"", "flag text=\"a b\""),
      ("nbd", "xnbd.a=1 nbd=1 nbd. .nbd=1", ""), ("rootlink", "-- rootlink.panic=1", ""),
    ])
  func parameters(module: String, line: String, text: String) {
    let words = KernelParameter.split(ByteString(line))
    #expect(ModuleLoader.parameters(of: ByteString(module), in: words) == ByteString(text))
  }
}

@Suite("What the child tells process 1")
struct StartMessagesTests {
  @Test("is the program with its arguments, and the seconds before a restart")
  func records() {
    let told = StartMessages.decode(Array("R5\0\0S/sbin/init\0single\0\0".utf8))
    #expect(told.restartSeconds == 5)
    #expect(told.words == ["/sbin/init", "single"])
    #expect(StartMessages.decode([]).words.isEmpty)
  }

  @Test("does not bring process 1 to a trap, whatever it is")
  func mutated() {
    var generator = SeededGenerator(printingAs: "messages to process 1")
    var mutator = ByteMutator(
      samples: [Array("R5\0\0S/sbin/init\0single\0\0".utf8)], alphabet: [0, 0x52, 0x53, 0x39],
      seed: generator.next())
    for _ in 0..<20_000 { _ = StartMessages.decode(mutator.next()) }
  }
}
