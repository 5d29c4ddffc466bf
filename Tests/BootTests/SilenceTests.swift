// SPDX-License-Identifier: Apache-2.0
// A server that says nothing, and whose connection lives: stopped, or cut off behind a cable. One
// connection, where the kernel's driver would wait for ever.

import Foundation
import TestSupport
import Testing

@Suite(
  "A device whose server falls silent", .serialized,
  .enabled(if: TinyGuest.isEnabled, "the tiny guest lacks \(TinyGuest.missing ?? "nothing")"))
struct SilenceTests {
  let directory: TemporaryDirectory
  init() throws { directory = try TemporaryDirectory(inMemory: true) }

  /// `quiet DIRECTORY` is a load of little: the server's machine has room for all of it, so that
  /// nothing but the answers is missing. `now` is in 1/100 s.
  static let functions = """
    export ROOTLINK_STRICT=1
    now() { cut -d' ' -f1 /proc/uptime | tr -d .; }
    quiet() {
      rounds=0
      while [ ! -e /tmp/stop ]; do
        dd if=/dev/urandom of=/tmp/quiet bs=4k count=2 2>/dev/null
        cp /tmp/quiet "$1/quiet" && sync && echo 3 >/proc/sys/vm/drop_caches &&
          cmp /tmp/quiet "$1/quiet" || echo "load: MISMATCH in round $rounds"
        rounds=$((rounds + 1))
        echo "load: round $rounds at $(now)"
      done
      echo "load: ended after $rounds rounds"
    }
    finish() {
      touch /tmp/stop
      ended $!
      result load grep -v round /tmp/load.log
      result end tail -n 1 /tmp/load.log
      result alive grep -lx rootlink-keeper /proc/[0-9]*/comm
      result unmount umount /mnt
      result detach rootlink detach nbd0
      result said sh -c "dmesg | grep rootlink:"
      dmesg | grep -iE "I/O error|EXT4-fs error" || echo "no I/O error"
    }

    """

  @Test(
    "is left for another server that answers; it never wakes up",
    arguments: RunScope.cases(TinyGuest.Kernel.allCases, short: 1))
  // One that wakes up in the middle of a write over a shared disk ends that write: rootlink(8).
  func otherServer(kernel: TinyGuest.Kernel) throws {
    let image = try fileSystemImage()
    let servers = try (0..<2).map { _ in try FaultyServer(image, in: directory) }
    let names = servers.map { $0.uri.replacing("nbd://", with: "") }
    let console = try TinyGuest.run(
      Self.functions + """
        result attach rootlink attach --cmdline \
          "nbdroot=\(names[0])/root rootlink.replica=\(names[1]) rootlink.answer=4"
        mount -t ext4 /dev/nbd0 /mnt
        load /mnt >/tmp/load.log &
        rounds 2
        fault stop
        begun=$(now)
        until rootlink status nbd0 | grep -q "live, \(names[1])"; do sleep 0.2; done
        rounds 2
        echo "took $(($(now) - begun))"
        fault kill
        rounds 3
        finish
        """, kernel: kernel, faults: ["stop", "kill"]
    ) { try servers[0].suffer($0) }
    try expect(console, image)
    let took = try #require(console.text.firstMatch(of: /took (\d+)/).flatMap { Int($0.1) })
    print("Linux \(kernel.rawValue): going on after \(Double(took) / 100) s, answer=4")
  }

  @Test(
    "waits for it when nobody else answers, and goes on where it was",
    .enabled(if: RunScope.isWhole, "\(RunScope.reason)"))
  func nobodyElse() throws {
    let image = try fileSystemImage()
    let server = try FaultyServer(image, in: directory)
    let console = try TinyGuest.run(
      Self.functions + """
        result attach rootlink attach \(server.uri)/root --answer 4
        mount -t ext4 /dev/nbd0 /mnt
        quiet /mnt >/tmp/load.log &
        rounds 2
        fault stop
        sleep 20
        result lost rootlink status nbd0
        fault continue
        rounds 3
        finish
        """, kernel: .backports, faults: ["stop", "continue"]
    ) { try server.suffer($0) }
    try expect(console, image)
    let said = console.output(of: "said")
    #expect(
      said.contains(/has not answered for \d+\.\d s; nobody else does, requests wait/), "\(said)")
    #expect(said.matches(of: /has not answered/).count <= 2, "\(said)")
    #expect(console.output(of: "lost").contains(": live, "), "\(console.output(of: "lost"))")
  }

  @Test("notices a pulled cable within the time that was asked for")
  func cable() throws {
    let image = try fileSystemImage()
    let server = try FaultyServer(image, in: directory)
    let console = try TinyGuest.run(
      Self.functions + """
        result attach rootlink attach --cmdline "nbdroot=\(server.uri)/root rootlink.silence=2"
        mount -t ext4 /dev/nbd0 /mnt
        quiet /mnt >/tmp/load.log &
        rounds 2
        ip link set eth0 down
        begun=$(now)
        until rootlink status nbd0 | grep -q ": lost, "; do sleep 0.1; done
        echo "took $(($(now) - begun))"
        ip link set eth0 up
        ip route add default via 10.0.2.2
        rounds 3
        finish
        """, kernel: .backports)
    try expect(console, image)
    let took = try #require(console.text.firstMatch(of: /took (\d+)/).flatMap { Int($0.1) })
    #expect((150...450).contains(took), "\(took) hundredths of a second")
  }

  private func expect(_ console: GuestConsole, _ image: String) throws {
    for step in ["attach", "end", "alive", "unmount", "detach"] {
      #expect(console.status(of: step) == 0, "step \(step):\n\(console.output(of: step))")
    }
    #expect(console.status(of: "load") == 1, "\(console.output(of: "load"))")
    #expect(console.output(of: "end").contains("ended after"))
    #expect(console.text.contains("\nno I/O error"), "\(console.lastLines)")
    print(console.output(of: "said"))
    let checked = try run("e2fsck", ["-f", "-n", image])
    #expect(checked.exitStatus == 0, "\(checked.standardOutput)")
  }

  private func fileSystemImage() throws -> String {
    let image = try sparseFile("export.img", mebibytes: 64, in: directory)
    let made = try run("mkfs.ext4", ["-q", "-F", image])
    guard made.exitStatus == 0 else {
      throw TinyGuest.Failure(description: "mkfs.ext4: \(made.standardError)")
    }
    return image
  }
}
