import Host
import Machine
import Synchronization

/// The user's terminal as the guest's console: raw while the guest runs, with an escape key.
struct InteractiveConsole: ~Copyable {
  private let terminal: Terminal?
  /// Open while this process may read the terminal: reading it in the background would stop it.
  private let gate: InputGate

  /// Makes standard input raw if it is a terminal and this process may read it.
  init() {
    terminal = Terminal(FileDescriptor(borrowing: 0))
    gate = InputGate(isOpen: terminal?.isForeground ?? true)
    terminal?.restoreOnCrash()
    if gate.isOpen { terminal?.makeRaw() }
  }

  deinit { if gate.isOpen { terminal?.restore() } }

  /// Does the same again if this process has come to the foreground: whoever had the terminal meanwhile
  /// has left it in another mode.
  var takeOver: @Sendable () -> Void {
    guard let terminal else { return {} }
    return { [gate] in
      guard terminal.isForeground else { return gate.close() }
      terminal.makeRaw()
      gate.open()
    }
  }

  /// Where the guest's input comes from: standard input, with the escape key if it is a terminal.
  var input: ConsoleInput {
    guard terminal != nil else { return .descriptor(0) }
    let escape = Mutex(EscapeKey())
    let keeper = EscapeKeeper(escape)
    return .descriptor(0, filter: { bytes, control in keeper.filter(bytes, control) }, gate: gate)
  }

  private final class EscapeKeeper: Sendable {
    private let state: Mutex<EscapeKey>
    init(_ state: consuming Mutex<EscapeKey>) { self.state = state }

    func filter(_ bytes: [UInt8], _ control: RunControl) -> [UInt8] {
      state.withLock { $0.filter(bytes, control) }
    }
  }
}

/// Ctrl-A: the next key is for kvmlite.
struct EscapeKey {
  private var isPending = false

  private static let controlA: UInt8 = 1

  /// What the guest shall get of `bytes`.
  mutating func filter(_ bytes: [UInt8], _ control: RunControl) -> [UInt8] {
    var passed: [UInt8] = []
    for byte in bytes {
      if isPending {
        isPending = false
        command(byte, control, &passed)
      } else if byte == Self.controlA {
        isPending = true
      } else {
        passed.append(byte)
      }
    }
    return passed
  }

  private func command(_ byte: UInt8, _ control: RunControl, _ passed: inout [UInt8]) {
    switch byte {
    case UInt8(ascii: "x"), UInt8(ascii: "X"): control.stop(.user)
    case UInt8(ascii: "w"), UInt8(ascii: "W"): control.requestLook()
    case UInt8(ascii: "h"), UInt8(ascii: "H"), UInt8(ascii: "?"):
      Message.line(
        """

        Ctrl-A X       leave kvmlite
        Ctrl-A W       follow the addresses of --walk now
        Ctrl-A H       this help
        Ctrl-A Ctrl-A  send Ctrl-A to the guest
        """)
    case Self.controlA, UInt8(ascii: "a"): passed.append(Self.controlA)
    default: Message.line("\nCtrl-A H helps")
    }
  }
}
