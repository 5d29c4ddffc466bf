// SPDX-License-Identifier: Apache-2.0
import BlockBackends
import BlockServer
import Testing
import WireFormat

@Suite("The right to write")
struct WriteAccessTests {
  let access = WriteAccess()
  let medium = MediumIdentity.other(1)

  /// A client: by its address, or by its attachment; nil for one that is like nobody else.
  enum Who: Sendable {
    case single
    case host(UInt8)
    case attached(UInt64, from: UInt8)

    var writer: Writer? {
      switch self {
      case .single: nil
      case .host(let number): Writer(address: .ipv4([192, 0, 2, number]))
      case .attached(let token, let number):
        Writer(
          address: .ipv4([192, 0, 2, number]), attachment: AttachmentToken(high: 0, low: token))
      }
    }
  }
  typealias Asking = (who: Who, claim: WriteAccess.Claim)

  /// Who is there already, who asks, whether he is let in. Source of the rows with `single` alone:
  /// `rnbd_srv_check_open_perm` in Linux 6.12 `rnbd-srv.c`.
  static let cases: [(there: [Asking], asks: Asking, isGranted: Bool)] = [
    ([], (.single, .exclusive), true), ([], (.single, .migration), true),
    ([(.single, .exclusive)], (.single, .exclusive), false),
    ([(.single, .exclusive)], (.single, .migration), true),
    ([(.single, .migration)], (.single, .exclusive), false),
    ([(.single, .migration)], (.single, .migration), true),
    ([(.single, .exclusive), (.single, .migration)], (.single, .migration), false),
    ([(.single, .migration), (.single, .migration)], (.single, .migration), false),
    // Several connections of one client.
    ([(.host(1), .exclusive)], (.host(1), .exclusive), true),
    ([(.host(1), .exclusive)], (.host(2), .exclusive), false),
    ([(.host(1), .exclusive), (.host(1), .exclusive)], (.single, .exclusive), false),
    ([(.host(1), .exclusive), (.host(1), .exclusive)], (.single, .migration), true),
    ([(.host(1), .exclusive), (.host(1), .exclusive)], (.host(2), .migration), true),
    ([(.host(1), .exclusive), (.host(2), .migration)], (.host(3), .migration), false),
    ([(.host(1), .exclusive), (.host(2), .migration)], (.host(2), .migration), true),
    ([(.single, .exclusive)], (.host(1), .exclusive), false),
    // One device with two ways to the server, and one that comes back by another attachment.
    ([(.attached(7, from: 1), .exclusive)], (.attached(7, from: 2), .exclusive), true),
    ([(.attached(7, from: 1), .exclusive)], (.attached(8, from: 1), .exclusive), true),
    ([(.attached(7, from: 1), .exclusive)], (.attached(8, from: 2), .exclusive), false),
  ]

  @Test(
    "belongs to one client at a time, and to two while a machine moves", arguments: cases.indices)
  func claims(index: Int) {
    let (there, asks, isGranted) = Self.cases[index]
    let grants = there.map { access.take(medium, $0.claim, by: $0.who.writer) }
    #expect(grants.allSatisfy { $0 != nil })
    withExtendedLifetime(grants) {
      #expect((access.take(medium, asks.claim, by: asks.who.writer) != nil) == isGranted)
      #expect(access.take(.other(2), .exclusive) != nil)
    }
  }

  @Test("is free again when whoever had it has gone")
  func givingBack() {
    for claim in [WriteAccess.Claim.exclusive, .migration] {
      var grant = access.take(medium, claim)
      #expect(access.writerCount(of: medium) == 1)
      #expect(access.take(medium, .exclusive) == nil)
      withExtendedLifetime(grant) {}
      grant = nil
      #expect(access.take(medium, .exclusive) != nil)
      #expect(access.writerCount(of: medium) == 0)
    }
  }

  @Test("is for all of several media, or for none")
  func several() {
    let other = MediumIdentity.other(2)
    let grant = access.take(other, .exclusive)
    #expect(access.take([medium, other], .exclusive) == nil)
    #expect(access.writerCount(of: medium) == 0)
    withExtendedLifetime(grant) {}
  }

  static let modes: [(mode: AccessMode, clients: Int)] = [
    (.readOnly, 3), (.overlay, 3), (.readWrite, 1), (.migration, 2),
  ]

  @Test("goes to as many clients of an export as its mode says", arguments: modes)
  func exports(mode: AccessMode, clients: Int) throws {
    let export = Export(name: "a", access: mode, base: MemoryBackend(byteCount: 4096))
    let grants = (1...3).map { number in
      Result { try export.takeForWriting(by: Who.host(number).writer!, in: access) }
    }
    let refusedCount = grants.count { (try? $0.get()) == nil && mode.writesToMedium }
    #expect(3 - refusedCount == clients)
  }
}
