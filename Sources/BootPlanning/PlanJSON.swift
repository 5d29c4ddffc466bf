// SPDX-License-Identifier: Apache-2.0
// The object that `rootlink plan` prints. Keys are added, never renamed.

import WireFormat

extension AttachmentPlan {
  /// One JSON object without a line end.
  public var json: [UInt8] {
    var writer = JSONWriter()
    writer.beginObject()
    writer.key("targets")
    Self.write(targets, to: &writer)
    writer.key("root")
    root.write(to: &writer)
    if !fallbackTargets.isEmpty {
      writer.key("fallbackTargets")
      Self.write(fallbackTargets, to: &writer)
      writer.key("fallbackRoot")
      (fallbackRoot ?? root).write(to: &writer)
    }
    writer.member("network", needsNetwork)
    writer.member("interface", interface)
    writer.key("resolver")
    writeResolver(to: &writer)
    writer.member("attachTimeoutSeconds", attachTimeoutSeconds)
    writer.key("deviceWaitSeconds")
    switch deviceWait {
    case .usual: writer.null()
    case .seconds(let seconds): writer.number(UInt64(seconds))
    case .forEver: writer.number(UInt64(0))
    }
    if let softRDMA { writer.member("rdma", softRDMA.text) }
    writer.key("warnings")
    writer.beginArray()
    for warning in warnings { writer.string(warning.text) }
    writer.endArray()
    writer.endObject()
    return writer.bytes
  }

  private static func write(_ targets: [AttachmentTarget], to writer: inout JSONWriter) {
    writer.beginArray()
    for target in targets { target.write(to: &writer) }
    writer.endArray()
  }

  private func writeResolver(to writer: inout JSONWriter) {
    writer.beginObject()
    writer.key("nameServers")
    writer.beginArray()
    for server in resolver.nameServers {
      if let text = server.text { writer.string(text) }
    }
    writer.endArray()
    writer.key("searchDomains")
    writer.beginArray()
    for domain in resolver.searchDomains { writer.string(domain) }
    writer.endArray()
    writer.endObject()
  }
}

extension PlannedRoot {
  fileprivate func write(to writer: inout JSONWriter) {
    writer.beginObject()
    writer.member("device", device)
    writer.member("fstype", fileSystem)
    writer.member("flags", flags)
    writer.member("readOnly", isReadOnly)
    writer.member("overlay", isOverlay)
    writer.member("rootLink", needsRootLink)
    writer.endObject()
  }
}

extension AttachmentTarget {
  fileprivate func write(to writer: inout JSONWriter) {
    writer.beginObject()
    writer.key("protocol")
    writer.string(blockProtocol == .nbd ? "nbd" : "rnbd")
    writer.key("paths")
    writer.beginArray()
    for path in paths { path.write(to: &writer) }
    writer.endArray()
    if !replicas.isEmpty {
      writer.key("replicas")
      writer.beginArray()
      for path in replicas { path.write(to: &writer) }
      writer.endArray()
    }
    writer.key("exports")
    writer.beginArray()
    for name in exports { writer.string(name) }
    writer.endArray()
    writer.member("tls", tls.map { $0.isRequired } ?? false)
    if let tls { writeKeys(of: tls, to: &writer) }
    writer.member("device", device.map { ByteString($0.path) })
    writer.key("driver")
    writer.string(driver == .nbd ? "nbd" : "ublk")
    writer.member("connections", connectionCount)
    writer.key("accessMode")
    switch accessMode {
    case .readWrite: writer.string("rw")
    case .readOnly: writer.string("ro")
    case .migration: writer.string("migration")
    }
    writer.member("origin", origin)
    if let serverOrigin { write(serverOrigin, to: &writer) }
    if let blockSize { writer.member("blockSize", blockSize) }
    if let requestTimeoutSeconds {
      writer.member("requestTimeoutSeconds", requestTimeoutSeconds)
    }
    if let deadTimeSeconds { writer.member("deadTimeSeconds", deadTimeSeconds) }
    if let shutdownTimeSeconds { writer.member("shutdownTimeSeconds", shutdownTimeSeconds) }
    if let silenceSeconds { writer.member("silenceSeconds", silenceSeconds) }
    if let answerSeconds { writer.member("answerSeconds", answerSeconds) }
    if blockProtocol == .rnbd {
      writer.member("session", session)
      writer.member("devicePath", devicePath)
      writer.member("ioMode", ioMode.map { $0 == .block ? "blockio" : "fileio" })
      writer.member("queues", queueCount)
    }
    writer.member("pending", isPending)
    writer.endObject()
  }

  private func writeKeys(of tls: TLSPolicy, to writer: inout JSONWriter) {
    writer.member("tlsHostname", tls.verifiedName)
    writer.member("tlsVerifyPeer", tls.verifiesPeer)
    writer.key("tlsType")
    switch tls.authentication {
    case nil: writer.null()
    case .anonymous: writer.string("anon")
    case .x509: writer.string("x509")
    case .preSharedKey: writer.string("psk")
    }
    writer.member("tlsIdentity", tls.identity)
  }

  private func write(_ origin: ServerOrigin, to writer: inout JSONWriter) {
    switch origin {
    case .lease(let interface, let field, let path):
      writer.member("serverOrigin", "lease:" + interface)
      writer.member("serverOriginDetail", field + " in " + path)
    case .ipParameter:
      writer.member("serverOrigin", "ip=")
      writer.member("serverOriginDetail", "second field of ip=")
    }
  }
}

extension TargetPath {
  fileprivate func write(to writer: inout JSONWriter) {
    writer.beginObject()
    writer.member("source", source?.text)
    writer.member("server", server.text)
    writer.member("port", server.needsNetwork ? UInt32(port) : nil)
    writer.endObject()
  }
}
