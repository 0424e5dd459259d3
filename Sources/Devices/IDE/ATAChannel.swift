import Memory

/// A channel with its drives, as registers see it: plain values that `IDEChannel` guards.
///
/// What needs the disk becomes `job`, which `IDEChannel` hands to the channel's thread.
struct ATAChannel {
  /// Drive 0, or drives 0 and 1, or none.
  var drives: [ATADrive]
  var selected = 0
  var control: ATADeviceControl = []
  var transfer = ATATransfer()
  var busMaster = BusMasterRegisters()
  /// Whether a reset waits for a job to end.
  var isResetPending = false
  /// Work to be handed over.
  var job: IDEJob?
  /// Whether an interrupt was taken back, of which the line must show the edge.
  var wasInterruptCleared = false
  /// What blocks are transferred through while the phase isn't `.working`.
  let buffer: MemoryView

  /// How many sectors the buffer takes: a multiple of every count of SET MULTIPLE MODE.
  static let bufferSectors = 128

  // Nobody drives the bus: DD7 is pulled down so that BSY reads 0, and the others float up
  // (ATA/ATAPI-7, volume 2, 6.2).
  static let floatingByte: UInt8 = 0x7F
  static let floatingWord: UInt16 = 0xFF7F

  init(drives: [ATADrive], buffer: MemoryView) {
    self.drives = drives
    self.buffer = buffer
  }

  /// Whether the selected drive drives INTRQ.
  var isInterrupting: Bool {
    selected < drives.count && drives[selected].isInterrupting
      && !control.contains(.interruptDisable)
  }

  private var isBusy: Bool { transfer.phase == .working || control.contains(.softwareReset) }

  // MARK: Reading

  /// Reads the Command Block register at `offset`, 1 to 7. Reading Status takes the interrupt back.
  mutating func read(_ offset: UInt64) -> UInt8 {
    guard !drives.isEmpty else { return Self.floatingByte }
    let status = status
    if offset == 7 {
      clearInterrupt()
      return status.rawValue
    }
    if status.contains(.busy) { return status.rawValue }
    let index = min(selected, drives.count - 1)
    let file = drives[index].taskFile
    switch offset {
    case 1: return drives[index].error.rawValue
    case 2: return value(file.sectorCount)
    case 3: return value(file.lbaLow)
    case 4: return value(file.lbaMid)
    case 5: return value(file.lbaHigh)
    default:
      let others = file.device & ~ATATaskFile.isSecondDrive
      return others | (selected == 1 ? ATATaskFile.isSecondDrive : 0)
    }
  }

  /// The Alternate Status register.
  var alternateStatus: UInt8 { drives.isEmpty ? Self.floatingByte : status.rawValue }

  // For a second drive that isn't there the first answers 0 (ATA/ATAPI-7, volume 2, 5.3.2).
  private var status: ATAStatus {
    guard selected < drives.count else { return [] }
    if isBusy { return .busy }
    return drives[selected].status
  }

  private func value(_ register: ATADoubleRegister) -> UInt8 {
    control.contains(.highOrderByte) ? register.previous : register.current
  }

  // MARK: Writing

  /// Writes the Command Block register at `offset`, 1 to 7. All drives listen; one that works does
  /// not.
  mutating func write(_ offset: UInt64, _ value: UInt8) {
    guard !drives.isEmpty, !isBusy else { return }
    control.remove(.highOrderByte)
    if offset == 7 { return execute(value) }
    for index in drives.indices {
      switch offset {
      case 1: drives[index].taskFile.features.write(value)
      case 2: drives[index].taskFile.sectorCount.write(value)
      case 3: drives[index].taskFile.lbaLow.write(value)
      case 4: drives[index].taskFile.lbaMid.write(value)
      case 5: drives[index].taskFile.lbaHigh.write(value)
      default: drives[index].taskFile.device = value
      }
    }
    if offset == 6 { selected = value & ATATaskFile.isSecondDrive == 0 ? 0 : 1 }
  }

  /// Writes the Device Control register.
  mutating func writeControl(_ value: UInt8) {
    let new = ATADeviceControl(rawValue: value)
    let old = control
    control = new
    guard new.contains(.softwareReset) != old.contains(.softwareReset) else { return }
    // A reset begins when SRST is set; the drives are ready again some time after it is cleared, and
    // not before a transfer of theirs has left memory alone.
    for index in drives.indices { drives[index].isInterrupting = false }
    if transfer.phase == .working {
      isResetPending = true
    } else {
      reset()
    }
  }

  /// Puts all drives into the state after reset (ATA/ATAPI-7, volume 2, 11.3).
  mutating func reset() {
    isResetPending = false
    transfer = ATATransfer()
    for index in drives.indices { drives[index].reset() }
    selected = 0
  }

  /// What a new channel with these drives is; the drives' statistics go on.
  func powerOnReset() -> ATAChannel {
    var drives = drives
    for index in drives.indices { drives[index].powerOnReset() }
    return ATAChannel(drives: drives, buffer: buffer)
  }

  // MARK: Interrupts and ends of commands

  /// Takes the selected drive's interrupt back.
  mutating func clearInterrupt() {
    guard selected < drives.count, drives[selected].isInterrupting else { return }
    drives[selected].isInterrupting = false
    wasInterruptCleared = true
  }

  /// Makes `drive` interrupt.
  mutating func interrupt(_ drive: Int) {
    if !drives[drive].isInterrupting { drives[drive].recorder.statistics.interrupts? &+= 1 }
    drives[drive].isInterrupting = true
  }

  /// Ends a command well.
  mutating func complete(_ drive: Int) {
    transfer.phase = .none
    drives[drive].status = .idle
    drives[drive].error = []
    drives[drive].end(.ok)
    interrupt(drive)
  }

  /// Ends a command with an error.
  mutating func fail(_ drive: Int, _ error: ATAError) {
    transfer.phase = .none
    drives[drive].counters.failures &+= 1
    drives[drive].end(.failed)
    drives[drive].status = [.idle, .error]
    drives[drive].error = error
    interrupt(drive)
  }
}
