import Host

/// The device that kvm-unit-tests try KVM with, as QEMU's pc-testdev: a latch, a way to flush a page
/// and to raise interrupts, and memory that isn't RAM.
///
/// This is the part at ports 0xE0 to 0xEB: at 0 a latch of 32 bits, at 4 the flush, at 8 the latch
/// again. The rest are devices of their own.
package final class TestDevice: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "testdev" }
  /// Takes up to four bytes in one piece.
  package var widestAccess: Int { 4 }

  private let flush: @Sendable (UInt64) -> Void
  private let latch = RankedMutex<UInt32>(.registers, 0)

  /// How many ports this part has.
  package static let portCount: UInt64 = 12
  private static let flushOffset: UInt64 = 4

  /// A test device; `flush` makes KVM forget how it translates the page at a guest-physical address.
  package init(flush: @escaping @Sendable (UInt64) -> Void) { self.flush = flush }

  /// Answers those bytes of the latch; the flush port reads ones.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    guard !isFlush(offset) else { return mask(width) }
    return UInt64(latch.withLock { $0 } >> shift(offset)) & mask(width)
  }

  /// Sets those bytes of the latch, or flushes the page at an address of 32 bits.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    if isFlush(offset) {
      if offset == Self.flushOffset && width == 4 { flush(value & 0xFFFF_F000) }
      return
    }
    let lanes = UInt32(truncatingIfNeeded: mask(width) << UInt64(shift(offset)))
    let bits = UInt32(truncatingIfNeeded: value << UInt64(shift(offset)))
    latch.withLock { $0 = $0 & ~lanes | bits & lanes }
  }

  private func isFlush(_ offset: UInt64) -> Bool { offset & 0xC == Self.flushOffset }

  private func shift(_ offset: UInt64) -> UInt32 { UInt32(offset & 3) * 8 }

  private func mask(_ width: Int) -> UInt64 { .max >> UInt64(clamping: 64 - width * 8) }
}

// MARK: - Interrupts

/// The ports from 0x2000 on: a byte that isn't zero raises the interrupt line of that number, zero
/// lowers it.
package final class TestInterruptPorts: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "testdev-irq" }
  /// Sees wider writes whole, to refuse them.
  package var widestAccess: Int { 4 }

  private let lines: [any InterruptLine]
  private let levels: RankedMutex<[Bool]>

  /// A port for each of `lines`.
  package init(lines: [any InterruptLine]) {
    self.lines = lines
    levels = RankedMutex(.registers, lines.map { _ in false })
  }

  /// Answers ones: the ports are for writing.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    .max >> UInt64(clamping: 64 - width * 8)
  }

  /// Sets the line of that offset. Only bytes count.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    guard width == 1, offset < UInt64(lines.count) else { return }
    levels.withLock { levels in
      levels[Int(offset)] = value != 0
      lines[Int(offset)].set(value != 0)
    }
  }
}

// MARK: - Memory

/// The 64 KiB at 0xFF000000 that keep what is written but aren't RAM: each access leaves the guest.
package final class TestMemory: Device {
  /// The name that traces and tables show.
  package var name: StaticString { "testdev-memory" }
  /// Takes up to eight bytes in one piece.
  package var widestAccess: Int { 8 }

  /// How many bytes there are.
  package static let size: UInt64 = 0x10000
  private let bytes = RankedMutex(.registers, [UInt8](repeating: 0, count: Int(TestMemory.size)))

  /// Memory full of zeros.
  package init() {}

  /// Answers the bytes from `offset` on.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    bytes.withLock { bytes in
      (0..<width).reduce(0) { value, index in
        value | UInt64(bytes[place(offset, index)]) << UInt64(index * 8)
      }
    }
  }

  /// Keeps the bytes from `offset` on.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    bytes.withLock { bytes in
      for index in 0..<width {
        bytes[place(offset, index)] = UInt8(truncatingIfNeeded: value >> UInt64(index * 8))
      }
    }
  }

  private func place(_ offset: UInt64, _ index: Int) -> Int {
    Int((offset &+ UInt64(index)) % Self.size)
  }
}

// MARK: - State

extension TestDevice: Stateful {
  /// Clears the latch.
  package func reset() { latch.withLock { $0 = 0 } }

  /// Writes the latch.
  package func save(to state: inout StateWriter) {
    state.write("latch", latch.withLock { $0 })
  }

  /// Takes it back.
  package func restore(from state: StateReader) throws(StateError) {
    let new: UInt32 = try state.read("latch")
    latch.withLock { $0 = new }
  }
}

extension TestInterruptPorts: Stateful {
  /// Lowers what was raised here.
  package func reset() { set(lines.map { _ in false }) }

  /// Writes which lines are raised, a byte each.
  package func save(to state: inout StateWriter) {
    state.write("raised", levels.withLock { $0.map { $0 ? 1 : 0 } })
  }

  /// Raises and lowers them again.
  package func restore(from state: StateReader) throws(StateError) {
    let new = try state.readBytes("raised", count: lines.count)
    guard new.allSatisfy({ $0 <= 1 }) else { throw .impossible("raised") }
    set(new.map { $0 == 1 })
  }

  // The inputs are other devices' too: those that stay as they were aren't touched.
  private func set(_ new: [Bool]) {
    levels.withLock { levels in
      for index in lines.indices where levels[index] != new[index] {
        lines[index].set(new[index])
      }
      levels = new
    }
  }
}

extension TestMemory: Stateful {
  /// Fills it with zeros.
  package func reset() {
    bytes.withLock { $0 = [UInt8](repeating: 0, count: Int(TestMemory.size)) }
  }

  /// Writes all of it.
  package func save(to state: inout StateWriter) {
    state.write("bytes", bytes.withLock { $0 })
  }

  /// Takes it back.
  package func restore(from state: StateReader) throws(StateError) {
    let new = try state.readBytes("bytes", count: Int(TestMemory.size))
    bytes.withLock { $0 = new }
  }
}
