// SPDX-License-Identifier: Apache-2.0
import LinuxSystem
import WireFormat
Log(.standardError).write(.info, "hello")
_ = writeStandardOutput(ByteString("x\n"))
let f = (try? readFile("/proc/cmdline", limit: 4096)) ?? "none"
_ = writeStandardOutput(f)
_ = writeStandardOutput(ByteString("\((try? runProgram(["/bin/echo", "a b"])) ?? -1)\n"))
_ = writeStandardOutput(SocketAddress(ipv4: [1,2,3,4], port: 99).text)
for n in (try? listDirectory("/sys", limit: 100)) ?? [] { _ = writeStandardOutput(n + "\n") }
