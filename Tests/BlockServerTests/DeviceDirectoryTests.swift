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
    for path in ["top/alpha", "top/beta", "top/alpha/inner", "elsewhere"] {
      try files.createDirectory(
        atPath: directory.path(path), withIntermediateDirectories: true)
    }
    for file in ["top/shared", "top/alpha/disk", "top/beta/disk", "elsewhere/secret", "exported"] {
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
      let devices = DeviceDirectory(table: ExportTable([]), searchPath: path)
      let export = try devices.find(ByteString(name), session: ByteString(session))
      return export.path.printable.replacing(directory.path + "/", with: "")
    } catch let refusal as DeviceRefusal {
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
    ("top/%SESSNAME%", "disk", "", "outside"),
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
    for text: ByteString in ["/srv/%SESSNAME%/disks", "/srv/%SESSNAME%-x"] {
      #expect(throws: SearchPath.ParseError.behindToken(text)) { try SearchPath(text) }
    }
  }

  @Test("knows exports by their names first, and their files by whatever name leads to them")
  func exports() throws {
    var definition = ExportDefinition(
      name: "root", path: ByteString(directory.path("exported")))
    definition.access = .readOnly
    let table = ExportTable([try Export(definition, overlayDirectory: "/var/tmp")])
    let devices = DeviceDirectory(
      table: table, searchPath: try SearchPath(ByteString(directory.path)))
    for name: ByteString in ["root", "/root", "exported"] {
      #expect(try devices.find(name, session: "x") === table.exports[0])
    }
    #expect(devices.found.isEmpty)
    let first = try devices.find("top/shared", session: "x")
    #expect(try devices.find("/top//shared", session: "y") === first)
    #expect(devices.found.map(\.path) == [ByteString(directory.path("top/shared"))])
  }
}

@Suite("The right to write")
struct WriteAccessTests {
  let access = WriteAccess()
  let medium = MediumIdentity.other(1)

  /// Who is there already, who asks, whether he is let in. Source of the last two columns without
  /// `shared`: `rnbd_srv_check_open_perm` in Linux 6.12 `rnbd-srv.c`.
  static let cases: [(there: [WriteAccess.Claim], asks: WriteAccess.Claim, isGranted: Bool)] = [
    ([], .shared, true), ([], .exclusive, true), ([], .migration, true),
    ([.shared], .shared, true), ([.shared], .exclusive, false), ([.shared], .migration, true),
    ([.exclusive], .shared, false), ([.exclusive], .exclusive, false),
    ([.exclusive], .migration, true),
    ([.migration], .exclusive, false), ([.migration], .migration, true),
    ([.exclusive, .migration], .migration, false),
    ([.migration, .migration], .migration, false),
    ([.shared, .migration], .migration, false), ([.shared, .migration], .shared, false),
    ([.shared, .shared], .migration, true),
  ]

  @Test("belongs to one at a time, and to two while a machine moves", arguments: cases)
  func claims(there: [WriteAccess.Claim], asks: WriteAccess.Claim, isGranted: Bool) {
    let grants = there.map { access.take(medium, $0) }
    #expect(grants.allSatisfy { $0 != nil })
    withExtendedLifetime(grants) {
      #expect((access.take(medium, asks) != nil) == isGranted)
      #expect(access.take(.other(2), .exclusive) != nil)
    }
  }

  @Test("is free again when whoever had it has gone")
  func givingBack() {
    for claim in [WriteAccess.Claim.shared, .exclusive, .migration] {
      var grant = access.take(medium, claim)
      #expect(grant != nil && access.take(medium, .exclusive) == nil)
      grant = nil
      #expect(grant == nil && access.take(medium, .exclusive) != nil)
    }
  }
}
