// SPDX-License-Identifier: Apache-2.0
// Exports as a configuration wants them: those that are open already and have not changed, and new
// ones. All or none.

import BlockBackends
import BlockServer
import Logging
import WireFormat

struct OpenedExports {
  /// In the order of the configuration.
  var exports: [Export] = []
  /// Of them, those that were not open before.
  var opened: [Export] = []
  /// Those that were there before and are not any more.
  var removed: [Export] = []

  /// `present`: what is offered now.
  init(_ configuration: ServerConfiguration, present: [Export] = [], _ logger: Logger) throws {
    let byName = Dictionary(present.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
    for definition in configuration.exports {
      let old = byName[definition.name]
      if let old, old.isCurrent, let same = old.redefined(as: definition) {
        exports.append(same)
        continue
      }
      let export: Export
      do {
        export = try Export.open(
          definition, overlayDirectory: configuration.overlayDirectory
        ) { name, event in
          logger.log(
            level: event.isAlarm ? .error : .info,
            "export '\(name.printable)': \(event.line)",
            metadata: ["event": "mirror", "export": "\(name.printable)"])
        }
      } catch { throw Self.failure(definition, error.report) }
      // A layer that cannot be made is found out now rather than by the first client.
      do { try export.checkLayers() } catch { throw Self.failure(definition, error.report) }
      exports.append(export)
      opened.append(export)
    }
    removed = present.filter { old in !exports.contains { $0 === old } }
  }

  private static func failure(
    _ definition: ExportDefinition, _ report: (reason: String, advice: String)
  ) -> Failure {
    .couldNot(("export '\(definition.name.printable)': " + report.reason, report.advice))
  }
}

extension MirrorEvent {
  fileprivate var line: String {
    let (reason, advice) = report
    return advice.map { "\(reason); \($0)" } ?? reason
  }
}
