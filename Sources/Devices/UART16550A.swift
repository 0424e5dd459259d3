import Host

/// Whoever feeds a receiver, and waits for it to have room again.
package protocol ReceiveDemand: AnyObject, Sendable {
  /// The receiver has room after it had to refuse bytes. Called once for each time it ran out, by
  /// the VCPU that made the room, perhaps before the call that was refused has returned.
  func receiverHasRoom()
}

/// Whoever is fed: a console's device.
package protocol ByteReceiver: AnyObject, Sendable {
  /// Takes as many of `bytes` as fit, from the first on, and returns how many those are. Where it is
  /// fewer than all, `receiverHasRoom` will be called.
  func receive(_ bytes: Span<UInt8>) -> Int
  /// What it has received and the guest has not read.
  var unread: [UInt8] { get }
  /// From now on takes nothing that a driver which is yet to come would throw away.
  func awaitDriver()
}

extension ByteReceiver {
  /// Nothing is lost to the driver where it brings the room itself.
  package func awaitDriver() {}
}

/// A National Semiconductor 16550A UART, the PC's serial port: eight byte-wide registers.
///
/// What the guest sends is sent at once, so the transmitter is always empty. What comes in waits at
/// the sender's until the guest has read what came before, so no byte is lost.
package final class UART16550A: Device, ByteReceiver {
  /// The name that traces and tables show.
  package let name: StaticString
  private let line: any InterruptLine
  private let sink: any ByteSink
  private let demand: (any ReceiveDemand)?
  private let registers = RankedMutex(.registers, UART16550ARegisters())

  // What is left to do when the lock is released: sink and demand may block or call back.
  private enum Effect {
    case none
    case transmit
    case announceRoom
  }

  /// A UART as it is after reset: FIFOs off, interrupts off, 9600 baud.
  ///
  /// `line` is set under the UART's lock, so that levels arrive in order: it must not call back.
  package init(
    name: StaticString = "uart", line: any InterruptLine, sink: any ByteSink,
    demand: (any ReceiveDemand)? = nil
  ) {
    self.name = name
    self.line = line
    self.sink = sink
    self.demand = demand
  }

  /// Answers a read of the register at `offset`.
  package func read(offset: UInt64, width: Int) -> UInt64 {
    let (value, effect) = registers.withLock { registers in
      let value = readRegister(offset, &registers)
      drive(&registers)
      return (value, roomEffect(&registers))
    }
    if effect == .announceRoom { demand?.receiverHasRoom() }
    return UInt64(value)
  }

  /// Takes a write to the register at `offset`.
  package func write(offset: UInt64, width: Int, value: UInt64) {
    let byte = UInt8(truncatingIfNeeded: value)
    let effect = registers.withLock { registers in
      let effect = writeRegister(offset, byte, &registers)
      drive(&registers)
      return effect
    }
    switch effect {
    case .none: break
    case .transmit: sink.write(CollectionOfOne(byte).span)
    case .announceRoom: demand?.receiverHasRoom()
    }
  }

  /// Takes the bytes of a repeated write; those to the THR reach the sink in one call.
  package func write(offset: UInt64, width: Int, bytes: Span<UInt8>) {
    let isTransmission = registers.withLock { registers in
      guard isTransmitter(offset, registers), !registers.isLoopback else { return false }
      transmitterEmptied(&registers)
      return true
    }
    if isTransmission {
      sink.write(bytes)
    } else {
      writeOneByOne(offset: offset, width: width, bytes: bytes)
    }
  }
}

// MARK: - Receiving

extension UART16550A {
  /// How many bytes `receive` would take now: up to 16 with FIFOs on, 1 without, 0 in loopback.
  ///
  /// A caller that is told 0 counts as refused: `receiverHasRoom` follows.
  package var receiveRoom: Int {
    registers.withLock { registers in
      let room = registers.receiveRoom
      if room == 0 { registers.isRoomAwaited = true }
      return room
    }
  }

  /// Takes as many of `bytes` as fit, from the first on, and returns how many those are.
  ///
  /// Where it is fewer than all, `receiverHasRoom` will be called when the rest is worth offering.
  package func receive(_ bytes: Span<UInt8>) -> Int {
    registers.withLock { registers in
      let taken = min(bytes.count, registers.receiveRoom)
      for index in 0..<taken { registers.receive(bytes[index]) }
      if taken < bytes.count { registers.isRoomAwaited = true }
      drive(&registers)
      return taken
    }
  }

  /// What it has received and the guest has not read.
  package var unread: [UInt8] { registers.withLock { $0.receiver.waiting } }

  /// Takes a break condition, which Linux's SysRq listens for, or returns false for want of room.
  package func receiveBreak() -> Bool {
    registers.withLock { registers in
      guard registers.receiveRoom > 0 else { return false }
      registers.receive(0, isBreak: true)
      drive(&registers)
      return true
    }
  }

  /// From now on takes what comes only while the interrupt of received data and the FIFOs are on, which
  /// is how Linux leaves the port to its users: setting it up, it throws away what is there.
  package func awaitDriver() { registers.withLock { $0.awaitsDriver = true } }

  private func roomEffect(_ registers: inout UART16550ARegisters) -> Effect {
    guard registers.isRoomAwaited && registers.receiveRoom > 0 else { return .none }
    registers.isRoomAwaited = false
    return .announceRoom
  }
}

// MARK: - Registers

extension UART16550A {
  private func readRegister(
    _ offset: UInt64, _ registers: inout UART16550ARegisters
  ) -> UInt8 {
    let isDivisorLatch = registers.lineControl.contains(.dlab)
    switch offset & 7 {
    case 0 where isDivisorLatch: return UInt8(truncatingIfNeeded: registers.divisorLatch)
    case 0: return readReceiverBuffer(&registers)
    case 1 where isDivisorLatch: return UInt8(truncatingIfNeeded: registers.divisorLatch >> 8)
    case 1: return registers.interruptEnable.rawValue
    case 2: return readInterruptIdentification(&registers)
    case 3: return registers.lineControl.rawValue
    case 4: return registers.modemControl.rawValue
    case 5: return registers.readLineStatus()
    case 6: return registers.readModemStatus()
    default: return registers.scratch
    }
  }

  private func writeRegister(
    _ offset: UInt64, _ value: UInt8, _ registers: inout UART16550ARegisters
  ) -> Effect {
    let isDivisorLatch = registers.lineControl.contains(.dlab)
    switch offset & 7 {
    case 0 where isDivisorLatch:
      registers.divisorLatch = registers.divisorLatch & 0xFF00 | UInt16(value)
    case 0: return transmit(value, &registers)
    case 1 where isDivisorLatch:
      registers.divisorLatch = registers.divisorLatch & 0x00FF | UInt16(value) << 8
    case 1: registers.setInterruptEnable(value)
    case 2: registers.setFIFOControl(value)
    case 3: registers.lineControl = .init(rawValue: value)
    case 4: registers.setModemControl(value)
    case 5, 6: break  // LSR and MSR are read-only outside of factory tests.
    default: registers.scratch = value
    }
    return roomEffect(&registers)
  }

  private func isTransmitter(_ offset: UInt64, _ registers: UART16550ARegisters) -> Bool {
    offset & 7 == 0 && !registers.lineControl.contains(.dlab)
  }

  private func transmit(_ byte: UInt8, _ registers: inout UART16550ARegisters) -> Effect {
    if registers.isLoopback { registers.receiveInLoopback(byte) }
    transmitterEmptied(&registers)
    return registers.isLoopback ? .none : .transmit
  }

  // A write to the THR clears its interrupt, and being sent raises it anew. The line has to show
  // both: behind an edge-triggered input a driver that never reads IIR waits for the edge.
  private func transmitterEmptied(_ registers: inout UART16550ARegisters) {
    registers.isTransmitterEmptyPending = false
    drive(&registers)
    registers.isTransmitterEmptyPending = true
    drive(&registers)
  }

  // Data below the trigger level is indicated at once, not after four character times: there is no
  // baud clock, and a sender that had more would have delivered it already.
  //
  // A read clears the indication and, while data is left, it comes back: with an edge, which a
  // driver that takes one byte an interrupt waits for. A line's sender never outran such a driver;
  // ours fills the FIFO in one go, so the edge comes above the trigger level too.
  private func readReceiverBuffer(_ registers: inout UART16550ARegisters) -> UInt8 {
    let byte = registers.readReceiverBuffer()
    registers.isReceiverHeldOff = true
    drive(&registers)
    registers.isReceiverHeldOff = false
    return byte
  }

  // Reading IIR clears the transmitter's interrupt if that is what it tells of.
  private func readInterruptIdentification(_ registers: inout UART16550ARegisters) -> UInt8 {
    let value = registers.interruptIdentificationRegister
    if registers.interruptIdentification == .transmitterEmpty {
      registers.isTransmitterEmptyPending = false
    }
    return value
  }

  private func drive(_ registers: inout UART16550ARegisters) {
    let isRaised = registers.isInterrupting
    guard isRaised != registers.isLineRaised else { return }
    registers.isLineRaised = isRaised
    line.set(isRaised)
  }
}

// MARK: - State

extension UART16550A: Stateful {
  /// What waited in the FIFO is lost, as on MR; who feeds it can ask for `unread` before.
  package func reset() { take(UART16550ARegisters()) }

  /// Writes the registers and what is in the FIFO.
  package func save(to state: inout StateWriter) { registers.withLock { $0.save(to: &state) } }

  /// Takes them back. Whoever feeds this UART, and waits, is told of the room that there is now.
  package func restore(from state: StateReader) throws(StateError) {
    take(try UART16550ARegisters(state))
  }

  private func take(_ new: UART16550ARegisters) {
    let effect = registers.withLock { registers in
      // That somebody waits, and for whom, is nothing of the guest's.
      let (isRoomAwaited, awaitsDriver) = (registers.isRoomAwaited, registers.awaitsDriver)
      registers = new
      (registers.isRoomAwaited, registers.awaitsDriver) = (isRoomAwaited, awaitsDriver)
      registers.isLineRaised = registers.isInterrupting
      line.set(registers.isLineRaised)
      return roomEffect(&registers)
    }
    if effect == .announceRoom { demand?.receiverHasRoom() }
  }
}
