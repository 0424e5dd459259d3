import Synchronization

/// The PC's keyboard controller, without a keyboard: guests reset the machine and open A20 with it.
///
/// Its two ports, 0x60 and 0x64, are devices of their own, for port B stands between them. It
/// raises no interrupts: with nothing attached, all it says is in answer to the guest.
public final class I8042: Sendable {
  private let machine: any MachineControl
  private let state = Mutex(State())

  private struct State {
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
  }

  /// A controller that resets `machine`.
  public init(machine: any MachineControl) { self.machine = machine }

  /// The data port, for 0x60.
  public func makeDataPort() -> any Device { DataPort(self) }

  /// The status and command port, for 0x64.
  public func makeCommandPort() -> any Device { CommandPort(self) }
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

  private func readStatus() -> UInt8 { state.withLock { $0.status.rawValue } }

  private func readData() -> UInt8 {
    state.withLock { state in
      state.status.subtract([.outputBufferFull, .timeout])
      return state.output
    }
  }

  private func writeCommand(_ value: UInt8) {
    // 0xF0 to 0xFF pulse the output port's low bits that are 0; bit 0 is the reset line.
    let isReset = value & 0xF1 == 0xF0
    state.withLock { state in
      state.status.insert(.lastWasCommand)
      state.awaiting = nil
      if let command = Command(rawValue: value) { Self.start(command, &state) }
    }
    if isReset { machine.requestReset() }
  }

  private func writeData(_ value: UInt8) {
    let isReset = state.withLock { state in
      state.status.remove(.lastWasCommand)
      return Self.take(value, &state)
    }
    if isReset { machine.requestReset() }
  }
}

// MARK: - Commands

extension I8042 {
  private static func start(_ command: Command, _ state: inout State) {
    switch command {
    case .readCommandByte: answer(state.commandByte, &state)
    // There is no auxiliary port: its clock line is stuck low.
    case .testAuxiliary: answer(0x01, &state)
    case .selfTest:
      state.status.insert(.systemFlag)
      state.commandByte |= Status.systemFlag.rawValue
      answer(0x55, &state)
    case .testKeyboard: answer(0x00, &state)
    case .disableKeyboard: state.commandByte |= 0x10
    case .enableKeyboard: state.commandByte &= ~0x10
    // Bit 7: the keyboard is not locked.
    case .readInputPort: answer(0x80, &state)
    case .readOutputPort: answer(state.outputPort.rawValue, &state)
    case .disableA20: state.outputPort.remove(.gateA20)
    case .enableA20: state.outputPort.insert(.gateA20)
    case .readTestInputs: answer(0x00, &state)
    case .writeCommandByte, .writeOutputPort, .writeKeyboardOutput, .writeAuxiliaryOutput,
      .writeAuxiliary:
      state.awaiting = command
    }
  }

  // Takes a byte from port 0x60, and returns whether it resets the machine.
  private static func take(_ value: UInt8, _ state: inout State) -> Bool {
    let command = state.awaiting
    state.awaiting = nil
    switch command {
    case .writeCommandByte:
      state.commandByte = value
      if value & Status.systemFlag.rawValue != 0 {
        state.status.insert(.systemFlag)
      } else {
        state.status.remove(.systemFlag)
      }
    case .writeOutputPort:
      state.outputPort = OutputPort(rawValue: value)
      return !state.outputPort.contains(.notReset)
    // Without an auxiliary port both come back as keyboard data, by which Linux sees there is none.
    case .writeKeyboardOutput, .writeAuxiliaryOutput: answer(value, &state)
    default: answerTimeout(&state)
    }
    return false
  }

  private static func answer(_ value: UInt8, _ state: inout State) {
    state.output = value
    state.status.insert(.outputBufferFull)
    state.status.remove(.timeout)
  }

  // What a controller says whose keyboard or mouse does not take the byte.
  private static func answerTimeout(_ state: inout State) {
    answer(0xFE, &state)
    state.status.insert(.timeout)
  }
}
