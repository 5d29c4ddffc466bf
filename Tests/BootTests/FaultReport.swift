// SPDX-License-Identifier: Apache-2.0
// What faults cost: read from the moments that a guest has noted.

import Foundation

/// One fault and what requests felt of it. All times are milliseconds of the guest's clock.
struct FaultCost {
  var name: String
  /// From the fault until the server, the path or the keeper was there again.
  var outage: Int
  /// A read that was begun then; nil where the fault left others to do the work.
  var newRequest: Int?
  /// The longest time that a request waited after that moment, whenever it began.
  var longestAfter: Int
  /// The longest request of the whole fault.
  var longest: Int
}

struct FaultReport {
  var costs: [FaultCost] = []
  /// Requests of the load whose times were taken.
  var requestCount = 0
  /// What went wrong besides.
  var problems: [String] = []

  /// Reads `mark`, `sample`, `slow` and `requests` lines. Source: Tests/BootTests/tiny/faults.
  init(_ console: GuestConsole) {
    var begins: [(name: String, begin: Int, back: Int, sample: Int?)] = []
    var slow: [(end: Int, length: Int)] = []
    for line in console.lines {
      let words = line.split(separator: " ")
      if line.hasPrefix("mark begin "), words.count == 4, let time = Int(words[3]) {
        begins.append((String(words[2]), time, time, nil))
      } else if line.hasPrefix("mark back "), words.count == 3, let time = Int(words[2]),
        !begins.isEmpty
      {
        begins[begins.count - 1].back = time
      } else if line.hasPrefix("sample "), words.count == 2, !begins.isEmpty {
        begins[begins.count - 1].sample = Int(words[1])
      } else if line.hasPrefix("slow "), words.count == 3, let end = Int(words[1]),
        let length = Int(words[2])
      {
        slow.append((end, length))
      } else if line.hasPrefix("requests "), words.count == 2 {
        requestCount = Int(words[1]) ?? 0
      }
    }
    for (index, fault) in begins.enumerated() {
      let end = index + 1 < begins.count ? begins[index + 1].begin : Int.max
      var cost = FaultCost(
        name: fault.name, outage: fault.back - fault.begin, newRequest: fault.sample,
        longestAfter: fault.sample ?? 0, longest: 0)
      for request in slow where request.end > fault.begin && request.end <= end {
        cost.longest = max(cost.longest, request.length)
        if request.end > fault.back {
          cost.longestAfter = max(
            cost.longestAfter, min(request.length, request.end - fault.back))
        }
      }
      costs.append(cost)
    }
  }

  /// New requests after a server that was killed, in order of their length.
  var newRequests: [Int] {
    costs.filter { $0.name.hasPrefix("kill-") }.compactMap(\.newRequest).sorted()
  }

  /// One line a fault, under `title`; figures and what went wrong at the end.
  func table(_ title: String) -> String {
    func seconds(_ milliseconds: Int?) -> String {
      milliseconds.map { String(format: "%8.2f", Double($0) / 1000) } ?? "       -"
    }
    func column(_ text: String) -> String {
      text.padding(toLength: max(20, text.count), withPad: " ", startingAt: 0)
    }
    var text = "\(title)\n  " + column("fault, seconds")
    text += "  outage  new request  longest after  longest\n"
    for cost in costs {
      text += "  \(column(cost.name))\(seconds(cost.outage))     \(seconds(cost.newRequest))"
      text += "       \(seconds(cost.longestAfter)) \(seconds(cost.longest))\n"
    }
    let samples = newRequests
    if !samples.isEmpty {
      text += "  new requests after a killed server: median"
      text += "\(seconds(samples[samples.count / 2])) s of \(samples.count)"
      let longest = costs.filter { $0.name.hasPrefix("kill-") }.map(\.longestAfter).max()
      text += ", longest wait\(seconds(longest)) s\n"
    }
    text += "  requests of the load: \(requestCount); "
    text +=
      problems.isEmpty
      ? "no I/O error, no mismatch, file system clean\n"
      : "FAILED\n\(problems.joined(separator: "\n"))\n"
    return text
  }

  /// Prints the table and adds it to out/faults.txt, which `make test-faults` shows at its end.
  func publish(_ title: String) throws {
    let text = table(title)
    print(text)
    let file = TinyGuest.client.deletingLastPathComponent().appending(path: "faults.txt")
    let before = (try? Data(contentsOf: file)) ?? Data()
    try (before + Data(text.utf8)).write(to: file)
  }
}
