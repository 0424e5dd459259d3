import Host
import Synchronization

/// Virtio over PCI (virtio 1.2, 4.1), modern only: one memory range with the common configuration,
/// doorbells, ISR status and the device's configuration, found by capabilities.
package final class VirtioPCI: Sendable {
  /// Where each structure is in range 4; a page for each, so that doorbells have one alone.
  enum Region {
    static let common: UInt64 = 0x0000
    static let isr: UInt64 = 0x1000
    static let device: UInt64 = 0x2000
    static let notify: UInt64 = 0x3000
    static let size: UInt64 = 0x4000
    /// Bytes between the doorbells of one queue and the next.
    static let notifyStep: UInt64 = 4
    static let bar = 4
  }

  private static let vendor: UInt16 = 0x1AF4
  private static let firstDeviceID: UInt16 = 0x1040
  private static let msixBAR = 1

  /// The device behind it.
  package let core: VirtioCore
  /// What stands on the bus.
  package let function: PCIFunction
  private let registers: VirtioPCIRegisters
  private let window: VirtioPCIWindow

  /// Puts `device` on a slot of its own: a vector for each queue and one for changes of the
  /// configuration, or the pin.
  package init(
    _ device: any VirtioDevice, _ surroundings: VirtioCore.Surroundings, _ platform: PCIPlatform
  ) throws(Errno) {
    let count = device.queueSizes.count
    let slot = try PCISlot(platform, vectors: count + 1)
    let interrupts = VirtioPCIInterrupts(slot, queueCount: count)
    var doorbells: [Doorbell] = []
    for index in 0..<count {
      // Each queue has an address of its own, so the value doesn't matter (4.1.5.2).
      let doorbell = try Doorbell(width: 2)
      slot.connect(
        doorbell, bar: Region.bar, offset: Region.notify + UInt64(index) * Region.notifyStep)
      doorbells.append(doorbell)
    }
    core = try VirtioCore(
      device, surroundings, doorbells: doorbells, interrupts: interrupts, mayUseMemory: false)
    registers = VirtioPCIRegisters(core, interrupts)
    window = VirtioPCIWindow(registers)
    function = PCIFunction(
      name: device.name,
      PCIIdentity(
        vendor: Self.vendor, device: Self.firstDeviceID + device.type, revision: 1,
        kind: Self.kind(device.type), subsystemVendor: Self.vendor,
        subsystem: Self.firstDeviceID + device.type),
      slot, bars: [PCIBAR(Region.bar, .memory64, size: Region.size, registers)],
      capabilities: VirtioPCICapabilities.all(window: window), hasPin: true,
      msixBAR: Self.msixBAR, observer: registers)
  }

  private static func kind(_ type: UInt16) -> PCIClass {
    switch type {
    case 1: .ethernet
    case 2: .scsi
    case 3: .communication
    default: .other
    }
  }
}

/// The function, with its configuration space and vectors, has a state of its own.
extension VirtioPCI: Stateful {
  /// As a new device has it.
  package func reset() {
    core.reset()
    registers.common.reset()
    window.reset()
  }

  /// Writes selectors, ISR status, which vector is for what, and all behind them.
  package func save(to state: inout StateWriter) {
    registers.common.save(to: &state)
    window.save(to: &state)
    registers.interrupts.save(to: &state)
    state.group("core") { core.save(to: &$0) }
  }

  /// Takes them.
  package func restore(from state: StateReader) throws(StateError) {
    reset()
    try registers.common.restore(from: state)
    try window.restore(from: state)
    try registers.interrupts.restore(from: state)
    try core.restore(from: state.group("core"))
  }
}

/// What answers in range 4. It doesn't know the function that holds it.
final class VirtioPCIRegisters: Device {
  private typealias Region = VirtioPCI.Region

  private let core: VirtioCore
  let interrupts: VirtioPCIInterrupts
  let common: VirtioPCICommon

  init(_ core: VirtioCore, _ interrupts: VirtioPCIInterrupts) {
    self.core = core
    self.interrupts = interrupts
    common = VirtioPCICommon(core, interrupts)
  }

  /// The device's own name.
  var name: StaticString { core.device.name }
  /// Registers have up to 32 bits; 64-bit ones are written in halves (4.1.3.1).
  var widestAccess: Int { 4 }

  /// Answers a read in range 4.
  func read(offset: UInt64, width: Int) -> UInt64 {
    switch offset {
    case ..<Region.isr: common.read(offset, width)
    // Reading takes the status and lowers the pin (4.1.4.5).
    case Region.isr: UInt64(interrupts.takeStatus())
    case Region.device..<Region.notify:
      core.device.readConfiguration(offset: offset - Region.device, width: width)
    default: 0
    }
  }

  /// Takes a write there.
  func write(offset: UInt64, width: Int, value: UInt64) {
    switch offset {
    case ..<Region.isr: common.write(offset, width, value)
    case Region.device..<Region.notify:
      core.device.writeConfiguration(offset: offset - Region.device, width: width, value: value)
    case Region.notify...:
      core.ring(queue: Int((offset &- Region.notify) / Region.notifyStep))
    default: break
    }
  }
}

extension VirtioPCIRegisters: PCIFunctionObserver {
  /// Doorbells follow their range by themselves.
  func rangeDidMove(bar: Int, to place: BusAddress?) {}

  /// Without bus mastering a function must leave memory alone.
  func busMasteringDidChange(_ isOn: Bool) { core.setMayUseMemory(isOn) }

  /// Those who raise vectors by themselves must use them, or not.
  func messagesDidChange() {
    for queue in 0..<core.queueCount { core.interruptDidChange(queue: queue) }
  }
}

/// ISR status, the pin, and which vector is for what.
final class VirtioPCIInterrupts: VirtioInterrupts {
  /// No vector (4.1.5.1.1.1).
  static let noVector: UInt16 = 0xFFFF

  private let slot: PCISlot
  private let status = RankedMutex<UInt8>(.status, 0)
  private let vectors: [Atomic16]
  private let configurationVector = Atomic16()

  /// A vector's number, which drivers write and queues' threads read.
  private final class Atomic16: Sendable {
    let value = Atomic<UInt16>(noVector)
  }

  init(_ slot: PCISlot, queueCount: Int) {
    self.slot = slot
    vectors = (0..<queueCount).map { _ in Atomic16() }
  }

  private func vector(_ queue: Int?) -> Atomic16? {
    guard let queue else { return configurationVector }
    return vectors.indices.contains(queue) ? vectors[queue] : nil
  }

  /// The vector of `queue`, or for nil that of configuration changes.
  subscript(queue: Int?) -> UInt16 {
    get { vector(queue)?.value.load(ordering: .relaxed) ?? Self.noVector }
    set {
      // A vector that isn't there reads back as none.
      let isThere = Int(newValue) < slot.msix?.count ?? 0
      vector(queue)?.value.store(isThere ? newValue : Self.noVector, ordering: .relaxed)
    }
  }

  /// A vector's event, whether or not it is masked: MSI-X sees to that.
  func event(queue: Int) -> SharedEvent? {
    guard let msix = slot.msix, msix.isEnabled else { return nil }
    let vector = Int(vectors[queue].value.load(ordering: .relaxed))
    return vector < msix.count ? msix.event(vector) : nil
  }

  func signal(queue: Int) -> DeviceInterrupt { tell(bit: 1, vectors[queue]) }

  func signalConfiguration() -> DeviceInterrupt { tell(bit: 2, configurationVector) }

  private func tell(bit: UInt8, _ vector: Atomic16) -> DeviceInterrupt {
    if let msix = slot.msix, msix.isEnabled {
      let index = Int(vector.value.load(ordering: .relaxed))
      msix.raise(index)
      return index < msix.count ? .message(index) : .none
    }
    status.withLock { status in
      status |= bit
      slot.pin.set(true)
    }
    return .line
  }

  func takeStatus() -> UInt8 {
    status.withLock { status in
      defer { status = 0 }
      slot.pin.set(false)
      return status
    }
  }

  func save(to state: inout StateWriter) {
    state.write("isr", status.withLock { $0 })
    state.write("configurationVector", self[nil])
    for queue in vectors.indices {
      state.group("vector\(queue)") { $0.write("vector", self[queue]) }
    }
  }

  /// Takes a state that was saved, after a reset.
  func restore(from state: StateReader) throws(StateError) {
    let isr: UInt8 = try state.read("isr", in: 0...3)
    try set(state.read("configurationVector"), of: nil)
    for queue in vectors.indices {
      try set(state.group("vector\(queue)").read("vector"), of: queue)
    }
    status.withLock { status in
      status = isr
      slot.pin.set(isr != 0)
    }
  }

  private func set(_ vector: UInt16, of queue: Int?) throws(StateError) {
    self[queue] = vector
    guard self[queue] == vector else { throw .impossible("vector") }
  }

  func reset() {
    _ = takeStatus()
    for vector in vectors { vector.value.store(Self.noVector, ordering: .relaxed) }
    configurationVector.value.store(Self.noVector, ordering: .relaxed)
  }
}
