// SPDX-License-Identifier: Apache-2.0
// dracut's `nbd:server:port-or-name[:fstype[:mountopts[:nbdopts]]]`.
//
// Taken as documented where dracut's script differs: digits before a slash are a port, a missing
// server is the lease's, a missing name is the default export. The last field takes the rest,
// colons included.

import WireFormat

enum DracutForm {
  /// `value` begins with `nbd:`.
  static func request(from value: Text) throws(SyntaxError) -> NBDRequest {
    var request = NBDRequest()
    var rest = value.dropFirst(4)
    if rest.first == .openBracket {
      let (address, after) = try ServerGrammar.bracketed(rest)
      guard after.isEmpty || after.first == .colon else {
        throw SyntaxError(at: after, expected: .afterBracket)
      }
      request.server = address
      rest = after.dropFirst()
    } else {
      let end = rest.firstIndex(of: .colon) ?? rest.endIndex
      request.server = try ServerGrammar.leaseOrHost(rest[..<end])
      rest = rest[end...].dropFirst()
    }
    let fields = rest.fields(separatedBy: .colon, limit: 4)
    try addPortOrName(fields[0], to: &request)
    if fields.count > 1, !fields[1].isEmpty { request.fileSystem = ByteString(fields[1]) }
    if fields.count > 2 { request.mountOptions = MountOptions(fields[2]) }
    if fields.count > 3 {
      let (options, unknown) = try NBDOptions.read(fields[3])
      request.options = options
      for option in unknown { request.warnings.append(.unknownNBDOption(option)) }
    }
    if let isReadOnly = request.options.isReadOnly, isReadOnly { request.accessMode = .readOnly }
    return request
  }

  private static func addPortOrName(_ field: Text, to request: inout NBDRequest) throws(SyntaxError)
  {
    let token = field[..<(field.firstIndex(of: .slash) ?? field.endIndex)]
    if token.isAllDigits, token.contains(where: { $0 != 0x30 }) {
      request.port = try ServerGrammar.port(token)
      request.exports = [try NBDRequest.checkedExport(field[token.endIndex...].dropFirst())]
    } else if field.first == .slash {
      request.exports = try NBDRequest.candidates(withSlash: field, slashFirst: true)
    } else {
      request.exports = [try NBDRequest.checkedExport(field)]
    }
  }
}
