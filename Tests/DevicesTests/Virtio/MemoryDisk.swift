import Host
import Memory
import Storage
import Synchronization

/// A disk of bytes in memory that remembers what it was asked for.
final class MemoryDisk: BlockStore {
  enum Call: Equatable {
    case read(UInt64, Int)
    case write(UInt64, Int)
    case flush
    case zeroes(UInt64, UInt64, Bool)
    case discard(UInt64, UInt64)
  }

  private struct State {
    var bytes: [UInt8]
    var calls: [Call] = []
    var isHeld = false
    var arrived = 0
  }

  let size: UInt64
  let isReadOnly: Bool
  private let state: Mutex<State>
  private let gate = Monitor()

  init(sectors: Int, isReadOnly: Bool = false) {
    size = UInt64(sectors) * 512
    self.isReadOnly = isReadOnly
    // Sector n begins with its number.
    let bytes = (0..<sectors * 512).map { UInt8(truncatingIfNeeded: $0 / 512 &+ $0 % 512) }
    state = Mutex(State(bytes: bytes))
  }

  var bytes: [UInt8] {
    get { state.withLock { $0.bytes } }
    set { state.withLock { $0.bytes = newValue } }
  }
  var calls: [Call] { state.withLock { $0.calls } }
  /// How many requests have come, done or held.
  var arrived: Int { state.withLock { $0.arrived } }

  /// Holds requests back, or lets them go.
  func hold(_ isHeld: Bool) {
    gate.locked {
      state.withLock { $0.isHeld = isHeld }
      gate.wakeAll()
    }
  }

  private func pass(_ call: Call) {
    gate.locked {
      state.withLock { $0.arrived += 1 }
      while state.withLock({ $0.isHeld }) { gate.wait() }
    }
    state.withLock { $0.calls.append(call) }
  }

  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    let count = segments.reduce(0) { $0 + $1.count }
    pass(.read(offset, count))
    guard offset + UInt64(count) <= size else { throw .outOfRange }
    var place = Int(offset)
    for segment in segments {
      let part = state.withLock { Array($0.bytes[place..<place + segment.count]) }
      segment.copy(from: part.span, at: 0)
      place += segment.count
    }
  }

  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    let count = segments.reduce(0) { $0 + $1.count }
    pass(.write(offset, count))
    guard !isReadOnly else { throw .readOnly }
    guard offset + UInt64(count) <= size else { throw .outOfRange }
    var place = Int(offset)
    for segment in segments {
      var part = [UInt8](repeating: 0, count: segment.count)
      var span = part.mutableSpan
      segment.copy(to: &span, from: 0)
      state.withLock { $0.bytes.replaceSubrange(place..<place + part.count, with: part) }
      place += part.count
    }
  }

  func flush() throws(StorageError) { pass(.flush) }

  func writeZeroes(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {
    pass(.zeroes(offset, count, mayUnmap))
  }

  func discard(at offset: UInt64, count: UInt64) throws(StorageError) {
    pass(.discard(offset, count))
  }
}
