import Memory

/// The buffers of one request: first those that the device reads, then those that it writes.
///
/// One is used again for the next request, so that requests cost no allocation.
package struct DescriptorChain {
  /// The number of the first descriptor, by which the driver knows the request.
  package internal(set) var head: UInt16 = 0
  /// What the driver has for the device, without what was taken from it.
  package private(set) var readable: [MemoryView] = []
  /// What the device has to fill, without what was taken from it.
  package private(set) var writable: [MemoryView] = []
  /// How many bytes `readable` has.
  package private(set) var readableCount = 0
  /// How many bytes `writable` has.
  package private(set) var writableCount = 0

  /// A chain without buffers.
  package init() {}

  mutating func restart(at head: UInt16) {
    self.head = head
    readable.removeAll(keepingCapacity: true)
    writable.removeAll(keepingCapacity: true)
    (readableCount, writableCount) = (0, 0)
  }

  mutating func addReadable(_ view: MemoryView) {
    readable.append(view)
    readableCount += view.count
  }

  mutating func addWritable(_ view: MemoryView) {
    writable.append(view)
    writableCount += view.count
  }
}

// Drivers cut requests into buffers as they like (2.7.4), so fields may be in pieces.
extension DescriptorChain {
  /// Takes the first `count` bytes of `readable` away; there are as many.
  package mutating func dropReadable(_ count: Int) {
    precondition(count >= 0 && count <= readableCount)
    readableCount -= count
    var left = count
    while left > 0, let first = readable.first {
      if first.count > left {
        readable[0] = first.extracting(left..<first.count)
        return
      }
      left -= first.count
      readable.removeFirst()
    }
  }

  /// Takes the last byte of `writable` away and returns it; nil if there is none.
  package mutating func takeLastWritable() -> MemoryView? {
    guard let last = writable.last else { return nil }
    writableCount -= 1
    if last.count == 1 {
      writable.removeLast()
      return last
    }
    writable[writable.count - 1] = last.extracting(0..<last.count - 1)
    return last.extracting(last.count - 1..<last.count)
  }

  /// The little-endian number at byte `position` of `readable`, which has it all.
  package func load<T: FixedWidthInteger & UnsignedInteger & BitwiseCopyable>(
    _ position: Int, as type: T.Type
  ) -> T {
    precondition(position >= 0 && position <= readableCount - MemoryLayout<T>.size)
    if let first = readable.first, position <= first.count - MemoryLayout<T>.size {
      return first.load(position, as: type)
    }
    var value: T = 0
    for index in 0..<MemoryLayout<T>.size {
      value |= T(byte(position + index)) << T(8 * index)
    }
    return value
  }

  private func byte(_ position: Int) -> UInt8 {
    var left = position
    for view in readable {
      if left < view.count { return view.load(left, as: UInt8.self) }
      left -= view.count
    }
    return 0
  }

  /// Fills `writable` from its first byte on with as many of `bytes` as it takes, and returns how
  /// many those are.
  @discardableResult
  package func fill(from bytes: Span<UInt8>) -> Int {
    var done = 0
    for view in writable where done < bytes.count {
      let count = min(view.count, bytes.count - done)
      view.copy(from: bytes.extracting(done..<done + count), at: 0)
      done += count
    }
    return done
  }

  /// Fills `writable` from its first byte on with all of `source`, for which it has room.
  func fill(from source: MemoryView) {
    var done = 0
    for view in writable where done < source.count {
      let count = min(view.count, source.count - done)
      view.copy(from: source.slice(done, count: count), at: 0)
      done += count
    }
  }
}
