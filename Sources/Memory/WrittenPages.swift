import Host
import Synchronization

/// A bit for each page of RAM: which ones kvmlite was given to write, as devices do. KVM's log of dirty
/// pages hasn't got those.
///
/// A page is noted when somebody gets a view of it to write to, which may be before he writes: whoever takes
/// the notes sees to it that nothing is in flight then.
final class WrittenPages: Sendable {
  private let words: Mapping

  /// For RAM of `size` bytes.
  init(ramSize size: UInt64) throws(Errno) {
    let bytes = (size / GuestMemory.pageSize + 63) / 64 * 8
    words = try Mapping(anonymous: Int((bytes + 4095) & ~4095))
  }

  /// Where the page of `address` is among those of RAM.
  private static func index(_ address: UInt64) -> Int {
    let hole = address >= GuestMemory.holeEnd ? GuestMemory.holeEnd - GuestMemory.holeStart : 0
    return Int((address - hole) / GuestMemory.pageSize)
  }

  /// Notes the pages of `count` bytes from `address` on.
  func note(_ address: GuestAddress, _ count: UInt64) {
    guard count > 0 else { return }
    for page in Self.index(address.value)...Self.index(address.value + (count - 1)) {
      guard let word = unsafe word(page / 64) else { return }
      unsafe word.pointee.bitwiseOr(1 << UInt64(page % 64), ordering: .relaxed)
    }
  }

  /// The pages that were noted, which aren't any more unless they are `kept`.
  func take(keeping isKept: Bool) -> [GuestAddress] {
    var pages: [GuestAddress] = []
    for index in 0..<words.count / 8 {
      guard let word = unsafe word(index) else { break }
      let bits =
        unsafe isKept
        ? word.pointee.load(ordering: .acquiring) : word.pointee.exchange(0, ordering: .acquiring)
      for bit in 0..<64 where bits >> UInt64(bit) & 1 != 0 {
        let address = UInt64(index * 64 + bit) * GuestMemory.pageSize
        let hole =
          address >= GuestMemory.holeStart ? GuestMemory.holeEnd - GuestMemory.holeStart : 0
        pages.append(GuestAddress(address + hole))
      }
    }
    return pages
  }

  // Sound: inside the mapping; an Atomic has the size and the layout of its value, and zero is one.
  private func word(_ index: Int) -> UnsafeMutablePointer<Atomic<UInt64>>? {
    guard index >= 0, index < words.count / 8 else { return nil }
    return unsafe (words.base + index * 8).assumingMemoryBound(to: Atomic<UInt64>.self)
  }
}

extension GuestMemory {
  /// Notes from now on which pages of RAM kvmlite is given to write, or no longer.
  package func logWrites(_ isOn: Bool) throws(Errno) {
    if isOn { _ = written.storeIfNil(try WrittenPages(ramSize: ramSize)) }
    _ = written.load()?.take(keeping: false)
    logsWrites.store(isOn, ordering: .sequentiallyConsistent)
  }

  /// The pages of RAM that kvmlite was given to write since the last call, and those that it has for good,
  /// as rings. Nothing is in flight.
  package func takeWrites() -> [GuestAddress] {
    (written.load()?.take(keeping: false) ?? []) + (kept.load()?.take(keeping: true) ?? [])
  }

  /// The same as `writableView(at:count:)` for what is written again and again, as rings are.
  public func keptView(at address: GuestAddress, count: UInt64) throws(OutOfBounds) -> MemoryView {
    let view = try writableView(at: address, count: count)
    if kept.load() == nil, let pages = try? WrittenPages(ramSize: ramSize) {
      _ = kept.storeIfNil(pages)
    }
    kept.load()?.note(address, count)
    return view
  }
}
