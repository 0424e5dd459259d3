/// One channel's registers of a bus master ("Programming Interface for Bus Master IDE Controller",
/// revision 1.0, 2): eight bytes.
struct BusMasterRegisters {
  /// The command register: start and direction.
  struct Command: OptionSet {
    let rawValue: UInt8
    static let start = Self(rawValue: 0x01)
    /// Set where the bus master writes to memory: what the drive reads.
    static let toMemory = Self(rawValue: 0x08)
    static let all: Self = [.start, .toMemory]
  }

  /// The status register.
  struct Status: OptionSet {
    let rawValue: UInt8
    static let active = Self(rawValue: 0x01)
    static let error = Self(rawValue: 0x02)
    static let interrupt = Self(rawValue: 0x04)
    /// Bits that software keeps for itself: drive 0 and drive 1 can do DMA.
    static let capable = Self(rawValue: 0x60)
    static let all = capable.union([.active, .error, .interrupt])
  }

  var command: Command = []
  var status: Status = []
  /// Where the table is.
  var table: UInt32 = 0
  /// Counts starts, so that what belongs to an earlier one is known.
  var run: UInt64 = 0
  /// Whether this start has not moved anything yet.
  var isArmed = false

  /// The byte at `offset`.
  func read(_ offset: UInt64) -> UInt8 {
    switch offset {
    case 0: command.rawValue
    case 2: status.rawValue
    case 4...7: UInt8(truncatingIfNeeded: table >> UInt32((offset - 4) * 8))
    default: 0
    }
  }

  /// Takes a byte at `offset`; returns whether the bus master starts.
  mutating func write(_ offset: UInt64, _ value: UInt8) -> Bool {
    switch offset {
    case 0: return setCommand(Command(rawValue: value).intersection(.all))
    case 2:
      // Error and interrupt are cleared by ones; whether it is active is not for software to say.
      let cleared = Status(rawValue: value).intersection([.error, .interrupt])
      status.subtract(cleared)
      status.subtract(.capable)
      status.formUnion(Status(rawValue: value).intersection(.capable))
    case 4...7:
      let shift = UInt32((offset - 4) * 8)
      table = (table & ~(0xFF << shift) | UInt32(value) << shift) & ~3
    default: break
    }
    return false
  }

  private mutating func setCommand(_ new: Command) -> Bool {
    let starts = new.contains(.start) && !command.contains(.start)
    command = new
    if starts {
      status.insert(.active)
      run &+= 1
      isArmed = true
    } else if !new.contains(.start) {
      status.remove(.active)
      isArmed = false
    }
    return starts
  }

  /// Notes how the transfer went that was started as number `run`.
  mutating func finish(_ run: UInt64, _ end: PRDTable.End) {
    guard run == self.run, status.contains(.active) else { return }
    switch end {
    case .hasMore: break
    case .exhausted: status.remove(.active)
    case .fault:
      status.remove(.active)
      status.insert(.error)
    }
  }
}
