// SPDX-License-Identifier: Apache-2.0

extension Array {
  /// Sorted, and equals stay in their order. What the standard library's sorting takes of a small
  /// program is ten times as much.
  public func ordered(by isBefore: (Element, Element) -> Bool) -> [Element] {
    var runs = self
    var width = 1
    while width < count {
      var merged: [Element] = []
      merged.reserveCapacity(count)
      var start = 0
      while start < count {
        var left = start
        let middle = Swift.min(start + width, count)
        var right = middle
        start = Swift.min(middle + width, count)
        while left < middle || right < start {
          let takesRight = left == middle || (right < start && isBefore(runs[right], runs[left]))
          merged.append(runs[takesRight ? right : left])
          if takesRight { right += 1 } else { left += 1 }
        }
      }
      runs = merged
      width *= 2
    }
    return runs
  }
}
