import Synchronization

/// What rings need of a view: parts of it, and indices that two sides hand to each other.
extension MemoryView {
  /// The part of the view from `range.lowerBound` on; outside of it is a mistake, which traps.
  public func extracting(_ range: Range<Int>) -> MemoryView {
    precondition(range.lowerBound >= 0 && range.upperBound <= count, "outside the view")
    return MemoryView(mapping, offset + range.lowerBound, range.count)
  }

  /// Gives the host back the whole pages of the view, which read as zeros after that. Returns how
  /// many bytes those were.
  @discardableResult
  public func giveBack() -> Int { mapping.giveBack(at: offset, count: count) }

  /// The little-endian number at `position`, which is even, in one piece and before all that is
  /// read after it.
  @inlinable
  public func loadAcquiring(_ position: Int) -> UInt16 {
    unsafe UInt16(littleEndian: atomic(position).pointee.load(ordering: .acquiring))
  }

  /// Puts `value` at `position`, which is even, in one piece and after all that was written before.
  @inlinable
  public func storeReleasing(_ value: UInt16, _ position: Int) {
    unsafe atomic(position).pointee.store(value.littleEndian, ordering: .releasing)
  }

  @inlinable
  func atomic(_ position: Int) -> UnsafeMutablePointer<Atomic<UInt16>> {
    // pointer() has checked the bounds; an Atomic has the size and the layout of its value.
    let start = unsafe pointer(position, MemoryLayout<UInt16>.size)
    precondition(UInt(bitPattern: start) & 1 == 0, "an index at an odd address")
    return unsafe start.assumingMemoryBound(to: Atomic<UInt16>.self)
  }
}
