// SPDX-License-Identifier: Apache-2.0
// Devices named by paths: what leads where, and what leads nowhere.

import BlockServer
import Foundation
import TestSupport
import Testing
import WireFormat

@Suite("The directory of devices")
struct DeviceDirectoryTests {
  let directory: TemporaryDirectory

  /// Source of the rules: `rnbd_srv_get_full_path` in Linux 6.12 `rnbd-srv.c`, and its documentation
  /// of dev_search_path.
  init() throws {
    directory = try TemporaryDirectory()
    let files = FileManager.default
    for path in ["top/alpha", "top/beta", "top/alpha/inner", "top/2001:db8::7", "elsewhere"] {
      try files.createDirectory(
        atPath: directory.path(path), withIntermediateDirectories: true)
    }
    for file in [
      "top/shared", "top/alpha/disk", "top/beta/disk", "top/2001:db8::7/disk", "elsewhere/secret",
      "exported",
    ] {
      try directory.file(file, [UInt8](repeating: 1, count: 4096))
    }
    for (link, target) in [
      ("top/alpha/near", "disk"), ("top/alpha/inner/up", "../disk"),
      ("top/alpha/far", "../../elsewhere/secret"), ("top/alpha/absolute", "/etc/passwd"),
      ("top/alpha/sibling", "../beta/disk"), ("top/alpha/export", "../../exported"),
      ("top/gamma", "../elsewhere"),
    ] {
      try files.createSymbolicLink(atPath: directory.path(link), withDestinationPath: target)
    }
  }

  func find(_ searchPath: String, _ name: String, session: String = "alpha") -> String {
    do {
      let path = try SearchPath(ByteString(directory.path(searchPath)))
      let devices = DeviceDirectory(table: ExportTable([]), search: .init(path: path))
      let client = ClientIdentity(
        address: ClientAddress("tcp:[2001:db8::7]:999"), sessionName: ByteString(session))
      let export = try devices.find(ByteString(name), for: client)
      return export.path.printable.replacing(directory.path + "/", with: "")
    } catch let refusal as DeviceRefusal {
      if case .noName(let token) = refusal { return "noName(token: '\(token.printable)')" }
      return "\(refusal)"
    } catch { return "\(error)" }
  }

  static let names: [(searchPath: String, name: String, session: String, found: String)] = [
    ("top", "shared", "alpha", "top/shared"),
    ("top", "/shared", "alpha", "top/shared"),
    ("top/", "//alpha//disk", "alpha", "top/alpha/disk"),
    ("top", "alpha/near", "x", "top/alpha/disk"),
    ("top", "alpha/inner/up", "x", "top/alpha/disk"),
    ("top", "alpha/sibling", "x", "top/beta/disk"),
    ("top", "alpha/far", "x", "outside"),
    ("top", "alpha/absolute", "x", "outside"),
    ("top", "../exported", "x", "outside"),
    ("top", "alpha/../shared", "x", "outside"),
    ("top", "alpha", "x", "notBlocks"),
    ("top", "missing", "x", "notFound"),
    ("top", "shared/more", "x", "notFound"),
    ("top", "", "x", "notFound"),
    ("top", "/", "x", "notFound"),
    ("nothing", "shared", "x", "notFound"),
    ("top/%SESSNAME%", "disk", "alpha", "top/alpha/disk"),
    ("top/%SESSNAME%/", "disk", "beta", "top/beta/disk"),
    ("top/al%SESSNAME%", "disk", "pha", "top/alpha/disk"),
    ("top/%SESSNAME%", "sibling", "alpha", "outside"),
    ("top/%SESSNAME%", "far", "alpha", "outside"),
    ("top/%SESSNAME%", "secret", "gamma", "outside"),
    ("top/%SESSNAME%", "disk", "..", "outside"),
    ("top/%SESSNAME%", "disk", "alpha/inner", "outside"),
    ("top/%SESSNAME%", "disk", ".", "outside"),
    ("top/%SESSNAME%", "disk", "", "noName(token: '%SESSNAME%')"),
    ("top/%SESSNAME%%SESSNAME%", "disk", ".", "outside"),
    ("top/%SESSNAME%/inner", "up", "alpha", "outside"),
    ("top/%SESSNAME%/inner", "../disk", "alpha", "outside"),
    ("%SESSNAME%/alpha", "disk", "top", "top/alpha/disk"),
    ("top/%CLIENT%", "disk", "", "top/2001:db8::7/disk"),
    ("top/%CLIENT%", "disk", "alpha", "top/2001:db8::7/disk"),
    ("top/%CLIENT%/%SESSNAME%", "disk", "alpha", "notFound"),
    ("top/%SESSNAME%", "dis\0k", "alpha", "notFound"),
    ("top/%SESSNAME%", "disk", "nobody", "notFound"),
  ]

  @Test("finds what lies below the search path, and nothing else", arguments: names)
  func search(searchPath: String, name: String, session: String, found: String) {
    #expect(find(searchPath, name, session: session) == found)
  }

  @Test("refuses search paths that could be meant in two ways")
  func searchPaths() throws {
    #expect(throws: SearchPath.ParseError.notAbsolute("dev")) { try SearchPath("dev") }
    #expect(throws: SearchPath.ParseError.notAbsolute("")) { try SearchPath("") }
    for text: ByteString in ["/srv/%SESSNAME%/../disks", "/srv/a%CLIENT%/.."] {
      #expect(throws: SearchPath.ParseError.upwards(text)) { try SearchPath(text) }
    }
  }

  @Test("knows exports by their names first, and their files by whatever name leads to them")
  func exports() throws {
    var definition = ExportDefinition(
      name: "root", path: ByteString(directory.path("exported")))
    definition.access = .readOnly
    let table = ExportTable([try Export(definition, overlayDirectory: "/var/tmp")])
    let devices = DeviceDirectory(
      table: table, search: .init(path: try SearchPath(ByteString(directory.path))))
    let x = ClientIdentity(sessionName: "x")
    for name: ByteString in ["root", "/root", "exported"] {
      #expect(try devices.find(name, for: x) === table.exports[0])
    }
    #expect(devices.found.isEmpty)
    let first = try devices.find("top/shared", for: x)
    #expect(try devices.find("/top//shared", for: ClientIdentity()) === first)
    #expect(devices.found.map(\.path) == [ByteString(directory.path("top/shared"))])
  }
}

extension DeviceDirectoryTests {
  @Test("has nothing for clients that it is not for, whatever leads there")
  func allowed() throws {
    var definition = ExportDefinition(name: "root", path: ByteString(directory.path("exported")))
    definition.allow.networks = [try ClientNetwork("192.0.2.0/24")]
    let table = ExportTable([try Export(definition, overlayDirectory: "/var/tmp")])
    let devices = DeviceDirectory(
      table: table, search: .init(path: try SearchPath(ByteString(directory.path))))
    let inside = ClientIdentity(address: ClientAddress("192.0.2.9"))
    let outside = ClientIdentity(address: ClientAddress("198.51.100.9"))
    for name: ByteString in ["root", "/root", "exported"] {
      #expect(try devices.find(name, for: inside) === table.exports[0])
      #expect(throws: DeviceRefusal.notFound) { try devices.find(name, for: outside) }
    }
    #expect(try devices.findExport("", for: inside) === table.exports[0])
    #expect(throws: DeviceRefusal.notFound) { try devices.findExport("", for: outside) }
    #expect(devices.exports(for: inside.address).count == 1)
    #expect(devices.exports(for: outside.address).isEmpty)
    _ = try devices.find("top/shared", for: outside)
    var search = DeviceDirectory.Search(path: try SearchPath(ByteString(directory.path)))
    search.allow.networks = [.unix]
    devices.replace(search)
    #expect(throws: DeviceRefusal.notFound) { try devices.find("top/shared", for: outside) }
  }

  @Test("opens what it finds as it is told to")
  func modes() throws {
    let path = try SearchPath(ByteString(directory.path))
    let devices = DeviceDirectory(table: ExportTable([]), search: .init(path: path))
    let first = try devices.find("top/shared", for: ClientIdentity())
    #expect(first.access == .readWrite)
    var search = DeviceDirectory.Search(path: path)
    search.access = .readOnly
    devices.replace(search)
    let second = try devices.find("top/shared", for: ClientIdentity())
    #expect(second.access == .readOnly)
    #expect(try devices.find("top/shared", for: ClientIdentity()) === second)
    withExtendedLifetime(first) {}
  }
}
