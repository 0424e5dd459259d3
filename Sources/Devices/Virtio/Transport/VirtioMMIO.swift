import Host

/// Virtio over MMIO, version 2 (virtio 1.2, 4.2.2): 256 bytes of registers, then the device's
/// configuration space.
package final class VirtioMMIO: Device {
  /// How many bytes of the address space it takes.
  package static let size: UInt64 = 0x200

  /// "virt", and ours.
  private static let magic: UInt64 = 0x7472_6976
  private static let vendor: UInt64 = 0x4C4D_564B

  private enum Register {
    static let magicValue: UInt64 = 0x000
    static let version: UInt64 = 0x004
    static let deviceID: UInt64 = 0x008
    static let vendorID: UInt64 = 0x00C
    static let deviceFeatures: UInt64 = 0x010
    static let deviceFeaturesSelect: UInt64 = 0x014
    static let driverFeatures: UInt64 = 0x020
    static let driverFeaturesSelect: UInt64 = 0x024
    static let queueSelect: UInt64 = 0x030
    static let queueSizeMax: UInt64 = 0x034
    static let queueSize: UInt64 = 0x038
    static let queueReady: UInt64 = 0x044
    static let queueNotify: UInt64 = 0x050
    static let interruptStatus: UInt64 = 0x060
    static let interruptACK: UInt64 = 0x064
    static let status: UInt64 = 0x070
    static let queueDescriptors: UInt64 = 0x080
    static let queueAvailable: UInt64 = 0x090
    static let queueUsed: UInt64 = 0x0A0
    static let sharedMemory: ClosedRange<UInt64> = 0x0B0...0x0BC
    static let queueReset: UInt64 = 0x0C0
    static let generation: UInt64 = 0x0FC
    static let configuration: UInt64 = 0x100
  }

  /// The device behind it.
  package let core: VirtioCore
  private let interrupts: VirtioMMIOInterrupts
  private let selectors = RankedMutex(.last, Selectors())

  private struct Selectors {
    var deviceFeatures: UInt32 = 0
    var driverFeatures: UInt32 = 0
    var queue: UInt32 = 0
  }

  /// Puts `device` behind registers; `line` is its interrupt.
  package init(
    _ device: any VirtioDevice, _ surroundings: VirtioCore.Surroundings, line: any InterruptLine
  ) throws(Errno) {
    interrupts = VirtioMMIOInterrupts(line: line)
    var doorbells: [Doorbell] = []
    for index in device.queueSizes.indices {
      try doorbells.append(Doorbell(width: 4, value: UInt64(index)))
    }
    core = try VirtioCore(device, surroundings, doorbells: doorbells, interrupts: interrupts)
  }

  /// Lets writes to the doorbell register of a device at `start` wake its queues without an exit.
  package func connectDoorbells(at start: UInt64, _ host: any DoorbellHost) {
    for doorbell in core.signals.doorbells {
      host.connect(doorbell, at: .memory(start + Register.queueNotify))
    }
  }

  /// The device's own name.
  package var name: StaticString { core.device.name }
  /// Registers have 32 bits.
  package var widestAccess: Int { 4 }

  /// Answers a read. Registers are read in 4 bytes, the configuration in any width.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    if offset >= Register.configuration {
      return core.device.readConfiguration(offset: offset - Register.configuration, width: width)
    }
    guard width == 4 else { return 0 }
    switch offset {
    case Register.magicValue: return Self.magic
    case Register.version: return 2
    case Register.deviceID: return UInt64(core.device.type)
    case Register.vendorID: return Self.vendor
    case Register.deviceFeatures:
      let select = selectors.withLock { $0.deviceFeatures }
      return select < 2 ? core.offered.rawValue >> UInt64(32 * select) & 0xFFFF_FFFF : 0
    case Register.interruptStatus: return UInt64(interrupts.status)
    case Register.status: return UInt64(core.status.rawValue)
    // There is no shared memory: its length reads as ones (4.2.2).
    case Register.sharedMemory: return 0xFFFF_FFFF
    case Register.generation: return UInt64(core.generation)
    default: return readQueue(offset)
    }
  }

  private func readQueue(_ offset: UInt64) -> UInt64 {
    guard let queue = core.queue(selectedQueue) else { return 0 }
    return switch offset {
    case Register.queueSizeMax: UInt64(queue.largestSize)
    case Register.queueReady: queue.registers.isEnabled ? 1 : 0
    case Register.queueReset: queue.registers.isResetting ? 1 : 0
    default: 0
    }
  }

  private var selectedQueue: Int { Int(selectors.withLock { $0.queue }) }

  /// Takes a write.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    if offset >= Register.configuration {
      return core.device.writeConfiguration(
        offset: offset - Register.configuration, width: width, value: value)
    }
    guard width == 4 else { return }
    let word = UInt32(truncatingIfNeeded: value)
    switch offset {
    case Register.deviceFeaturesSelect: selectors.withLock { $0.deviceFeatures = word }
    case Register.driverFeaturesSelect: selectors.withLock { $0.driverFeatures = word }
    case Register.driverFeatures:
      core.setDriverFeatures(word, selectors.withLock { $0.driverFeatures })
    case Register.queueSelect: selectors.withLock { $0.queue = word }
    case Register.queueNotify: core.ring(queue: Int(word))
    case Register.interruptACK: interrupts.acknowledge(word)
    case Register.status: core.writeStatus(UInt8(truncatingIfNeeded: word))
    default: writeQueue(offset, word)
    }
  }

  private func writeQueue(_ offset: UInt64, _ value: UInt32) {
    let index = selectedQueue
    func change(_ part: WritableKeyPath<VirtQueue.Addresses, UInt64>, isHigh: Bool) {
      core.changeQueue(index) { $0.addresses[keyPath: part].setHalf(value, isHigh: isHigh) }
    }
    switch offset {
    case Register.queueSize: core.changeQueue(index) { $0.size = UInt16(clamping: value) }
    case Register.queueDescriptors: change(\.descriptors, isHigh: false)
    case Register.queueDescriptors + 4: change(\.descriptors, isHigh: true)
    case Register.queueAvailable: change(\.available, isHigh: false)
    case Register.queueAvailable + 4: change(\.available, isHigh: true)
    case Register.queueUsed: change(\.used, isHigh: false)
    case Register.queueUsed + 4: change(\.used, isHigh: true)
    case Register.queueReady where value & 1 != 0: core.enableQueue(index)
    // Taking a queue back is a reset of it, which the driver waits for here as well.
    case Register.queueReady: core.resetQueue(index)
    case Register.queueReset where value & 1 != 0: core.resetQueue(index)
    default: break
    }
  }
}

extension VirtioMMIO: Stateful {
  /// As a new device has it.
  package func reset() {
    core.reset()
    selectors.withLock { $0 = Selectors() }
  }

  /// Writes selectors, interrupt status, and all behind them.
  package func save(to state: inout StateWriter) {
    let selectors = selectors.withLock { $0 }
    state.write("deviceFeaturesSelect", selectors.deviceFeatures)
    state.write("driverFeaturesSelect", selectors.driverFeatures)
    state.write("queueSelect", selectors.queue)
    state.write("interruptStatus", interrupts.status)
    state.group("core") { core.save(to: &$0) }
  }

  /// Takes them.
  package func restore(from state: StateReader) throws(StateError) {
    var new = Selectors()
    new.deviceFeatures = try state.read("deviceFeaturesSelect")
    new.driverFeatures = try state.read("driverFeaturesSelect")
    new.queue = try state.read("queueSelect")
    let status: UInt32 = try state.read("interruptStatus", in: 0...3)
    reset()
    selectors.withLock { [new] in $0 = new }
    interrupts.restore(status)
    try core.restore(from: state.group("core"))
  }
}

extension UInt64 {
  /// Replaces the upper or the lower 32 bits.
  mutating func setHalf(_ value: UInt32, isHigh: Bool) {
    self =
      isHigh
      ? self & 0xFFFF_FFFF | UInt64(value) << 32 : self & ~0xFFFF_FFFF | UInt64(value)
  }
}

/// The interrupt status register of the MMIO transport and the line that follows it.
final class VirtioMMIOInterrupts: VirtioInterrupts {
  private let line: any InterruptLine
  private let bits = RankedMutex<UInt32>(.status, 0)

  /// None so far. `line` is set under the register's lock, so that levels arrive in order.
  init(line: any InterruptLine) { self.line = line }

  /// Bit 0: requests are done; bit 1: the configuration changed (virtio 1.2, 4.2.2).
  func signal(queue: Int) -> DeviceInterrupt { add(1) }
  /// Raises the line for a change of the configuration.
  func signalConfiguration() -> DeviceInterrupt { add(2) }

  /// Lowers the line.
  func reset() { acknowledge(.max) }

  var status: UInt32 { bits.withLock { $0 } }

  /// Takes a status that was saved, after a reset.
  func restore(_ status: UInt32) { if status != 0 { _ = add(status) } }

  private func add(_ bit: UInt32) -> DeviceInterrupt {
    bits.withLock { bits in
      if bits == 0 { line.set(true) }
      bits |= bit
    }
    return .line
  }

  func acknowledge(_ acknowledged: UInt32) {
    bits.withLock { bits in
      guard bits != 0 else { return }
      bits &= ~acknowledged
      if bits == 0 { line.set(false) }
    }
  }
}
