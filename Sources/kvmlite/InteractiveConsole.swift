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
  func input(_ saves: RunSaves?) -> ConsoleInput {
    guard terminal != nil else { return .descriptor(0) }
    let escape = Mutex(EscapeKey())
    let keeper = EscapeKeeper(escape, saves)
    return .descriptor(0, filter: { bytes, control in keeper.filter(bytes, control) }, gate: gate)
  }

  private final class EscapeKeeper: Sendable {
    private let state: Mutex<EscapeKey>
    private let saves: RunSaves?
    init(_ state: consuming Mutex<EscapeKey>, _ saves: RunSaves?) {
      self.state = state
      self.saves = saves
    }

    func filter(_ bytes: [UInt8], _ control: RunControl) -> [UInt8] {
      state.withLock { $0.filter(bytes, control, saves) }
    }
  }
}

/// Ctrl-A: the next key is for kvmlite.
struct EscapeKey {
  private var isPending = false

  private static let controlA: UInt8 = 1

  /// What the guest shall get of `bytes`; `command` gets, in lower case, each key that isn't for it.
  mutating func filter(_ bytes: [UInt8], _ command: (UInt8) -> Void) -> [UInt8] {
    var passed: [UInt8] = []
    for byte in bytes {
      if isPending {
        isPending = false
        if byte == Self.controlA || byte | 0x20 == UInt8(ascii: "a") {
          passed.append(Self.controlA)
        } else {
          command(byte | 0x20)
        }
      } else if byte == Self.controlA {
        isPending = true
      } else {
        passed.append(byte)
      }
    }
    return passed
  }

  /// What the keys do while a machine runs here.
  mutating func filter(_ bytes: [UInt8], _ control: RunControl, _ saves: RunSaves?) -> [UInt8] {
    filter(bytes) { key in
      switch key {
      case UInt8(ascii: "x"): control.stop(.user)
      case UInt8(ascii: "w"): control.requestLook()
      case UInt8(ascii: "p"): if let saves { saves.saveNow() } else { RunSaves.tellHow() }
      default:
        Self.help(
          key,
          """
          Ctrl-A X       leave kvmlite
          Ctrl-A W       follow the addresses of --walk now
          Ctrl-A P       save the machine to the folder of --save-at-exit
          """)
      }
    }
  }

  /// Tells of the keys, if `key` asks for that, or else how to ask.
  static func help(_ key: UInt8, _ keys: String) {
    let asks = key == UInt8(ascii: "h") || key == UInt8(ascii: "?")
    let rest = "Ctrl-A H       this help\nCtrl-A Ctrl-A  send Ctrl-A to the guest"
    Message.line(asks ? "\n" + keys + "\n" + rest : "\nCtrl-A H helps")
  }
}
