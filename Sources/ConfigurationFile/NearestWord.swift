// SPDX-License-Identifier: Apache-2.0

/// The word that was probably meant; nil when none is near. Distance: letters put in, left out,
/// exchanged or swapped with their neighbours (Damerau and Levenshtein, each place changed once).
func nearestWord(to word: String, among known: [String]) -> String? {
  let wanted = Array(word.lowercased().prefix(64))
  // A third of the letters may be wrong, and one always.
  let limit = max(1, wanted.count / 3)
  var best: (distance: Int, word: String)?
  for candidate in known {
    let distance = distance(wanted, Array(candidate))
    if distance <= limit, distance < best?.distance ?? .max { best = (distance, candidate) }
  }
  return best?.word
}

private func distance(_ one: [Character], _ other: [Character]) -> Int {
  var rows = [[Int]](
    repeating: [Int](repeating: 0, count: other.count + 1), count: one.count + 1)
  for row in 0...one.count { rows[row][0] = row }
  for column in 0...other.count { rows[0][column] = column }
  guard !one.isEmpty, !other.isEmpty else { return max(one.count, other.count) }
  for row in 1...one.count {
    for column in 1...other.count {
      let isSame = one[row - 1] == other[column - 1]
      var least = min(rows[row - 1][column], rows[row][column - 1]) + 1
      least = min(least, rows[row - 1][column - 1] + (isSame ? 0 : 1))
      if row > 1, column > 1, one[row - 1] == other[column - 2], one[row - 2] == other[column - 1] {
        least = min(least, rows[row - 2][column - 2] + 1)
      }
      rows[row][column] = least
    }
  }
  return rows[one.count][other.count]
}
