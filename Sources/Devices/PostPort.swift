import Synchronization

/// The diagnostic port 0x80, where firmware writes how far it has come (its POST code), and where
/// Linux writes to pass a little time.
///
/// It stands at one to four ports; each keeps its byte, so wide codes are kept whole.
package final class PostPort: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "post" }
  /// Takes up to four bytes in one piece.
  package var widestAccess: Int { 4 }
  private let code = Atomic<UInt32>(0)

  /// A port that nothing has been written to: the code is 0.
  package init() {}

  /// The code written last, for accounts of how far a guest came.
  package var lastCode: UInt32 { code.load(ordering: .relaxed) }

  /// Answers what was written last.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    UInt64(lastCode >> shift(offset)) & mask(width)
  }

  /// Remembers `width` bytes of the code.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    let lanes = UInt32(truncatingIfNeeded: mask(width) << shift(offset))
    let bytes = UInt32(truncatingIfNeeded: value << shift(offset))
    var old = code.load(ordering: .relaxed)
    while true {
      let new = old & ~lanes | bytes & lanes
      let result = code.weakCompareExchange(expected: old, desired: new, ordering: .relaxed)
      if result.exchanged { return }
      old = result.original
    }
  }

  private func shift(_ offset: UInt64) -> UInt64 { (offset & 3) * 8 }

  private func mask(_ width: Int) -> UInt64 {
    width >= 4 ? 0xFFFF_FFFF : (1 << UInt64(truncatingIfNeeded: width * 8)) &- 1
  }
}

extension PostPort: Stateful {
  /// Forgets the code.
  package func reset() { code.store(0, ordering: .relaxed) }

  /// Writes the code.
  package func save(to state: inout StateWriter) { state.write("code", lastCode) }

  /// Takes it back.
  package func restore(from state: StateReader) throws(StateError) {
    code.store(try state.read("code"), ordering: .relaxed)
  }
}
