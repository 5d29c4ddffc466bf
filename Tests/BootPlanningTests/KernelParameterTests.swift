// SPDX-License-Identifier: Apache-2.0
// Cutting the command line as the kernel does.

import BootPlanning
import Testing
import WireFormat

@Suite("The command line")
struct KernelParameterTests {
  /// Source: observed with Linux 6.1; `next_arg()` in Linux `lib/cmdline.c`.
  static let lines: [(String, [String])] = [
    ("a=b c", ["a|b", "c"]),
    ("  a=b \t\n c=\n", ["a|b", "c|"]),
    (#"x="a b" y"#, ["x|a b", "y"]),
    (#""x=a b" y"#, ["x|a b", "y"]),
    (#"x="a"b" y=""z w=a"b c"d"#, [#"x|a"b" y=""z w=a"b"#, #"c"d"#]),
    (#"x=a"b"#, [#"x|a"b"#]),
    (#"x=" y z"#, ["x| y z"]),
    (#"x=""#, ["x|"]),
    (#"x="" y"#, ["x|", "y"]),
    (#""x""#, ["x"]),
    (#"""#, [""]),
    ("a=b=c", ["a|b=c"]),
    ("=a b", ["=a", "b"]),
    ("==a", ["=|a"]),
    ("a -- b", ["a"]),
    (#"a "--" b"#, ["a"]),
    ("a --=b c", ["a", "--|b", "c"]),
    ("a\u{0}b", ["a"]),
    ("", []), (" ", []), ("\n", []),
  ]

  @Test("is cut where the kernel cuts it", arguments: lines)
  func splitting(line: String, words: [String]) {
    let split = KernelParameter.split(ByteString(line)).map {
      $0.name.testText + ($0.value.map { "|" + $0.testText } ?? "")
    }
    #expect(split == words)
  }

  @Test("is cut at Latin-1's no-break space, which the kernel counts as white space")
  func noBreakSpace() {
    #expect(KernelParameter.split(ByteString([0x61, 0xa0, 0x62])).count == 2)
  }

  @Test("knows where each value stands")
  func offsets() {
    let offsets = KernelParameter.split(#"ab=c "d=e f" g="h" i"#).map(\.offset)
    #expect(offsets == [3, 8, 16, 19])
  }

  @Test("has names in which - and _ are the same")
  func names() {
    let word = KernelParameter(name: "ibnbd-root", value: "", offset: 0)
    #expect(word.isNamed("ibnbd_root") && word.isNamed("ibnbd-root"))
    #expect(!word.isNamed("ibnbd+root") && !word.isNamed("ibnbd-roo"))
  }

  static let values = [
    Row("the last one wins", "nbdroot=h/a nbdroot=h/b", #"h 10809 "b" nbd0; root /dev/nbd0"#),
    Row(
      "quotes", #"nbdroot="192.0.2.1,a b,nbd0""#, #"192.0.2.1 10809 "a b" nbd0; root /dev/nbd0"#),
    Row(
      "quoted word", #""nbdroot=192.0.2.1,a b,nbd0""#,
      #"192.0.2.1 10809 "a b" nbd0; root /dev/nbd0"#),
    Row("=", "nbdroot=192.0.2.1/a=b", #"192.0.2.1 10809 "a=b" nbd0; root /dev/nbd0"#),
    Row("--", "nbdroot=192.0.2.1/a -- nbdroot=x", #"192.0.2.1 10809 "a" nbd0; root /dev/nbd0"#),
    Row("module parameter", "nbd.root=x", "nothing"),
    Row("empty at the end", "nbdroot=h/a nbdroot=", #"192.0.2.9 10809 "" nbd0; root /dev/nbd0"#),
    Row("no value", "nbdroot", "nothing"),
    Row(
      "255 bytes", "nbdroot=h/" + String(repeating: "n", count: 255),
      #"h 10809 ""# + String(repeating: "n", count: 255) + #"" nbd0; root /dev/nbd0"#),
    Row(
      "4096 bytes", "nbdroot=h/" + String(repeating: "n", count: 4096),
      #"h 10809 ""# + String(repeating: "n", count: 4096) + #"" nbd0; root /dev/nbd0"#),
    Row(
      "4097 bytes", "nbdroot=h/" + String(repeating: "n", count: 4097),
      "error at 3: an export name of at most 4096 bytes"),
    Row(
      "a host of 254 bytes", "nbdroot=" + String(repeating: "h.", count: 127),
      "error at 1: a host name of letters, digits, '-', '_' and '.'"),
    Row(
      "a label of 64 bytes", "nbdroot=" + String(repeating: "h", count: 64),
      "error at 1: a host name of letters, digits, '-', '_' and '.'"),
    Row(
      "four numbers", "nbdroot=192.0.2/foo",
      "error at 1: an IPv4 address of four numbers from 0 to 255"),
    Row(
      "an address that may end in a port", "nbdroot=2001:db8::1:2000/a",
      #"2001:db8::1:2000 10809 "a" nbd0; root /dev/nbd0; warn addressMayEndInPort"#),
    Row(
      "a port before a comma", "nbdroot=192.0.2.1:10809,a",
      "error at 10: a server without a port before the comma"),
    Row("after a bracket", "nbdroot=[::1]a", "error at 6: ':', '/' or nothing after ']'"),
    Row("in brackets", "nbdroot=[192.0.2.1]/a", "error at 2: an IPv6 address"),
  ]

  @Test("gives values whole", arguments: values)
  func valuesAreWhole(row: Row) {
    #expect(outcome(of: row.input()) == row.meaning)
  }

  @Test("may be several texts, of which later ones win")
  func severalTexts() {
    var input = PlanningInput(commandLines: [
      "nbdroot=a/x \"open", "nbdroot=b/y -- z", "nbddev=nbd5\n",
    ])
    input.environment = .dracut
    #expect(outcome(of: input) == #"b 10809 "y" nbd5; root /dev/nbd5"#)
  }

  @Test("has a limit, on both sides of which it behaves")
  func limit() {
    let maximum = PlanningInput.commandLineByteCountMaximum
    let fits = ByteString([UInt8](repeating: 0x61, count: maximum))
    #expect(outcome(of: PlanningInput(commandLine: fits)) == "nothing")
    #expect(
      outcome(of: PlanningInput(commandLine: fits + "a")) == "error: command line too long")
    let many = String(repeating: "rnbd-root=path=ip:1.1.1.1,device_path=a ", count: 33)
    #expect(outcome(of: PlanningInput(commandLine: ByteString(many))) == "error: too many targets")
  }

  @Test("is named in errors with the parameter, the character and what belongs there")
  func report() {
    do {
      _ = try plan(for: PlanningInput(commandLine: "quiet nbdroot=192.0.2.1:70000/foo"))
      Issue.record("planned")
    } catch {
      #expect(
        error.report.reason
          == "nbdroot=192.0.2.1:70000/foo: character 11 of the value, 25 of the command line: "
          + "a port from 1 to 65535 expected, found '70000'")
      #expect(error.isRequestWrong)
    }
  }

  @Test(
    "of a file are put behind those of the line, and words for init stay with init",
    arguments: [
      ("a b", "c\n", "a b c"), ("a -- x", "c -- y z\n", "a c -- x y z"), ("", "c", " c"),
      ("a \"-- b\" --", "c", "a \"-- b\" c"), ("a\n", "", "a "),
    ])
  func appending(line: String, more: String, whole: String) {
    #expect(KernelParameter.appending(ByteString(more), to: ByteString(line)) == ByteString(whole))
  }
}
