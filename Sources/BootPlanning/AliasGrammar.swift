// SPDX-License-Identifier: Apache-2.0
// Words for the same thing that other boot scripts have: mkinitcpio's `nbd_host=` with `nbd_name=`,
// `nbd0=host:port:name` to `nbd7=`, Arch's `archiso_nbd_srv=`, LibreELEC's `boot=NBD=host:port:name`
// with `disk=NBD=...`, OpenELEC's `nbdserver=`.

import WireFormat

enum AliasGrammar {
  /// A host or bracketed address alone; nil for the lease's.
  static func server(_ value: Text) throws(SyntaxError) -> ServerAddress? {
    // Arch's boot menu has the variable of the boot loader, to be replaced by the lease's server.
    if value.isEqual(to: "${pxeserver}") { return nil }
    guard value.first == .openBracket else { return try ServerGrammar.leaseOrHost(value) }
    let (address, rest) = try ServerGrammar.bracketed(value)
    guard rest.isEmpty else { throw SyntaxError(at: rest, expected: .serverWithoutPort) }
    return address
  }

  /// `host:port:name`, `host:port` or `host::name`.
  static func triple(_ value: Text) throws(SyntaxError) -> NBDRequest {
    var request = NBDRequest()
    var rest = value
    if value.first == .openBracket {
      let (address, after) = try ServerGrammar.bracketed(value)
      guard after.isEmpty || after.first == .colon else {
        throw SyntaxError(at: after, expected: .afterBracket)
      }
      request.server = address
      rest = after.dropFirst()
    } else {
      let end = value.firstIndex(of: .colon) ?? value.endIndex
      request.server = try ServerGrammar.leaseOrHost(value[..<end])
      rest = value[end...].dropFirst()
    }
    let (port, name) = rest.cut(at: .colon) ?? (rest, rest[rest.endIndex...])
    if !port.isEmpty { request.port = try ServerGrammar.port(port) }
    request.exports = [try NBDRequest.checkedExport(name)]
    return request
  }
}
