// SPDX-License-Identifier: Apache-2.0
public import LinuxSystem

/// What was asked of librdmacm or libibverbs.
public enum VerbsCall: Equatable, Sendable {
  case listDevices
  case openChannel, takeEvent
  case createIdentifier, setOption, bind, listen, resolveAddress, resolveRoute
  case connect, accept, reject
  case queryDevice, createDomain, registerMemory, createWindow
  case createCompletionQueue, armCompletionQueue, pollCompletionQueue
  case createQueuePair, failQueuePair, postSend, postReceive

  var text: String {
    switch self {
    case .listDevices: "looking for RDMA devices"
    case .openChannel: "the connection manager, /dev/infiniband/rdma_cm"
    case .takeEvent: "an event of the connection manager"
    case .createIdentifier: "a connection identifier"
    case .setOption: "an option of a connection"
    case .bind: "binding to an address"
    case .listen: "listening"
    case .resolveAddress: "resolving the address"
    case .resolveRoute: "resolving the route"
    case .connect: "connecting"
    case .accept: "accepting a connection"
    case .reject: "rejecting a connection"
    case .queryDevice: "the limits of the RDMA device"
    case .createDomain: "a protection domain"
    case .registerMemory: "registering memory"
    case .createWindow: "a memory window"
    case .createCompletionQueue: "a completion queue"
    case .armCompletionQueue: "arming a completion queue"
    case .pollCompletionQueue: "polling a completion queue"
    case .createQueuePair: "a queue pair"
    case .failQueuePair: "ending a queue pair"
    case .postSend: "posting a transfer"
    case .postReceive: "posting a receive"
    }
  }
}

/// Why something that RDMA needs is not there.
public enum VerbsError: Error, Equatable, Sendable {
  /// This machine has no RDMA device, or no driver that shows it to programs.
  case noDevice
  /// An identifier that is bound to no device yet, or whose queue pair is gone.
  case notBound(VerbsCall)
  case failed(VerbsCall, SystemError)

  /// What happened, with the values seen, and what a person at the console can do about it.
  public var report: (reason: String, advice: String) {
    switch self {
    case .noDevice:
      (
        "this machine has no RDMA device",
        "load the adapter's driver, ib_uverbs and rdma_ucm, or make a soft device"
      )
    case .notBound(let call): ("\(call.text): no device is bound", "resolve the address first")
    case .failed(.registerMemory, let error) where error == .noMemory:
      ("registering memory: \(error.text)", "raise the limit on locked memory (ulimit -l)")
    case .failed(.openChannel, let error):
      ("\(VerbsCall.openChannel.text): \(error.text)", "load rdma_ucm")
    case .failed(let call, let error): ("\(call.text): \(error.text)", "look at the kernel log")
    }
  }
}

/// The result of a shim as a value or an error that says what was being done.
@inline(__always)
func verbs(_ call: VerbsCall, _ result: CInt) throws(VerbsError) {
  guard result < 0 else { return }
  throw .failed(call, SystemError(errno: 0 &- result))
}
