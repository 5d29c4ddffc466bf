// SPDX-License-Identifier: Apache-2.0

import WireFormat

/// What an `nbds` URI asks for. The executor refuses it as long as it cannot do TLS.
public struct TLSPolicy: Equatable, Sendable {
  public enum Authentication: Equatable, Sendable { case anonymous, x509, preSharedKey }

  /// An `nbds` scheme: without TLS there is to be no connection. False for keys on plain `nbd`.
  public var isRequired = true
  /// `tls-type=`; nil when the URI does not say.
  public var authentication: Authentication?
  /// The name that the server's certificate must carry; nil when it is not checked.
  public var verifiedName: ByteString?
  /// `tls-verify-peer=`.
  public var verifiesPeer = true
  /// The user of the URI: the identity of a pre-shared key.
  public var identity: ByteString?

  public init() {}
}
