import Host

/// Hears of what the driver does to a function. It is called in order and under a lock of the
/// function's, so it must not use the function's configuration.
package protocol PCIFunctionObserver: AnyObject, Sendable {
  /// The range of register `bar` is at `place` now; nil while it isn't decoded.
  func rangeDidMove(bar: Int, to place: BusAddress?)
  /// The driver switched bus mastering on or off.
  func busMasteringDidChange(_ isOn: Bool)
  /// The driver switched MSI-X on or off.
  func messagesDidChange()
}

extension PCIFunctionObserver {
  /// Most devices look when they interrupt.
  package func messagesDidChange() {}
}

/// A configuration register of a function's own that only keeps what is written to it, of 16 bits.
package struct PCIOwnRegister: Sendable {
  /// Where it is: an even number from 0x40 on.
  package let offset: Int
  /// What it holds after a reset.
  package let value: UInt16
  /// The bits that a guest can change.
  package let writable: UInt16

  /// Takes all as they are.
  package init(offset: Int, value: UInt16, writable: UInt16) {
    precondition(offset >= 0x40 && offset <= 0xFE && offset & 1 == 0)
    self.offset = offset
    self.value = value
    self.writable = writable
  }
}

/// A function on the PCI bus: its configuration registers, and what follows from writes to them.
///
/// The device behind it answers in the ranges of its BARs and speaks through its `PCISlot`.
package final class PCIFunction: Sendable {
  /// The name that traces and tables show.
  package let name: StaticString
  /// What it is.
  package let identity: PCIIdentity
  /// The device's side.
  package let slot: PCISlot
  /// Its ranges, with that of MSI-X.
  package let bars: [PCIBAR]
  /// Whether it has an interrupt pin.
  package let hasPin: Bool

  private typealias Offset = PCIConfigurationSpace.Offset

  private struct State {
    var space: PCIConfigurationSpace
    /// As it is after a reset.
    var initial: PCIConfigurationSpace
    /// Where each of `bars` is, or nil.
    var places: [BusAddress?]
    /// Who is told: the look-up tables and the number of each of `bars` in its own.
    var decoders: [(ranges: PCIRanges, index: Int)] = []
    var isBusMaster = false
    var usesMessages = false
  }

  /// A capability whose registers somebody else answers for.
  private struct Registers {
    let start: UInt64
    let count: UInt64
    let device: any Device

    // ID and pointer are the list's.
    func holds(_ offset: UInt64) -> Bool { offset >= start + 2 && offset - start < count }
  }

  private let state: RankedMutex<State>
  private let registers: [Registers]
  private let messageControl: Int?
  private let observer: (any PCIFunctionObserver)?

  /// A function with these parts. With MSI-X vectors in `slot`, their table gets register `msixBAR`.
  /// Capabilities must have room in 192 bytes. A function with `ownRegisters`, which start at 0x40 as
  /// capabilities do, has none of those.
  package init(
    name: StaticString, _ identity: PCIIdentity, _ slot: PCISlot, bars: [PCIBAR] = [],
    capabilities: [PCICapability] = [], registers ownRegisters: [PCIOwnRegister] = [],
    hasPin: Bool = false, msixBAR: Int = 1, observer: (any PCIFunctionObserver)? = nil
  ) {
    var bars = bars
    var capabilities = capabilities
    if let msix = slot.msix {
      bars.append(PCIBAR(msixBAR, .memory32, size: msix.size, msix))
      capabilities.insert(Self.capability(of: msix, bar: msixBAR), at: 0)
    }
    var space = PCIConfigurationSpace()
    Self.define(identity, bars, hasPin, in: &space)
    precondition(ownRegisters.isEmpty || capabilities.isEmpty, "both are at 0x40")
    registers = Self.define(capabilities, in: &space)
    for register in ownRegisters {
      space.define(register.offset, register.value, writable: register.writable)
    }
    messageControl = slot.msix == nil ? nil : Offset.end + 2
    self.name = name
    self.identity = identity
    self.slot = slot
    self.bars = bars
    self.hasPin = hasPin
    self.observer = observer
    state = RankedMutex(
      .function, State(space: space, initial: space, places: bars.map { _ in nil }))
  }

  // MARK: Registers

  private static func define(
    _ identity: PCIIdentity, _ bars: [PCIBAR], _ hasPin: Bool,
    in space: inout PCIConfigurationSpace
  ) {
    space.define(Offset.vendor, identity.vendor)
    space.define(Offset.device, identity.device)
    space.define(Offset.revision, identity.revision)
    let kind = identity.kind
    space.define(
      Offset.interface,
      UInt16(kind.interface) | UInt16(kind.sub) << 8)
    space.define(Offset.interface + 2, kind.base)
    space.define(Offset.subsystemVendor, identity.subsystemVendor)
    space.define(Offset.subsystem, identity.subsystem)
    space.define(Offset.cacheLineSize, UInt16(0), writable: 0xFFFF)
    var command: PCIConfigurationSpace.Command = [
      .busMaster, .parityErrorResponse, .systemErrorEnable, .interruptDisable,
    ]
    if bars.contains(where: { $0.kind == .port }) { command.insert(.portSpace) }
    if bars.contains(where: { $0.kind != .port }) { command.insert(.memorySpace) }
    space.define(Offset.command, UInt16(0), writable: command.rawValue)
    space.define(Offset.interruptLine, UInt8(0xFF), writable: hasPin ? 0xFF : 0)
    space.define(Offset.interruptPin, hasPin ? 1 : 0 as UInt8)
    var isTaken = [Bool](repeating: false, count: 6)
    for bar in bars {
      let registers = bar.index...(bar.kind == .memory64 ? bar.index + 1 : bar.index)
      for index in registers {
        precondition(!isTaken[index], "two ranges for one register")
        isTaken[index] = true
      }
      // Sizing follows from the mask: the bits below the size stay zero (6.2.5.1).
      let mask = ~(bar.size - 1)
      let offset = Offset.bars + 4 * bar.index
      space.define(offset, bar.flags, writable: UInt32(truncatingIfNeeded: mask))
      if bar.kind == .memory64 {
        space.define(offset + 4, UInt32(0), writable: UInt32(truncatingIfNeeded: mask >> 32))
      }
    }
  }

  /// Links the capabilities (6.7), each on a boundary of 4 bytes.
  private static func define(
    _ capabilities: [PCICapability], in space: inout PCIConfigurationSpace
  ) -> [Registers] {
    var registers: [Registers] = []
    var pointer = Offset.capabilities
    var offset = Offset.end
    for capability in capabilities {
      let count = capability.body.count + 2
      precondition(offset + count <= Int(PCIConfigurationSpace.size), "too many capabilities")
      space[pointer] = UInt8(offset)
      space[offset] = capability.id
      for (index, byte) in capability.body.enumerated() {
        let mask = index < capability.writable.count ? capability.writable[index] : 0
        space.define(offset + 2 + index, byte, writable: mask)
      }
      if let device = capability.registers {
        registers.append(Registers(start: UInt64(offset), count: UInt64(count), device: device))
      }
      pointer = offset + 1
      offset = (offset + count + 3) & ~3
    }
    if !capabilities.isEmpty {
      space[Offset.status] = PCIConfigurationSpace.Status.capabilities
    }
    return registers
  }

  /// 6.8.2.3 to 6.8.2.5: Message Control, and where table and pending bits are.
  private static func capability(of msix: MSIX, bar: Int) -> PCICapability {
    let control = UInt16(msix.count - 1)
    let words = [UInt32(bar), UInt32(truncatingIfNeeded: msix.pendingOffset) | UInt32(bar)]
    var body = [UInt8(truncatingIfNeeded: control), UInt8(control >> 8)]
    for word in words {
      for shift in [0, 8, 16, 24] { body.append(UInt8(truncatingIfNeeded: word >> UInt32(shift))) }
    }
    return PCICapability(
      id: PCICapability.msixID, body: body,
      writable: [0, MessageControl.enable | MessageControl.mask])
  }

  // The upper byte of Message Control.
  private enum MessageControl {
    static let enable: UInt8 = 0x80
    static let mask: UInt8 = 0x40
  }

  // MARK: What a guest reads and writes

  /// Reads `width` bytes (1, 2 or 4) of configuration space. Beyond 256 bytes there are no registers,
  /// and zeros say so.
  package func readConfiguration(_ offset: UInt64, width: Int) -> UInt64 {
    for part in registers where part.holds(offset) {
      return part.device.read(offset: offset &- part.start, width: width)
    }
    let value = state.withLock { $0.space.read(offset, width: width) }
    // Interrupt Status is the pin's, not ours to keep.
    let status = UInt64(Offset.status)
    guard slot.pin.isRaised, offset <= status, status &- offset < UInt64(width) else {
      return value
    }
    return value | UInt64(PCIConfigurationSpace.Status.interrupt) << ((status &- offset) * 8)
  }

  /// Writes `width` bytes (1, 2 or 4) of configuration space: the bits that can be written change,
  /// and ranges, pin and vectors follow.
  package func writeConfiguration(_ offset: UInt64, width: Int, value: UInt64) {
    for part in registers where part.holds(offset) {
      part.device.write(offset: offset &- part.start, width: width, value: value)
      return
    }
    state.withLock { state in
      state.space.write(offset, width: width, value: value)
      follow(&state)
    }
  }

  /// Makes everything as the registers say.
  private func follow(_ state: inout State) {
    let command = state.space.command
    let isBusMaster = command.contains(.busMaster)
    slot.mayMaster.store(isBusMaster, ordering: .releasing)
    if hasPin { slot.pin.disable(command.contains(.interruptDisable)) }
    if let msix = slot.msix {
      msix.set(control(of: state.space))
      if msix.isEnabled != state.usesMessages {
        state.usesMessages = msix.isEnabled
        observer?.messagesDidChange()
      }
    }
    for index in state.decoders.indices { moveRange(index, &state) }
    if isBusMaster != state.isBusMaster {
      state.isBusMaster = isBusMaster
      observer?.busMasteringDidChange(isBusMaster)
    }
  }

  private func control(of space: PCIConfigurationSpace) -> MSIX.Control {
    let bits = messageControl.map { space[$0 + 1] } ?? 0
    return MSIX.Control(
      isEnabled: bits & MessageControl.enable != 0, isMasked: bits & MessageControl.mask != 0,
      mayMaster: space.command.contains(.busMaster))
  }

  private func moveRange(_ index: Int, _ state: inout State) {
    let bar = bars[index]
    let place = place(of: bar, in: state.space, state.decoders[index].ranges)
    guard place != state.places[index] else { return }
    state.places[index] = place
    state.decoders[index].ranges.move(state.decoders[index].index, to: place)
    slot.doorbells.move(bar: bar.index, to: place)
    observer?.rangeDidMove(bar: bar.index, to: place)
  }

  /// Where `bar` is decoded: nowhere unless it is switched on and wholly inside a window.
  private func place(
    of bar: PCIBAR, in space: PCIConfigurationSpace, _ ranges: PCIRanges
  ) -> BusAddress? {
    let offset = Offset.bars + 4 * bar.index
    var address = UInt64(space.doubleword(offset) & ~(bar.kind == .port ? 3 : 15))
    if bar.kind == .memory64 { address |= UInt64(space.doubleword(offset + 4)) << 32 }
    let isOn = space.command.contains(bar.kind == .port ? .portSpace : .memorySpace)
    guard isOn, ranges.windows.contains(where: { $0.holds(address, bar.size) }) else { return nil }
    return bar.kind == .port
      ? .port(UInt16(truncatingIfNeeded: address)) : .memory(address)
  }

  // MARK: For the bus

  /// Tells where look-ups of each of `bars` go, and its pin to `line`. `pin` is 1 for INTA# to 4.
  func attach(
    _ decoders: [(ranges: PCIRanges, index: Int)], isMultifunction: Bool, pin: UInt8,
    line: (any InterruptLine)?
  ) {
    state.withLock { state in
      state.decoders = decoders
      state.space[Offset.headerType] = isMultifunction ? 0x80 : 0
      if hasPin { state.space[Offset.interruptPin] = pin }
      state.initial = state.space
    }
    if hasPin, let line { slot.pin.connect(to: line) }
  }

  /// Where each of `bars` is decoded now, if it is.
  package var places: [BusAddress?] { state.withLock { $0.places } }

  /// What firmware or driver noted as the interrupt, 0xFF for none.
  package var interruptLine: UInt8 { state.withLock { $0.space[Offset.interruptLine] } }
}

// MARK: - State

extension PCIFunction: Stateful {
  /// Makes the registers as new: ranges are nowhere until somebody assigns them again, vectors are
  /// masked, the pin is low. The observer is told.
  package func reset() {
    state.withLock { state in
      state.space = state.initial
      follow(&state)
    }
    slot.msix?.reset()
    slot.pin.reset()
  }

  /// Writes the registers, and the vectors' table; not what the device behind it has, nor the pin,
  /// which is the device's to raise again.
  package func save(to state: inout StateWriter) {
    state.write("registers", self.state.withLock { $0.space.contents })
    if let msix = slot.msix { state.group("msix") { msix.save(to: &$0) } }
  }

  /// Takes them back; ranges, doorbells and vectors follow, and the observer is told.
  package func restore(from state: StateReader) throws(StateError) {
    let contents = try state.readBytes("registers", count: Int(PCIConfigurationSpace.size))
    var new = self.state.withLock { $0.initial }
    guard new.take(contents) else { throw .impossible("registers") }
    if let msix = slot.msix { try msix.restore(from: state.group("msix"), control(of: new)) }
    self.state.withLock { state in
      state.space = new
      follow(&state)
    }
  }
}
