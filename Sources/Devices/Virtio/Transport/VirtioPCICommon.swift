import Host

/// The common configuration structure (virtio 1.2, 4.1.4.3).
final class VirtioPCICommon: Sendable {
  private enum Field {
    static let deviceFeatureSelect: UInt64 = 0x00
    static let deviceFeature: UInt64 = 0x04
    static let driverFeatureSelect: UInt64 = 0x08
    static let driverFeature: UInt64 = 0x0C
    static let configurationVector: UInt64 = 0x10
    static let queueCount: UInt64 = 0x12
    static let status: UInt64 = 0x14
    static let generation: UInt64 = 0x15
    static let queueSelect: UInt64 = 0x16
    static let queueSize: UInt64 = 0x18
    static let queueVector: UInt64 = 0x1A
    static let queueEnable: UInt64 = 0x1C
    static let queueNotifyOffset: UInt64 = 0x1E
    static let queueDescriptors: UInt64 = 0x20
    static let queueAvailable: UInt64 = 0x28
    static let queueUsed: UInt64 = 0x30
    static let queueReset: UInt64 = 0x3A
  }

  /// How many bytes it has.
  static let size: UInt64 = 0x3C

  private struct Selectors {
    var deviceFeature: UInt32 = 0
    var driverFeature: UInt32 = 0
    var queue: UInt16 = 0
  }

  private let core: VirtioCore
  private let interrupts: VirtioPCIInterrupts
  private let selectors = RankedMutex(.last, Selectors())

  init(_ core: VirtioCore, _ interrupts: VirtioPCIInterrupts) {
    self.core = core
    self.interrupts = interrupts
  }

  func reset() { selectors.withLock { $0 = Selectors() } }

  func save(to state: inout StateWriter) {
    let selectors = selectors.withLock { $0 }
    state.write("deviceFeatureSelect", selectors.deviceFeature)
    state.write("driverFeatureSelect", selectors.driverFeature)
    state.write("queueSelect", selectors.queue)
  }

  func restore(from state: StateReader) throws(StateError) {
    var new = Selectors()
    new.deviceFeature = try state.read("deviceFeatureSelect")
    new.driverFeature = try state.read("driverFeatureSelect")
    new.queue = try state.read("queueSelect")
    selectors.withLock { [new] in $0 = new }
  }

  // Drivers use each field's own width (4.1.3.1); anything else reads 0 and writes nothing.
  func read(_ offset: UInt64, _ width: Int) -> UInt64 {
    let selectors = selectors.withLock { $0 }
    switch (offset, width) {
    case (Field.deviceFeatureSelect, 4): return UInt64(selectors.deviceFeature)
    case (Field.deviceFeature, 4):
      let select = selectors.deviceFeature
      return select < 2 ? core.offered.rawValue >> UInt64(32 * select) & 0xFFFF_FFFF : 0
    case (Field.driverFeatureSelect, 4): return UInt64(selectors.driverFeature)
    case (Field.driverFeature, 4): return UInt64(core.driverFeatures(selectors.driverFeature))
    case (Field.configurationVector, 2): return UInt64(interrupts[nil])
    case (Field.queueCount, 2): return UInt64(core.queueCount)
    case (Field.status, 1): return UInt64(core.status.rawValue)
    case (Field.generation, 1): return UInt64(core.generation & 0xFF)
    case (Field.queueSelect, 2): return UInt64(selectors.queue)
    default: return readQueue(offset, width, Int(selectors.queue))
    }
  }

  private func readQueue(_ offset: UInt64, _ width: Int, _ index: Int) -> UInt64 {
    // A queue that isn't there has the size 0.
    guard let queue = core.queue(index) else { return 0 }
    let registers = queue.registers
    switch (offset, width) {
    case (Field.queueSize, 2): return UInt64(registers.size)
    case (Field.queueVector, 2): return UInt64(interrupts[index])
    case (Field.queueEnable, 2): return registers.isEnabled ? 1 : 0
    case (Field.queueNotifyOffset, 2): return UInt64(index)
    case (Field.queueReset, 2): return registers.isResetting ? 1 : 0
    default: break
    }
    guard width == 4, let (part, isHigh) = Self.address(offset) else { return 0 }
    return registers.addresses[keyPath: part] >> (isHigh ? 32 : 0) & 0xFFFF_FFFF
  }

  /// Which half of which address is at `offset`.
  private static func address(
    _ offset: UInt64
  ) -> (WritableKeyPath<VirtQueue.Addresses, UInt64>, isHigh: Bool)? {
    switch offset {
    case Field.queueDescriptors: (\.descriptors, false)
    case Field.queueDescriptors + 4: (\.descriptors, true)
    case Field.queueAvailable: (\.available, false)
    case Field.queueAvailable + 4: (\.available, true)
    case Field.queueUsed: (\.used, false)
    case Field.queueUsed + 4: (\.used, true)
    default: nil
    }
  }

  func write(_ offset: UInt64, _ width: Int, _ value: UInt64) {
    let word = UInt32(truncatingIfNeeded: value)
    switch (offset, width) {
    case (Field.deviceFeatureSelect, 4): selectors.withLock { $0.deviceFeature = word }
    case (Field.driverFeatureSelect, 4): selectors.withLock { $0.driverFeature = word }
    case (Field.driverFeature, 4):
      core.setDriverFeatures(word, selectors.withLock { $0.driverFeature })
    case (Field.configurationVector, 2): interrupts[nil] = UInt16(truncatingIfNeeded: value)
    case (Field.status, 1): core.writeStatus(UInt8(truncatingIfNeeded: value))
    case (Field.queueSelect, 2): selectors.withLock { $0.queue = UInt16(truncatingIfNeeded: value) }
    default: writeQueue(offset, width, word, Int(selectors.withLock { $0.queue }))
    }
  }

  private func writeQueue(_ offset: UInt64, _ width: Int, _ value: UInt32, _ index: Int) {
    switch (offset, width) {
    case (Field.queueSize, 2):
      core.changeQueue(index) { $0.size = UInt16(truncatingIfNeeded: value) }
    case (Field.queueVector, 2):
      interrupts[index] = UInt16(truncatingIfNeeded: value)
      core.interruptDidChange(queue: index)
    // There is no way to take a queue back but its reset.
    case (Field.queueEnable, 2): if value == 1 { core.enableQueue(index) }
    case (Field.queueReset, 2): if value == 1 { core.resetQueue(index) }
    default:
      guard width == 4, let (part, isHigh) = Self.address(offset) else { return }
      core.changeQueue(index) { $0.addresses[keyPath: part].setHalf(value, isHigh: isHigh) }
    }
  }
}
