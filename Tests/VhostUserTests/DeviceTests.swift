import Foundation
import Host
import Memory
import Synchronization
import TestSupport
import Testing

@testable import Devices
@testable import VhostUser

/// Notes what a device says of its queues.
private final class Owner: VirtioRemoteOwner {
  private let monitor = Monitor()
  private let stopped = Mutex<[Int]>([])
  private let failures = Mutex<[String]>([])
  private let stills = Mutex(0)

  func remoteDidComplete(queue index: Int) {}

  func remoteDidStop(queue index: Int) {
    monitor.locked {
      stopped.withLock { $0.append(index) }
      monitor.wakeAll()
    }
  }

  func remoteDidFail(_ reason: String) {
    monitor.locked {
      failures.withLock { $0.append(reason) }
      monitor.wakeAll()
    }
  }

  func waitForFailures(_ count: Int) throws -> [String] {
    try wait { failures.withLock { $0.count } >= count }
    return failures.withLock { $0 }
  }

  /// Notes that the device stands still.
  func isStill() {
    monitor.locked {
      stills.withLock { $0 += 1 }
      monitor.wakeAll()
    }
  }

  func waitForStills(_ count: Int) throws { try wait { stills.withLock { $0 } >= count } }
  var stillCount: Int { stills.withLock { $0 } }

  func waitForStop() throws { try wait { !stopped.withLock { $0.isEmpty } } }

  private func wait(for condition: () -> Bool) throws {
    let deadline = Deadline(seconds: 30)
    try monitor.locked {
      while !condition() {
        guard monitor.wait(until: deadline.nanoseconds) else { throw Overdue("nothing came") }
      }
    }
  }
}

/// A back end that says what a test wants it to.
private final class Script: Sendable {
  let path: String
  private let listener: UnixListener
  private let peer = Mutex<Peer?>(nil)

  init() throws {
    path = FileManager.default.temporaryDirectory.appending(path: "vhost-\(UUID())").path
    listener = try UnixListener(at: path)
  }

  /// Greets the next front end, which `body` makes connect.
  func greet<Result>(
    sectors: UInt64 = 8, _ protocolFeatures: ProtocolFeatures = .configuration,
    _ body: () throws -> Result
  ) throws -> Result {
    let thread = try HostThread.start(name: "script") { [self] in
      peer.withLock { peer in
        guard let socket = try? listener.accept() else { return }
        peer = Peer(socket)
        let features = VirtioFeatures.version1.union(.bit(30)).rawValue
        try? peer?.answer(.getFeatures, .numbers(features))
        try? peer?.answer(.getProtocolFeatures, .numbers(protocolFeatures.rawValue))
        let header: [UInt8] = .numbers(UInt32(0), UInt32(60), UInt32(0))
        try? peer?.answer(
          .getConfiguration, header + .numbers(sectors) + [UInt8](repeating: 0, count: 52))
      }
    }
    defer { thread.join() }
    return try body()
  }

  /// Ends the connection.
  func die() { peer.withLock { $0 = nil } }

  /// Waits for `request`, over others.
  func waitFor(_ request: VhostUserMessage.Request) throws {
    let deadline = Deadline(seconds: 30)
    while true {
      let found = try peer.withLock { try $0?.channel.next()?.request }
      if found == request { return }
      if deadline.isOver { throw Overdue("no \(request) came") }
      HostThread.yield()
    }
  }

  /// The next message of `request`, over others.
  func next(_ request: VhostUserMessage.Request) throws -> VhostUserMessage {
    let deadline = Deadline(seconds: 30)
    while true {
      let message = try peer.withLock { try $0?.channel.next() }
      if let message, message.request == request { return message }
      if deadline.isOver { throw Overdue("no \(request) came") }
      HostThread.yield()
    }
  }

  func answer(_ request: VhostUserMessage.Request, _ payload: [UInt8]) throws {
    try peer.withLock { try $0?.answer(request, payload) }
  }
}

@Suite("A disk of another process", .limited)
struct DeviceTests {
  private let script: Script
  private let memory: GuestMemory
  private let owner = Owner()

  init() throws {
    script = try Script()
    memory = try GuestMemory(ramSize: 1 << 20, isShareable: true)
  }

  private func makeDevice(
    _ protocolFeatures: ProtocolFeatures = .configuration
  ) throws -> VhostUserBlock {
    let device = try script.greet(protocolFeatures) {
      try VhostUserBlock(VhostUserSocket(path: script.path), memory: memory, mostQueues: 1)
    }
    device.connect(to: owner)
    return device
  }

  private func start(_ device: VhostUserBlock, at position: UInt16 = 0) throws {
    let setup = RemoteQueueSetup(
      size: 8, addresses: .init(descriptors: 0, available: 0x1000, used: 0x2000),
      features: .version1, doorbell: try Doorbell(width: 2), interrupt: nil, start: position)
    device.start(queue: 0, setup)
  }

  @Test("fails when that one ends, and comes back when the driver starts it again")
  func comesBack() throws {
    let device = try makeDevice()
    defer { device.end() }
    #expect(device.readConfiguration(offset: 0, width: 8) == 8)
    script.die()
    #expect(try owner.waitForFailures(1)[0].contains("closed the connection"))

    try script.greet { try start(device) }
    try script.waitFor(.setRingEnable)
    device.stop(queue: 0)
    try script.waitFor(.getRingBase)
    try script.answer(.getRingBase, .numbers(UInt32(0), UInt32(5)))
    try owner.waitForStop()
    #expect(try owner.waitForFailures(1).count == 1)
  }

  @Test("stays away, once it has failed, until the driver starts it again")
  func staysAway() throws {
    let device = try makeDevice()
    defer { device.end() }
    try start(device)
    try script.waitFor(.setRingEnable)
    script.die()
    _ = try owner.waitForFailures(1)
    // Neither of these is a start; a connection would wait for a greeting that doesn't come.
    device.setInterrupt(nil, queue: 0)
    device.setMayUseMemory(true)
    device.stop(queue: 0)
    try owner.waitForStop()
    #expect(try owner.waitForFailures(1).count == 1)
  }

  @Test("doesn't come back as another disk")
  func otherDisk() throws {
    let device = try makeDevice()
    defer { device.end() }
    script.die()
    _ = try owner.waitForFailures(1)
    try script.greet(sectors: 9) { try start(device) }
    #expect(try owner.waitForFailures(2)[1].contains("another disk"))
    device.stop(queue: 0)
    try owner.waitForStop()
  }

  @Test("fails when that one talks out of turn, or answers nonsense")
  func nonsense() throws {
    let device = try makeDevice()
    defer { device.end() }
    try script.answer(.getFeatures, [])
    #expect(try owner.waitForFailures(1)[0].contains("out of turn"))
    try script.greet { try start(device) }
    try script.waitFor(.setRingEnable)
    device.stop(queue: 0)
    try script.waitFor(.getRingBase)
    try script.answer(.getRingBase, .numbers(UInt32(3), UInt32(5)))
    #expect(try owner.waitForFailures(2)[1].contains("position 5 of ring 3"))
    try owner.waitForStop()
  }

  @Test("ends although that one never answers")
  func hangs() throws {
    let device = try makeDevice([.configuration, .acknowledge])
    try start(device)
    try script.waitFor(.setFeatures)
    device.end()
  }

  /// Answers all that starts a queue but the last.
  private func acknowledgeStart() throws {
    let before: [VhostUserMessage.Request] = [
      .setFeatures, .setMemoryTable, .setRingSize, .setRingBase, .setRingAddress, .setRingCall,
      .setRingKick,
    ]
    for request in before {
      try script.waitFor(request)
      try script.answer(request, .numbers(UInt64(0)))
    }
    try script.waitFor(.setRingEnable)
  }

  @Test("takes back a queue that is stopped while it starts")
  func stoppedMeanwhile() throws {
    let device = try makeDevice([.configuration, .acknowledge])
    defer { device.end() }
    try start(device)
    try acknowledgeStart()
    device.stop(queue: 0)
    try script.answer(.setRingEnable, .numbers(UInt64(0)))
    try script.waitFor(.getRingBase)
    try script.answer(.getRingBase, .numbers(UInt32(0), UInt32(5)))
    try owner.waitForStop()
  }

  /// Which ring position the other side was told.
  private func positionTold() throws -> UInt32 {
    try script.next(.setRingBase).number(at: 4)
  }

  /// Lets the other side take a queue back at `position`.
  private func giveBack(_ position: UInt32) throws {
    try script.waitFor(.getRingBase)
    try script.answer(.getRingBase, .numbers(UInt32(0), position))
  }

  @Test("stands still once that one has given its queues back, and goes on where they were")
  func pauses() throws {
    let device = try makeDevice()
    defer { device.end() }
    try start(device)
    #expect(try positionTold() == 0)
    try script.waitFor(.setRingEnable)

    device.pause { [owner] in owner.isStill() }
    try script.waitFor(.getRingBase)
    #expect(owner.stillCount == 0, "it is still at work there")
    try script.answer(.getRingBase, .numbers(UInt32(0), UInt32(9)))
    try owner.waitForStills(1)
    #expect(device.position(ofQueue: 0) == 9)

    device.resume()
    #expect(try positionTold() == 9)
    try script.waitFor(.setRingEnable)
  }

  @Test("a pause that comes while a queue starts takes it back first")
  func pausedMeanwhile() throws {
    let device = try makeDevice([.configuration, .acknowledge])
    defer { device.end() }
    try start(device)
    try acknowledgeStart()
    device.pause { [owner] in owner.isStill() }
    try script.answer(.setRingEnable, .numbers(UInt64(0)))
    try script.waitFor(.getRingBase)
    #expect(owner.stillCount == 0, "it is still at work there")
    try script.answer(.getRingBase, .numbers(UInt32(0), UInt32(5)))
    try owner.waitForStills(1)
    #expect(device.position(ofQueue: 0) == 5)
  }

  @Test("begins nothing in a pause: a queue that starts waits for its end")
  func startsPaused() throws {
    let device = try makeDevice()
    defer { device.end() }
    device.pause { [owner] in owner.isStill() }
    try owner.waitForStills(1)
    try start(device, at: 7)
    #expect(device.position(ofQueue: 0) == 7)
    // A second pause is told of after whatever the start would have done.
    device.pause { [owner] in owner.isStill() }
    try owner.waitForStills(2)
    device.resume()
    #expect(try positionTold() == 7)
  }

  @Test("forgets its queues when the machine is reset, and serves the next driver from 0 on")
  func resets() throws {
    let device = try makeDevice()
    defer { device.end() }
    try start(device)
    try script.waitFor(.setRingEnable)
    device.pause { [owner] in owner.isStill() }
    try giveBack(4)
    try owner.waitForStills(1)
    device.reset()
    #expect(device.position(ofQueue: 0) == 0)
    device.resume()
    try start(device)
    // That driver may have agreed to something else.
    try script.waitFor(.setFeatures)
    #expect(try positionTold() == 0)
  }

  @Test("ends a pause although that one is gone, and fails as it does else")
  func diesPaused() throws {
    let device = try makeDevice()
    defer { device.end() }
    try start(device)
    try script.waitFor(.setRingEnable)
    device.pause { [owner] in owner.isStill() }
    try script.waitFor(.getRingBase)
    script.die()
    try owner.waitForStills(1)
    #expect(try owner.waitForFailures(1).count == 1)
    device.resume()
    device.stop(queue: 0)
    try owner.waitForStop()
  }

  @Test("says that another machine may have it when it is sent away at once")
  func sentAway() throws {
    let listener = try UnixListener(at: script.path + "-2")
    let path = listener.path
    let result = Mutex<String?>(nil)
    let thread = try HostThread.start(name: "front end") { [memory] in
      do throws(VhostUserError) {
        _ = try VhostUserBlock(VhostUserSocket(path: path), memory: memory, mostQueues: 1)
      } catch { result.withLock { $0 = error.description } }
    }
    _ = try listener.accept()
    thread.join()
    #expect(result.withLock { $0 }?.contains("does it serve another machine?") == true)
  }

  @Test("is not served while it may not use memory")
  func memoryForbidden() throws {
    let device = try makeDevice()
    defer { device.end() }
    device.setMayUseMemory(false)
    try start(device)
    device.setMayUseMemory(true)
    try script.waitFor(.setRingEnable)
    device.setMayUseMemory(false)
    try script.waitFor(.getRingBase)
    try script.answer(.getRingBase, .numbers(UInt32(0), UInt32(7)))
    device.setMayUseMemory(true)
    try script.waitFor(.setRingBase)
    try script.waitFor(.setRingEnable)
  }
}
