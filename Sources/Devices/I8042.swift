import Host

/// The PC's keyboard controller, without a keyboard: guests reset the machine and open A20 with it.
///
/// Its two ports, 0x60 and 0x64, are devices of their own, for port B stands between them. It
/// raises no interrupts: with nothing attached, all it says is in answer to the guest.
package final class I8042: Sendable {
  private let machine: any MachineControl
  private let registers = RankedMutex(.registers, Registers())

  private struct Registers {
    // Interrupts off, interface on, as IBM's firmware finds it.
    var commandByte: UInt8 = 0
    var outputPort: OutputPort = .atReset
    var output: UInt8 = 0
    var status: Status = [.inhibitSwitch]
    // The command that the next byte at 0x60 belongs to.
    var awaiting: Command?
  }

  /// What port 0x64 reads.
  private struct Status: OptionSet {
    let rawValue: UInt8
    static let outputBufferFull = Self(rawValue: 0x01)
    static let systemFlag = Self(rawValue: 0x04)
    static let lastWasCommand = Self(rawValue: 0x08)
    static let inhibitSwitch = Self(rawValue: 0x10)
    static let timeout = Self(rawValue: 0x40)
    static let all: Self = [
      .outputBufferFull, .systemFlag, .lastWasCommand, .inhibitSwitch, .timeout,
    ]
  }

  private struct OutputPort: OptionSet {
    let rawValue: UInt8
    static let notReset = Self(rawValue: 0x01)
    static let gateA20 = Self(rawValue: 0x02)
    // Not in reset, A20 open, both interrupts low, clock and data high.
    static let atReset = Self(rawValue: 0xCF)
  }

  private enum Command: UInt8 {
    case readCommandByte = 0x20
    case writeCommandByte = 0x60
    case testAuxiliary = 0xA9
    case selfTest = 0xAA
    case testKeyboard = 0xAB
    case disableKeyboard = 0xAD
    case enableKeyboard = 0xAE
    case readInputPort = 0xC0
    case readOutputPort = 0xD0
    case writeOutputPort = 0xD1
    case writeKeyboardOutput = 0xD2
    case writeAuxiliaryOutput = 0xD3
    case writeAuxiliary = 0xD4
    case disableA20 = 0xDD
    case enableA20 = 0xDF
    case readTestInputs = 0xE0

    /// Whether a byte at 0x60 belongs to it.
    var hasData: Bool {
      switch self {
      case .writeCommandByte, .writeOutputPort, .writeKeyboardOutput, .writeAuxiliaryOutput,
        .writeAuxiliary:
        true
      default: false
      }
    }
  }

  /// A controller that resets `machine`.
  package init(machine: any MachineControl) { self.machine = machine }

  /// The data port, for 0x60.
  package func makeDataPort() -> any Device { DataPort(self) }

  /// The status and command port, for 0x64.
  package func makeCommandPort() -> any Device { CommandPort(self) }
}

// MARK: - Ports

extension I8042 {
  private final class DataPort: Device {
    var name: StaticString { "i8042-data" }
    private let controller: I8042
    init(_ controller: I8042) { self.controller = controller }

    func read(offset: UInt64, width: Int) -> UInt64 { UInt64(controller.readData()) }

    func write(offset: UInt64, width: Int, value: UInt64) {
      controller.writeData(UInt8(truncatingIfNeeded: value))
    }
  }

  private final class CommandPort: Device {
    var name: StaticString { "i8042-command" }
    private let controller: I8042
    init(_ controller: I8042) { self.controller = controller }

    func read(offset: UInt64, width: Int) -> UInt64 { UInt64(controller.readStatus()) }

    func write(offset: UInt64, width: Int, value: UInt64) {
      controller.writeCommand(UInt8(truncatingIfNeeded: value))
    }
  }

  private func readStatus() -> UInt8 { registers.withLock { $0.status.rawValue } }

  private func readData() -> UInt8 {
    registers.withLock { registers in
      registers.status.subtract([.outputBufferFull, .timeout])
      return registers.output
    }
  }

  private func writeCommand(_ value: UInt8) {
    // 0xF0 to 0xFF pulse the output port's low bits that are 0; bit 0 is the reset line.
    let isReset = value & 0xF1 == 0xF0
    registers.withLock { registers in
      registers.status.insert(.lastWasCommand)
      registers.awaiting = nil
      guard let command = Command(rawValue: value) else { return }
      if command.hasData { registers.awaiting = command }
      Self.start(command, &registers)
    }
    if isReset { machine.requestReset() }
  }

  private func writeData(_ value: UInt8) {
    let isReset = registers.withLock { registers in
      registers.status.remove(.lastWasCommand)
      return Self.take(value, &registers)
    }
    if isReset { machine.requestReset() }
  }
}

// MARK: - Commands

extension I8042 {
  private static func start(_ command: Command, _ registers: inout Registers) {
    switch command {
    case .readCommandByte: answer(registers.commandByte, &registers)
    // There is no auxiliary port: its clock line is stuck low.
    case .testAuxiliary: answer(0x01, &registers)
    case .selfTest:
      registers.status.insert(.systemFlag)
      registers.commandByte |= Status.systemFlag.rawValue
      answer(0x55, &registers)
    case .testKeyboard: answer(0x00, &registers)
    case .disableKeyboard: registers.commandByte |= 0x10
    case .enableKeyboard: registers.commandByte &= ~0x10
    // Bit 7: the keyboard is not locked.
    case .readInputPort: answer(0x80, &registers)
    case .readOutputPort: answer(registers.outputPort.rawValue, &registers)
    case .disableA20: registers.outputPort.remove(.gateA20)
    case .enableA20: registers.outputPort.insert(.gateA20)
    case .readTestInputs: answer(0x00, &registers)
    case .writeCommandByte, .writeOutputPort, .writeKeyboardOutput, .writeAuxiliaryOutput,
      .writeAuxiliary:
      break
    }
  }

  // Takes a byte from port 0x60, and returns whether it resets the machine.
  private static func take(_ value: UInt8, _ registers: inout Registers) -> Bool {
    let command = registers.awaiting
    registers.awaiting = nil
    switch command {
    case .writeCommandByte:
      registers.commandByte = value
      if value & Status.systemFlag.rawValue != 0 {
        registers.status.insert(.systemFlag)
      } else {
        registers.status.remove(.systemFlag)
      }
    case .writeOutputPort:
      registers.outputPort = OutputPort(rawValue: value)
      return !registers.outputPort.contains(.notReset)
    // Without an auxiliary port both come back as keyboard data, by which Linux sees there is none.
    case .writeKeyboardOutput, .writeAuxiliaryOutput: answer(value, &registers)
    default: answerTimeout(&registers)
    }
    return false
  }

  private static func answer(_ value: UInt8, _ registers: inout Registers) {
    registers.output = value
    registers.status.insert(.outputBufferFull)
    registers.status.remove(.timeout)
  }

  // What a controller says whose keyboard or mouse does not take the byte.
  private static func answerTimeout(_ registers: inout Registers) {
    answer(0xFE, &registers)
    registers.status.insert(.timeout)
  }
}

// MARK: - State

extension I8042: Stateful {
  /// Makes the controller as new.
  package func reset() { registers.withLock { $0 = Registers() } }

  /// Writes the registers, and which command waits for its byte.
  package func save(to state: inout StateWriter) {
    let registers = registers.withLock { $0 }
    state.write("command-byte", registers.commandByte)
    state.write("output-port", registers.outputPort.rawValue)
    state.write("output", registers.output)
    state.write("status", registers.status.rawValue)
    state.write("awaiting", registers.awaiting?.rawValue ?? 0)
  }

  /// Takes them back.
  package func restore(from state: StateReader) throws(StateError) {
    var new = Registers()
    new.commandByte = try state.read("command-byte")
    new.outputPort = OutputPort(rawValue: try state.read("output-port"))
    new.output = try state.read("output")
    new.status = Status(rawValue: try state.read("status", bits: Status.all.rawValue))
    let code: UInt8 = try state.read("awaiting")
    new.awaiting = Command(rawValue: code)
    guard code == 0 || new.awaiting?.hasData == true else { throw .impossible("awaiting") }
    registers.withLock { $0 = new }
  }
}
