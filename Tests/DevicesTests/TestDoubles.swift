import Devices
import Synchronization

/// An interrupt line that remembers every level it was set to.
final class RecordingLine: InterruptLine {
  private let log = Mutex<[Bool]>([])

  var levels: [Bool] { log.withLock { $0 } }
  var isRaised: Bool { levels.last ?? false }
  var edges: Int { levels.count { $0 } }

  func set(_ isRaised: Bool) { log.withLock { $0.append(isRaised) } }
}

/// A sink that remembers each call's bytes.
final class RecordingSink: ByteSink {
  private let log = Mutex<[[UInt8]]>([])

  var calls: [[UInt8]] { log.withLock { $0 } }
  var bytes: [UInt8] { calls.flatMap(\.self) }

  func write(_ bytes: Span<UInt8>) {
    let copy = bytes.indices.map { bytes[$0] }
    log.withLock { $0.append(copy) }
  }
}

/// A machine that remembers what it was asked for.
final class RecordingMachine: MachineControl {
  enum Request: Equatable {
    case powerOff
    case suspend
    case reset
    case exit(UInt32)
  }

  private let log = Mutex<[Request]>([])

  var requests: [Request] { log.withLock { $0 } }

  func requestPowerOff() { log.withLock { $0.append(.powerOff) } }
  func requestSuspend() { log.withLock { $0.append(.suspend) } }
  func requestReset() { log.withLock { $0.append(.reset) } }
  func requestExit(_ value: UInt32) { log.withLock { $0.append(.exit(value)) } }
}

/// A feeder that counts how often it was called for.
final class CountingDemand: ReceiveDemand {
  private let calls = Atomic<Int>(0)

  var count: Int { calls.load(ordering: .relaxed) }

  func receiverHasRoom() { calls.add(1, ordering: .relaxed) }
}

/// A device of plain bytes that remembers the accesses made to it.
final class RecordingDevice: Device {
  struct Access: Equatable {
    let offset: UInt64
    let width: Int
    let value: UInt64?
  }

  let name: StaticString
  let widestAccess: Int
  private let log = Mutex<[Access]>([])

  var accesses: [Access] { log.withLock { $0 } }

  init(_ name: StaticString = "recorder", widestAccess: Int = 1) {
    self.name = name
    self.widestAccess = widestAccess
  }

  /// Every byte of the device reads as its offset plus 0x10.
  func read(offset: UInt64, width: Int) -> UInt64 {
    log.withLock { $0.append(Access(offset: offset, width: width, value: nil)) }
    return (0..<UInt64(width)).reduce(0) { $0 | ((offset &+ $1 &+ 0x10) & 0xFF) << ($1 * 8) }
  }

  func write(offset: UInt64, width: Int, value: UInt64) {
    log.withLock { $0.append(Access(offset: offset, width: width, value: value)) }
  }
}

extension Device {
  /// Reads one byte, as `in al, dx` does.
  func byte(_ offset: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: read(offset: offset, width: 1)) }

  /// Writes one byte, as `out dx, al` does.
  func put(_ value: UInt8, _ offset: UInt64) {
    write(offset: offset, width: 1, value: UInt64(value))
  }
}
