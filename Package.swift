// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
// One set of sources, two builds. With ROOTLINK_EMBEDDED in the environment only the client is
// described, compiled as Embedded Swift and linked statically; without it everything is compiled
// ordinarily, for the server and the tests. Docs: docs/design.md.

import PackageDescription

let isEmbedded = Context.environment["ROOTLINK_EMBEDDED"] != nil
/// RDMA makes the client twice as large: it is asked for. The ordinary build always has it.
let hasRDMA = !isEmbedded || Context.environment["ROOTLINK_RDMA"] == "1"

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("MemberImportVisibility"),
]
let architecture = Context.environment["ROOTLINK_ARCH"] ?? "x86_64"
/// For another architecture: where Debian's packages of it are unpacked (cross/unpack.sh).
let sysroot = Context.environment["ROOTLINK_SYSROOT"] ?? ""
let muslLibraries = "\(sysroot)/usr/lib/\(architecture)-linux-musl"
// Searched before the system's: musl's headers win, and Linux's own are found beside glibc's.
let muslHeaders =
  ["-isystem", "\(sysroot)/usr/include/\(architecture)-linux-musl"]
  // Swift's library for it is made for a machine without a system, for which Clang searches nothing.
  + (sysroot.isEmpty
    ? []
    : ["\(architecture)-linux-gnu", ""].flatMap { ["-isystem", "\(sysroot)/usr/include/\($0)"] }
      + ["-D__linux__"])
let embedded: [SwiftSetting] = [
  .enableExperimentalFeature("Embedded"),
  .enableExperimentalFeature("DeferredCodeGen"),
  .unsafeFlags(
    // LLVM inlines what Swift's own optimizer has decided not to; equal traps are one.
    ["-wmo", "-Osize", "-gnone", "-Xfrontend", "-function-sections", "-Xllvm"]
      + ["-inline-threshold=0", "-Xfrontend", "-mergeable-traps"]
      + muslHeaders.flatMap { ["-Xcc", $0] }),
]
/// A process that a root device depends on counts what it allocates: CLinux/clinux_guard.c.
let countedAllocation: [String] = [
  "-Xlinker", "--wrap=malloc", "-Xlinker", "--wrap=calloc", "-Xlinker", "--wrap=realloc",
  "-Xlinker", "--wrap=aligned_alloc", "-Xlinker", "--wrap=posix_memalign", "-Xlinker",
  "--wrap=free",
]
let staticLibraries: [String] = [
  "\(muslLibraries)/crt1.o", "\(muslLibraries)/libc.a",
  // Debian's is built without a libc of its own, so it fits any.
  "\(sysroot)/usr/lib/\(architecture)-linux-gnu/liburing.a",
]
/// Debian's are made for glibc. What of it they need and musl has not is in CVerbs/cverbs_static.c.
let verbsProviders = ["rxe", "siw", "mlx4", "mlx5"]
let verbsLibraries: [String] = [
  "rdmacm", "ibverbs", "mlx4", "mlx5", "rxe-rdmav34", "siw-rdmav34", "nl-route-3", "nl-3",
].map { "/usr/lib/\(architecture)-linux-gnu/lib\($0).a" }
let staticLinkFlags: [String] =
  ["-Xclang-linker", "-static", "-Xclang-linker", "-nostdlib"] + staticLibraries
  + (hasRDMA ? verbsLibraries : [])
  // Embedded Swift compiles generic code anew in every module that uses it. Folding what came
  // out the same halves the program.
  + ["-use-ld=lld", "-Xlinker", "--gc-sections", "-Xlinker", "--icf=all"]
  + [sysroot.isEmpty ? "-lgcc" : "\(sysroot)/usr/lib/gcc/\(architecture)-linux-gnu/12/libgcc.a"]
  + ["-Xlinker", "-s"] + countedAllocation
let staticLink: [LinkerSetting] = [.unsafeFlags(staticLinkFlags)]

/// What the tests run millions of times is optimized in debug builds, too; it still traps.
let optimized: [SwiftSetting] = [.unsafeFlags(["-O"], .when(configuration: .debug))]

/// A module of the client: compiled both ways.
func bothWays(
  _ name: String, _ dependencies: [Target.Dependency] = [], isHot: Bool = false
) -> Target {
  .target(
    name: name, dependencies: dependencies,
    swiftSettings: strict + (isEmbedded ? embedded : isHot ? optimized : [])
      + (hasRDMA ? [.define("ROOTLINK_RDMA")] : []))
}

/// A program of the client.
func program(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .executableTarget(
    name: name, dependencies: dependencies, swiftSettings: isEmbedded ? strict + embedded : strict,
    linkerSettings: isEmbedded ? staticLink : [])
}

/// A module of the server: compiled ordinarily only.
func ordinary(
  _ name: String, _ dependencies: [Target.Dependency] = [], isHot: Bool = false
) -> Target {
  .target(
    name: name, dependencies: dependencies, swiftSettings: strict + (isHot ? optimized : []))
}

func tests(
  _ name: String, _ dependencies: [Target.Dependency] = [], isHot: Bool = false
) -> Target {
  .testTarget(
    name: name, dependencies: dependencies + ["TestSupport"],
    swiftSettings: strict + (isHot ? optimized : []))
}

let client: [Target] = [
  bothWays("WireFormat", isHot: true),
  bothWays("NBDProtocol", ["WireFormat"]),
  bothWays("RTRSProtocol", ["WireFormat"]),
  bothWays("RNBDProtocol", ["WireFormat"]),
  bothWays("NetlinkProtocol", ["WireFormat"]),
  bothWays("DNSProtocol", ["WireFormat"]),
  bothWays("BootPlanning", ["WireFormat"], isHot: true),
  bothWays("DHCPProtocol", ["BootPlanning", "WireFormat"], isHot: true),
  bothWays("RootVolumes", ["WireFormat"], isHot: true),
  .target(
    name: "CLinux",
    cSettings: [
      .unsafeFlags(
        ["-D_GNU_SOURCE", "-Os", "-Wall", "-Wextra", "-Werror"] + (isEmbedded ? muslHeaders : []))
    ],
    linkerSettings: isEmbedded ? [] : [.linkedLibrary("uring")]),
  bothWays("LinuxSystem", ["CLinux", "NetlinkProtocol", "WireFormat"]),
  bothWays("NBDDriver", ["CLinux", "LinuxSystem", "NetlinkProtocol", "WireFormat"]),
  bothWays("UblkDriver", ["CLinux", "LinuxSystem", "WireFormat"]),
  bothWays("NBDClient", ["NBDProtocol", "DNSProtocol", "LinuxSystem", "CLinux", "WireFormat"]),
  bothWays(
    "BootExecution",
    [
      "BootPlanning", "NBDClient", "NBDDriver", "UblkDriver", "NBDProtocol", "NetlinkProtocol",
      "LinuxSystem",
      "CLinux", "WireFormat",
    ] + (hasRDMA ? ["RNBDClient", "RDMAVerbs", "RNBDProtocol", "RTRSProtocol"] : [])),
  bothWays(
    "NetworkSetup",
    [
      "BootPlanning", "DHCPProtocol", "NetlinkProtocol", "LinuxSystem", "CLinux", "WireFormat",
    ]),
  bothWays(
    "MachineStart",
    [
      "BootExecution", "NetworkSetup", "BootPlanning", "RootVolumes", "LinuxSystem", "CLinux",
      "WireFormat",
    ]),
  bothWays(
    "ClientCommands",
    ["BootExecution", "BootPlanning", "NBDDriver", "LinuxSystem", "WireFormat"]),
  program("rootlink", ["ClientCommands", "MachineStart", "LinuxSystem"]),
  program("rootlink-attach", ["ClientCommands", "LinuxSystem"]),
]

/// RDMA: of the server, and of the larger build of the client.
let remoteMemory: [Target] = [
  .target(
    name: "CVerbs",
    cSettings: [
      .unsafeFlags(
        ["-D_GNU_SOURCE", "-Os", "-Wall", "-Wextra", "-Werror"]
          + (isEmbedded
            ? muslHeaders + ["-DRDMA_STATIC_PROVIDERS=\(verbsProviders.joined(separator: ","))"]
            : []))
    ],
    linkerSettings: isEmbedded ? [] : [.linkedLibrary("rdmacm"), .linkedLibrary("ibverbs")]),
  bothWays("RDMAVerbs", ["CVerbs", "CLinux", "LinuxSystem", "WireFormat"]),
  bothWays(
    "RNBDClient", ["RNBDProtocol", "RTRSProtocol", "RDMAVerbs", "LinuxSystem", "WireFormat"]),
]

let server: [Target] = [
  ordinary("BlockBackends", ["LinuxSystem", "CLinux", "WireFormat"], isHot: true),
  ordinary("BlockServer", ["BlockBackends", "LinuxSystem", "CLinux", "WireFormat"]),
  ordinary(
    "NBDServer",
    ["NBDProtocol", "BlockServer", "BlockBackends", "LinuxSystem", "CLinux", "WireFormat"],
    isHot: true),
  ordinary(
    "RNBDServer",
    [
      "RNBDProtocol", "RTRSProtocol", "RDMAVerbs", "BlockServer", "BlockBackends", "LinuxSystem",
      "CLinux", "WireFormat",
    ]),
  ordinary(
    "ConfigurationFile",
    [
      "BlockServer", "WireFormat",
      .product(name: "TOMLKit", package: "TOMLKit"),
    ]),
  ordinary(
    "ServerOperation",
    [
      "BlockServer", "LinuxSystem", "CLinux", "WireFormat",
      .product(name: "Logging", package: "swift-log"),
    ]),
  .executableTarget(
    name: "rootlinkd",
    dependencies: [
      "ConfigurationFile", "ServerOperation", "NBDServer", "RNBDServer", "RNBDProtocol",
      "RTRSProtocol", "BlockServer", "BlockBackends", "LinuxSystem", "CLinux", "WireFormat",
      .product(name: "ArgumentParser", package: "swift-argument-parser"),
      .product(name: "Logging", package: "swift-log"),
    ],
    swiftSettings: strict),
]

let imageBuilder: [Target] = [
  ordinary("ImageBuilder"),
  .executableTarget(
    name: "rootlink-mkinitramfs",
    dependencies: [
      "ImageBuilder", .product(name: "ArgumentParser", package: "swift-argument-parser"),
    ],
    swiftSettings: strict),
]

let testTargets: [Target] = [
  .target(
    name: "TestSupport", dependencies: ["WireFormat"], path: "Tests/TestSupport",
    swiftSettings: strict + optimized),
  tests("WireFormatTests", ["WireFormat"]),
  tests("BootPlanningTests", ["BootPlanning", "WireFormat"]),
  tests(
    "BootExecutionTests",
    [
      "BootExecution", "BootPlanning", "NBDProtocol", "RNBDClient", "RNBDProtocol", "RTRSProtocol",
      "RDMAVerbs", "UblkDriver", "LinuxSystem", "WireFormat",
    ]),
  tests("NetlinkProtocolTests", ["NetlinkProtocol", "WireFormat"]),
  tests("NBDDriverTests", ["NBDDriver", "WireFormat"]),
  tests("UblkDriverTests", ["UblkDriver", "WireFormat"]),
  tests("NBDProtocolTests", ["NBDProtocol", "WireFormat"]),
  tests("RTRSProtocolTests", ["RTRSProtocol", "WireFormat"]),
  tests("RNBDProtocolTests", ["RNBDProtocol", "WireFormat"]),
  tests("BlockBackendsTests", ["BlockBackends", "LinuxSystem", "WireFormat"], isHot: true),
  tests("BlockServerTests", ["BlockServer", "BlockBackends", "LinuxSystem", "WireFormat"]),
  tests("ConfigurationFileTests", ["ConfigurationFile", "BlockServer", "WireFormat"]),
  tests(
    "ServerOperationTests",
    [
      "ServerOperation", "BlockServer", "LinuxSystem", "CLinux", "WireFormat",
      .product(name: "Logging", package: "swift-log"),
    ]),
  tests(
    "NBDServerTests",
    [
      "NBDServer", "NBDProtocol", "BlockServer", "BlockBackends", "LinuxSystem", "CLinux",
      "WireFormat", "AllocationCounter",
    ]),
  .target(name: "AllocationCounter", path: "Tests/AllocationCounter"),
  tests(
    "RNBDServerTests",
    [
      "RNBDServer", "RNBDProtocol", "RTRSProtocol", "BlockServer", "BlockBackends", "LinuxSystem",
      "WireFormat",
    ]),
  tests(
    "DocumentationTests",
    ["rootlink", "rootlinkd", "rootlink-mkinitramfs", "ConfigurationFile"]),
  tests(
    "InteropTests",
    ["CLinux", "rootlink", "rootlinkd", "NBDClient", "NBDProtocol", "LinuxSystem", "WireFormat"]),
  tests("HookTests", ["BootExecution", "LinuxSystem", "WireFormat"]),
  .testTarget(
    name: "BootTests",
    dependencies: ["TestSupport", "rootlinkd", "rootlink-mkinitramfs", "RDMAHostile"],
    exclude: ["lab", "rdma", "tiny"],
    swiftSettings: strict),
  tests("LinuxSystemTests", ["TaskGuardProbe"]),
  .executableTarget(
    name: "TaskGuardProbe", dependencies: ["LinuxSystem", "WireFormat"],
    path: "Tests/TaskGuardProbe", swiftSettings: strict),
  .executableTarget(
    name: "RDMAHostile",
    dependencies: ["RDMAVerbs", "RNBDProtocol", "RTRSProtocol", "LinuxSystem", "WireFormat"],
    path: "Tests/RDMAHostile", swiftSettings: strict),
  tests("NBDClientTests", ["NBDClient", "NBDProtocol", "LinuxSystem", "WireFormat"]),
  tests("DNSProtocolTests", ["DNSProtocol", "WireFormat"]),
  tests(
    "DHCPProtocolTests", ["DHCPProtocol", "BootPlanning", "WireFormat"], isHot: true),
  tests("RootVolumesTests", ["RootVolumes", "WireFormat"], isHot: true),
  tests("ImageBuilderTests", ["ImageBuilder"]),
  tests(
    "MachineStartTests", ["MachineStart", "BootPlanning", "LinuxSystem", "CLinux", "WireFormat"]),
  tests("NetworkSetupTests", ["NetworkSetup", "BootExecution", "BootPlanning", "WireFormat"]),
  tests("RDMAVerbsTests", ["RDMAVerbs", "CVerbs", "LinuxSystem"]),
  tests("RNBDClientTests", ["RNBDClient", "RNBDProtocol", "RTRSProtocol", "WireFormat"]),
]

let package = Package(
  name: "rootlink",
  products: [
    .executable(name: "rootlink", targets: ["rootlink"]),
    .executable(name: "rootlink-attach", targets: ["rootlink-attach"]),
  ]
    + (isEmbedded
      ? []
      : [
        .executable(name: "rootlinkd", targets: ["rootlinkd"]),
        .executable(name: "rootlink-mkinitramfs", targets: ["rootlink-mkinitramfs"]),
      ]),
  dependencies: isEmbedded
    ? []
    : [
      .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
      .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
      .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
    ],
  targets: client + (hasRDMA ? remoteMemory : [])
    + (isEmbedded ? [] : server + imageBuilder + testTargets),
  cxxLanguageStandard: .cxx17
)
