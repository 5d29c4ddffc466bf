// SPDX-License-Identifier: Apache-2.0
import ImageBuilder
import TestSupport
import Testing

@Suite("The kernel's modules")
struct ModuleIndexTests {
  /// Lines as depmod(8) wrote them for Debian's 6.12, cut down.
  static let dependencies = """
    kernel/net/core/failover.ko.xz:
    kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
    kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
    kernel/drivers/block/nbd.ko.xz:
    kernel/lib/crc16.ko.xz:
    kernel/fs/mbcache.ko.xz:
    kernel/fs/jbd2/jbd2.ko.xz: kernel/lib/libcrc32c.ko.xz
    kernel/lib/libcrc32c.ko.xz:
    kernel/arch/x86/crypto/crc32c-intel.ko.xz:
    kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz kernel/fs/mbcache.ko.xz
    kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko.xz: kernel/drivers/ptp/ptp.ko.xz
    kernel/drivers/ptp/ptp.ko.xz:
    kernel/drivers/char/late.ko:
    """
  static let soft = """
    # Soft dependencies extracted from modules themselves.
    softdep libcrc32c pre: crc32c-intel absent
    softdep jbd2 pre: ext4
    softdep nbd post: late
    softdep mbcache gcm
    softdep mbcache pre: crypto-crc32c
    """
  static let aliases = """
    # Aliases extracted from modules themselves.
    alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e
    alias virtio:d00000001v* virtio_net
    alias fs-ext[234] ext4
    alias block-major-43-* nbd
    alias crypto-crc32c crc32c-intel
    alias crypto-crc32c late
    """

  static func index() throws -> ModuleIndex {
    try ModuleIndex(
      dependencies: dependencies, builtin: "kernel/drivers/virtio/virtio-pci.ko\n",
      softDependencies: soft, aliases: aliases)
  }

  @Test("are loaded after what they need, by whatever name they are asked for")
  func order() throws {
    let index = try Self.index()
    let rows: [([String], [String])] = [
      (["virtio-net"], ["failover", "net_failover", "virtio_net"]),
      (["virtio_net.ko.xz", "failover"], ["failover", "net_failover", "virtio_net"]),
      (
        ["ext4"], ["crc32c_intel", "libcrc32c", "jbd2", "crc16", "late", "mbcache", "ext4"]
      ),
      (["nbd", "virtio_pci"], ["nbd", "late"]), ([], []),
      (["e1000e", "ptp"], ["ptp", "e1000e"]),
    ]
    for (names, expected) in rows {
      #expect(try index.loadOrder(of: names).map(\.name) == expected, "\(names)")
    }
    let without = try index.loadOrder(of: ["ext4", "nbd"], excluding: ["crc32c-intel", "late"])
    #expect(without.map(\.name) == ["libcrc32c", "jbd2", "crc16", "mbcache", "ext4", "nbd"])
    #expect(try index.loadOrder(of: ["nbd"])[0].path == "kernel/drivers/block/nbd.ko.xz")
  }

  @Test("that are not there or go in circles are said by name")
  func errors() throws {
    #expect(throws: ModuleIndexError.notFound("zfs", neededBy: nil)) {
      try Self.index().loadOrder(of: ["zfs"])
    }
    let broken = try ModuleIndex(dependencies: "a.ko: b.ko\nb.ko: c.ko\nc.ko: a.ko\nd.ko: e.ko\n")
    #expect(throws: ModuleIndexError.circle(["a", "b", "c"])) { try broken.loadOrder(of: ["a"]) }
    #expect(throws: ModuleIndexError.notFound("e", neededBy: "d")) {
      try broken.loadOrder(of: ["d"])
    }
    #expect(throws: ModuleIndexError.malformed(file: "modules.dep", line: 2)) {
      try ModuleIndex(dependencies: "a.ko:\nb.ko\n")
    }
    #expect(throws: ModuleIndexError.malformed(file: "modules.softdep", line: 1)) {
      try ModuleIndex(dependencies: "", softDependencies: "softdep")
    }
    #expect(throws: ModuleIndexError.malformed(file: "modules.alias", line: 1)) {
      try ModuleIndex(dependencies: "", aliases: "alias a")
    }
  }

  @Test(
    "are found for a device",
    arguments: [
      ("pci:v00008086d000010D3sv00001AF4sd00001100bc02sc00i00", ["e1000e"]),
      ("pci:v00008086d000010D4sv00001AF4sd00001100bc02sc00i00", []),
      ("virtio:d00000001v00001AF4", ["virtio_net"]), ("fs-ext3", ["ext4"]), ("fs-ext5", []),
      ("block-major-43-0", ["nbd"]), ("", []),
    ])
  func aliases(modalias: String, modules: [String]) throws {
    #expect(try Self.index().modules(forModalias: modalias) == modules)
  }

  /// Source: fnmatch(3), glob(7).
  @Test(
    "have patterns",
    arguments: [
      ("*", "", true), ("a*b*c", "axxbyyc", true), ("a*b*c", "axxbyy", false), ("?", "", false),
      ("[!a-c]x", "dx", true), ("[!a-c]x", "bx", false), ("[a-]", "-", true), ("[", "[", true),
      ("a[", "ab", false), ("**a", "a", true), ("a", "ab", false), ("[^a]", "a", false),
      ("*[0-9]", "x7", true), ("a soc card", "a soc card", true),
    ])
  func patterns(pattern: String, text: String, matches: Bool) throws {
    let index = try ModuleIndex(dependencies: "m.ko:", aliases: "alias \(pattern) m")
    #expect(index.modules(forModalias: text) == (matches ? ["m"] : []))
  }

  @Test("are matched in time whatever the pattern")
  func manyStars() throws {
    let pattern = String(repeating: "*a", count: 200) + "b"
    let index = try ModuleIndex(dependencies: "m.ko:", aliases: "alias \(pattern) m")
    #expect(index.modules(forModalias: String(repeating: "a", count: 2000)).isEmpty)
  }

  @Test("listed in mutated bytes never trap", arguments: 0..<10)
  func mutated(shard: Int) {
    var generator = SeededGenerator(printingAs: "module lists")
    let lines = (Self.dependencies + "\n" + Self.soft + "\n" + Self.aliases).split(separator: "\n")
    var mutator = ByteMutator(
      samples: lines.map { Array($0.utf8) }, alphabet: Array(" :*?[]-_/.#\nabc".utf8),
      seed: generator.next())
    for _ in 0..<1000 {
      let text = String(decoding: mutator.next(), as: UTF8.self)
      let other = String(decoding: mutator.next(), as: UTF8.self)
      if let index = try? ModuleIndex(dependencies: text + "\n" + Self.dependencies) {
        _ = try? index.loadOrder(of: ["ext4", "virtio_net"])
      }
      let index = try? ModuleIndex(
        dependencies: Self.dependencies, softDependencies: other, aliases: text)
      _ = index?.modules(forModalias: other)
      _ = try? index?.loadOrder(of: ["nbd"])
    }
  }
}
