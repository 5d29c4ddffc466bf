// SPDX-License-Identifier: Apache-2.0
// Embedded Swift puts the insides of String's own appending wherever text is put together: 100 bytes
// for every word of a message, a tenth of the client. These do the same by a call. They are found first,
// for a declaration of the standard library gives way to any other of the same form.

#if hasFeature(Embedded)
  extension DefaultStringInterpolation {
    @inline(never)
    public mutating func appendLiteral(_ literal: String) { write(literal) }

    @inline(never)
    public mutating func appendInterpolation(_ value: String) { write(value) }

    @inline(never)
    public mutating func appendInterpolation(_ value: Int) { write(value.description) }
    @inline(never)
    public mutating func appendInterpolation(_ value: UInt64) { write(value.description) }
    @inline(never)
    public mutating func appendInterpolation(_ value: UInt32) { write(value.description) }
    @inline(never)
    public mutating func appendInterpolation(_ value: UInt16) { write(value.description) }
    @inline(never)
    public mutating func appendInterpolation(_ value: UInt8) { write(value.description) }
    @inline(never)
    public mutating func appendInterpolation(_ value: CInt) { write(value.description) }
  }

  extension String {
    @inline(never)
    public static func + (left: String, right: String) -> String {
      var sum = left
      sum.append(right)
      return sum
    }

    @inline(never)
    public static func += (left: inout String, right: String) { left.append(right) }
  }
#endif
