/// The registers of a 16550A as plain values, and what follows from them alone. Sections are those
/// of National Semiconductor's PC16550D datasheet.
struct UART16550ARegisters: Sendable {
  var interruptEnable: InterruptEnable = []
  var fifoControl: FIFOControl = []
  var lineControl: LineControl = []
  private(set) var modemControl: ModemControl = []
  // The datasheet leaves the divisor latch undefined at reset; PC firmware leaves 9600 baud.
  var divisorLatch: UInt16 = 12
  var scratch: UInt8 = 0
  var receiver = ReceiveFIFO()
  // The transmitter is always empty; this is whether that is still to be told.
  var isTransmitterEmptyPending = false
  // Whether data that waits does not interrupt, for the moment of a read.
  var isReceiverHeldOff = false
  // What the interrupt line was last set to.
  var isLineRaised = false
  // Whether someone with input was refused and waits for room.
  var isRoomAwaited = false
  // Whether nothing is taken but by a driver that has set this up.
  var awaitsDriver = false
  private var lineErrors: LineStatus = []
  private var modemDeltas: ModemStatus = []

  /// IER, section 8.7.
  struct InterruptEnable: OptionSet, Sendable {
    let rawValue: UInt8
    static let erbfi = Self(rawValue: 0x01)
    static let etbei = Self(rawValue: 0x02)
    static let elsi = Self(rawValue: 0x04)
    static let edssi = Self(rawValue: 0x08)
    static let all: Self = [.erbfi, .etbei, .elsi, .edssi]
  }

  /// IIR bits 3 to 0, section 8.6.
  enum InterruptIdentification: UInt8 {
    case modemStatus = 0x00
    case none = 0x01
    case transmitterEmpty = 0x02
    case receivedData = 0x04
    case receiverLineStatus = 0x06
    case characterTimeout = 0x0C
  }

  /// FCR, section 8.5.
  struct FIFOControl: OptionSet, Sendable {
    let rawValue: UInt8
    static let fifoEnable = Self(rawValue: 0x01)
    static let receiverReset = Self(rawValue: 0x02)
    static let transmitterReset = Self(rawValue: 0x04)
    static let dmaMode = Self(rawValue: 0x08)

    // Bits 7 and 6.
    var triggerLevel: Int {
      switch rawValue >> 6 {
      case 0: 1
      case 1: 4
      case 2: 8
      default: 14
      }
    }
  }

  /// LCR, section 8.1. Word length, stop bits and parity are kept for the guest to read back but
  /// bytes always pass whole: a guest that leaves them as reset does (five bits) prints text here,
  /// as it does where firmware has set up the port before it.
  struct LineControl: OptionSet, Sendable {
    let rawValue: UInt8
    static let dlab = Self(rawValue: 0x80)
  }

  /// MCR, section 8.8.
  struct ModemControl: OptionSet, Sendable {
    let rawValue: UInt8
    static let dtr = Self(rawValue: 0x01)
    static let rts = Self(rawValue: 0x02)
    static let out1 = Self(rawValue: 0x04)
    static let out2 = Self(rawValue: 0x08)
    static let loop = Self(rawValue: 0x10)
    static let all: Self = [.dtr, .rts, .out1, .out2, .loop]
  }

  /// LSR, section 8.4.
  struct LineStatus: OptionSet, Sendable {
    let rawValue: UInt8
    static let dr = Self(rawValue: 0x01)
    static let oe = Self(rawValue: 0x02)
    static let bi = Self(rawValue: 0x10)
    static let thre = Self(rawValue: 0x20)
    static let temt = Self(rawValue: 0x40)
    static let errorInFIFO = Self(rawValue: 0x80)
  }

  /// MSR, section 8.9.
  struct ModemStatus: OptionSet, Sendable {
    let rawValue: UInt8
    static let dcts = Self(rawValue: 0x01)
    static let ddsr = Self(rawValue: 0x02)
    static let teri = Self(rawValue: 0x04)
    static let ddcd = Self(rawValue: 0x08)
    static let cts = Self(rawValue: 0x10)
    static let dsr = Self(rawValue: 0x20)
    static let ri = Self(rawValue: 0x40)
    static let dcd = Self(rawValue: 0x80)
  }
}

// MARK: - Interrupts

extension UART16550ARegisters {
  /// The enabled interrupt of highest priority (table IV).
  var interruptIdentification: InterruptIdentification {
    if interruptEnable.contains(.elsi) && !lineErrors.isEmpty { return .receiverLineStatus }
    if interruptEnable.contains(.erbfi) && receiver.count > 0 && !isReceiverHeldOff {
      return receiver.count >= triggerLevel ? .receivedData : .characterTimeout
    }
    if interruptEnable.contains(.etbei) && isTransmitterEmptyPending { return .transmitterEmpty }
    if interruptEnable.contains(.edssi) && !modemDeltas.isEmpty { return .modemStatus }
    return .none
  }

  /// IIR as the guest reads it; bits 7 and 6 show the FIFOs.
  var interruptIdentificationRegister: UInt8 {
    interruptIdentification.rawValue | (fifoControl.contains(.fifoEnable) ? 0xC0 : 0)
  }

  // Serial boards had a gate that OUT2 opens between INTRPT and the bus. There is none here, as in
  // other hypervisors: kernels that were only ever tried there don't open it.
  var isInterrupting: Bool { interruptIdentification != .none }

  mutating func setInterruptEnable(_ value: UInt8) {
    let isArmed = interruptEnable.contains(.etbei)
    interruptEnable = InterruptEnable(rawValue: value).intersection(.all)
    // Enabling the interrupt while the THR is empty raises it, though IIR has been read before.
    if interruptEnable.contains(.etbei) && !isArmed { isTransmitterEmptyPending = true }
  }
}

// MARK: - Receiver

extension UART16550ARegisters {
  private var triggerLevel: Int {
    fifoControl.contains(.fifoEnable) ? fifoControl.triggerLevel : 1
  }

  private var receiverCapacity: Int {
    fifoControl.contains(.fifoEnable) ? ReceiveFIFO.capacity : 1
  }

  /// How many bytes from outside fit. In loopback SIN is disconnected: none.
  var receiveRoom: Int {
    let isSetUp = interruptEnable.contains(.erbfi) && fifoControl.contains(.fifoEnable)
    return isLoopback || awaitsDriver && !isSetUp ? 0 : receiverCapacity &- receiver.count
  }

  mutating func receive(_ byte: UInt8, isBreak: Bool = false) {
    receiver.append(byte, isBreak: isBreak)
    revealErrors()
  }

  /// A byte that the guest sent to itself; one too many is an overrun.
  mutating func receiveInLoopback(_ byte: UInt8) {
    if receiver.count < receiverCapacity {
      receive(byte)
      return
    }
    lineErrors.insert(.oe)
    // Section 8.4, bit 1: the full FIFO stays as it is; the lone RBR is overwritten.
    if !fifoControl.contains(.fifoEnable) {
      receiver.removeAll()
      receive(byte)
    }
  }

  mutating func readReceiverBuffer() -> UInt8 {
    let byte = receiver.removeFirst()
    revealErrors()
    return byte
  }

  // An error shows when its character gets to the top of the FIFO.
  private mutating func revealErrors() {
    if receiver.takeBreakOfFirst() { lineErrors.insert(.bi) }
  }

  mutating func setFIFOControl(_ value: UInt8) {
    var control = FIFOControl(rawValue: value)
    let wasEnabled = fifoControl.contains(.fifoEnable)
    // Without bit 0 the other bits are not programmed; changing it empties the FIFOs.
    if !control.contains(.fifoEnable) { control = [] }
    let isReset = control.contains(.receiverReset)
    if isReset || control.contains(.fifoEnable) != wasEnabled {
      receiver.removeAll()
      lineErrors.remove(.bi)
    }
    fifoControl = control.subtracting([.receiverReset, .transmitterReset])
  }
}

// MARK: - Line and modem

extension UART16550ARegisters {
  var isLoopback: Bool { modemControl.contains(.loop) }

  /// Reads LSR, which clears its error bits. The transmitter is always empty.
  mutating func readLineStatus() -> UInt8 {
    var status: LineStatus = [.thre, .temt]
    if receiver.count > 0 { status.insert(.dr) }
    let hasBreak = lineErrors.contains(.bi) || receiver.hasBreaks
    if fifoControl.contains(.fifoEnable) && hasBreak { status.insert(.errorInFIFO) }
    status.formUnion(lineErrors)
    lineErrors = []
    return status.rawValue
  }

  /// Reads MSR, which clears its delta bits.
  mutating func readModemStatus() -> UInt8 {
    let status = modemInputs.union(modemDeltas)
    modemDeltas = []
    return status.rawValue
  }

  // A terminal that is always there holds CTS, DSR and DCD; in loopback the outputs are wired to
  // the inputs (section 8.8, bit 4).
  private var modemInputs: ModemStatus {
    guard isLoopback else { return [.cts, .dsr, .dcd] }
    var inputs: ModemStatus = []
    if modemControl.contains(.rts) { inputs.insert(.cts) }
    if modemControl.contains(.dtr) { inputs.insert(.dsr) }
    if modemControl.contains(.out1) { inputs.insert(.ri) }
    if modemControl.contains(.out2) { inputs.insert(.dcd) }
    return inputs
  }

  mutating func setModemControl(_ value: UInt8) {
    let before = modemInputs
    modemControl = ModemControl(rawValue: value).intersection(.all)
    let after = modemInputs
    let changed = before.symmetricDifference(after)
    if changed.contains(.cts) { modemDeltas.insert(.dcts) }
    if changed.contains(.dsr) { modemDeltas.insert(.ddsr) }
    if changed.contains(.dcd) { modemDeltas.insert(.ddcd) }
    // Only the end of a ring counts.
    if before.contains(.ri) && !after.contains(.ri) { modemDeltas.insert(.teri) }
  }
}

// MARK: - State

extension UART16550ARegisters {
  func save(to state: inout StateWriter) {
    state.write("ier", interruptEnable.rawValue)
    state.write("fcr", fifoControl.rawValue)
    state.write("lcr", lineControl.rawValue)
    state.write("mcr", modemControl.rawValue)
    state.write("dl", divisorLatch)
    state.write("scr", scratch)
    state.write("thre", isTransmitterEmptyPending)
    state.write("errors", lineErrors.rawValue)
    state.write("deltas", modemDeltas.rawValue)
    receiver.save(to: &state)
  }

  init(_ state: StateReader) throws(StateError) {
    let possibleErrors: LineStatus = [.oe, .bi]
    interruptEnable = .init(rawValue: try state.read("ier", bits: InterruptEnable.all.rawValue))
    fifoControl = .init(rawValue: try state.read("fcr"))
    // Bits that reset clear themselves, and without bit 0 none is programmed.
    guard fifoControl.isDisjoint(with: [.receiverReset, .transmitterReset]),
      fifoControl.isEmpty || fifoControl.contains(.fifoEnable)
    else { throw .impossible("fcr") }
    lineControl = .init(rawValue: try state.read("lcr"))
    modemControl = .init(rawValue: try state.read("mcr", bits: ModemControl.all.rawValue))
    divisorLatch = try state.read("dl")
    scratch = try state.read("scr")
    isTransmitterEmptyPending = try state.readFlag("thre")
    lineErrors = .init(rawValue: try state.read("errors", bits: possibleErrors.rawValue))
    modemDeltas = .init(rawValue: try state.read("deltas", bits: 0x0F))
    receiver = try ReceiveFIFO(state, limit: receiverCapacity)
  }
}
