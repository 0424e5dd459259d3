import Host
import Memory
import Synchronization

@testable import Storage
import TestSupport

/// A file in memory that fails when it is told to, and that forgets what wasn't flushed when the power
/// goes.
final class FaultyFile: DiskFile {
  struct State {
    var bytes: [UInt8] = []
    /// What is on stable storage.
    var safe: [UInt8] = []
    /// What was written since, in order.
    var pending: [(offset: Int, bytes: [UInt8])] = []
    /// How many more calls work; nil for all.
    var callsLeft: Int?
    var error = StorageError.host(.inputOutput)
    var staysBroken = true
    var failsNextFlush = false
  }

  let state: Mutex<State>
  private let flushFailure = FlushFailure()

  init(_ bytes: [UInt8] = []) {
    state = Mutex(State(bytes: bytes, safe: bytes))
  }

  /// The bytes after a power cut: those that were flushed, and any sectors of what was written since.
  func afterPowerCut(_ numbers: inout SplitMix) -> [UInt8] {
    let state = state.withLock { $0 }
    var bytes = state.safe
    let chance = numbers.next() % 5
    for write in state.pending {
      var start = 0
      while start < write.bytes.count {
        let sectorEnd = ((write.offset + start) / 512 + 1) * 512 - write.offset
        let end = min(sectorEnd, write.bytes.count)
        if numbers.next() % 4 < chance {
          let last = write.offset + end
          if bytes.count < last {
            bytes += [UInt8](repeating: 0, count: last - bytes.count)
          }
          bytes.replaceSubrange(write.offset + start..<last, with: write.bytes[start..<end])
        }
        start = end
      }
    }
    return bytes
  }

  /// Counts a call, which fails if it is time for that.
  private func admit() throws(StorageError) {
    let error: StorageError? = state.withLock { state in
      guard let left = state.callsLeft else { return nil }
      guard left == 0 else {
        state.callsLeft = left - 1
        return nil
      }
      if !state.staysBroken { state.callsLeft = nil }
      return state.error
    }
    if let error { throw error }
  }

  var growsWithZeros: Bool { true }
  func length() throws(StorageError) -> UInt64 {
    try admit()
    return state.withLock { UInt64($0.bytes.count) }
  }

  func read(into segments: [MemoryView], at offset: UInt64) throws(StorageError) -> Int {
    let bytes = try bytes(offset, segments.byteCount)
    segments.copy(from: bytes.span, at: 0)
    return bytes.count
  }

  func read(into bytes: inout MutableSpan<UInt8>, at offset: UInt64) throws(StorageError) -> Int {
    let there = try self.bytes(offset, bytes.count)
    for index in there.indices { bytes[index] = there[index] }
    return there.count
  }

  private func bytes(_ offset: UInt64, _ wanted: Int) throws(StorageError) -> [UInt8] {
    try admit()
    return state.withLock { state in
      guard offset < UInt64(state.bytes.count) else { return [] }
      return Array(state.bytes[Int(offset)..<min(state.bytes.count, Int(offset) + wanted)])
    }
  }

  func write(from segments: [MemoryView], at offset: UInt64) throws(StorageError) {
    let bytes = segments.flatMap(\.bytes)
    try write(bytes.span, at: offset)
  }

  func write(_ bytes: Span<UInt8>, at offset: UInt64) throws(StorageError) {
    let copy = unsafe bytes.withUnsafeBufferPointer { unsafe Array($0) }
    try admit()
    state.withLock { state in
      let end = Int(offset) + copy.count
      if state.bytes.count < end {
        state.bytes += [UInt8](repeating: 0, count: end - state.bytes.count)
      }
      state.bytes.replaceSubrange(Int(offset)..<end, with: copy)
      state.pending.append((Int(offset), copy))
    }
  }

  func flush() throws(StorageError) {
    try flushFailure.flushing { () throws(StorageError) in
      try admit()
      let fails = state.withLock { state in
        defer { state.failsNextFlush = false }
        return state.failsNextFlush
      }
      if fails { throw .host(.inputOutput) }
      state.withLock { state in
        state.safe = state.bytes
        state.pending = []
      }
    }
  }

  func setLength(_ length: UInt64) throws(StorageError) {
    try admit()
    state.withLock { state in
      if state.bytes.count > Int(length) {
        state.bytes.removeLast(state.bytes.count - Int(length))
      } else {
        state.bytes += [UInt8](repeating: 0, count: Int(length) - state.bytes.count)
      }
    }
  }

  func zero(at offset: UInt64, count: UInt64, mayUnmap: Bool) throws(StorageError) {
    try writeZeros(at: offset, count: count)
  }

  func extent(at offset: UInt64, length: UInt64) -> FileDescriptor.Extent { .data(until: length) }
}
