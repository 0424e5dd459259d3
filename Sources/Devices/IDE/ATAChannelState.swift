import Memory

/// A channel's registers in a save. No job is under way then: the channel is paused.
extension ATAChannel {
  func save(to state: inout StateWriter) {
    state.write("drives", UInt8(drives.count))
    state.write("selected", UInt8(selected))
    state.write("control", control.rawValue)
    state.group("bus-master") { busMaster.save(to: &$0) }
    state.group("transfer") { transfer.save(to: &$0, buffer) }
    for drive in drives { state.group("drive\(drive.number)") { drive.save(to: &$0) } }
  }

  /// This channel with the registers of a save. The buffer is filled when nothing can fail any more.
  func restored(from state: StateReader) throws(StateError) -> ATAChannel {
    var new = powerOnReset()
    guard try state.read("drives", as: UInt8.self) == drives.count else {
      throw .impossible("drives")
    }
    new.selected = Int(try state.read("selected", in: 0...1 as ClosedRange<UInt8>))
    new.control = ATADeviceControl(rawValue: try state.read("control"))
    new.busMaster = try BusMasterRegisters(state.group("bus-master"))
    for index in drives.indices {
      try new.drives[index].restore(from: state.group("drive\(index)"))
    }
    let transfer = try state.group("transfer")
    new.transfer = try ATATransfer(transfer, drives)
    for index in drives.indices {
      let isWaiting = new.transfer.phase != .none && new.transfer.drive == index
      guard new.drives[index].status.contains(.dataRequest) == isWaiting else {
        throw .impossible("drive\(index).status")
      }
    }
    if new.transfer.movesBlocks {
      let bytes = try transfer.readBytes("buffer", count: new.transfer.end)
      buffer.copy(from: bytes.span, at: 0)
    }
    return new
  }
}

extension ATATransfer {
  /// Whether the data port is in use.
  fileprivate var movesBlocks: Bool { phase == .dataIn || phase == .dataOut }

  fileprivate func save(to state: inout StateWriter, _ buffer: MemoryView) {
    state.write("phase", phase.rawValue)
    guard phase != .none else { return }
    state.write("drive", UInt8(drive))
    state.write("ext", isExt)
    state.write("write", isWrite)
    state.write("trim", isTrim)
    state.write("lba", lba)
    state.write("sectors-left", UInt32(sectorsLeft))
    guard movesBlocks else { return }
    state.write("block-sectors", UInt8(blockSectors))
    state.write("position", UInt32(position))
    state.write("block-end", UInt32(blockEnd))
    state.write("end", UInt32(end))
    state.write("failed", hasFailed)
    var bytes = [UInt8](repeating: 0, count: end)
    var span = bytes.mutableSpan
    buffer.copy(to: &span, from: 0)
    state.write("buffer", bytes)
  }

  fileprivate init(_ state: StateReader, _ drives: [ATADrive]) throws(StateError) {
    guard let phase = Phase(rawValue: try state.read("phase")), phase != .working else {
      throw .impossible("phase")
    }
    self.phase = phase
    guard phase != .none else { return }
    drive = Int(try state.read("drive", as: UInt8.self))
    guard drives.indices.contains(drive) else { throw .impossible("drive") }
    isExt = try state.readFlag("ext")
    isWrite = try state.readFlag("write")
    isTrim = try state.readFlag("trim")
    lba = try state.read("lba")
    sectorsLeft = Int(try state.read("sectors-left", in: 0...65536 as ClosedRange<UInt32>))
    try checkRange(drives[drive])
    if movesBlocks { try restoreBlock(state) }
  }

  // What the command's start has checked.
  private func checkRange(_ drive: ATADrive) throws(StateError) {
    let needsWrite = phase == .dataOut || isTrim
    guard phase == .waitingForBusMaster ? sectorsLeft > 0 : isWrite == needsWrite,
      !isTrim || phase == .waitingForBusMaster, !needsWrite || isWrite,
      !isWrite || !drive.isReadOnly
    else { throw .impossible("phase") }
    if isTrim {
      guard sectorsLeft <= ATADrive.largestTrim else { throw .impossible("sectors-left") }
    } else {
      guard lba <= drive.sectorCount, UInt64(sectorsLeft) <= drive.sectorCount - lba else {
        throw .impossible("lba")
      }
    }
  }

  private mutating func restoreBlock(_ state: StateReader) throws(StateError) {
    let limit = UInt32(ATAChannel.bufferSectors * 512)
    let largest = UInt8(ATADrive.largestMultiple)
    blockSectors = Int(try state.read("block-sectors", in: 1...largest))
    end = Int(try state.read("end", in: 512...limit))
    blockEnd = Int(try state.read("block-end", in: 512...limit))
    position = Int(try state.read("position", in: 0...limit))
    hasFailed = try state.readFlag("failed")
    guard end % 512 == 0, blockEnd % 512 == 0, position % 2 == 0, position < blockEnd,
      blockEnd <= end, phase == .dataIn || end / 512 <= sectorsLeft
    else { throw .impossible("position") }
  }
}

extension BusMasterRegisters {
  fileprivate func save(to state: inout StateWriter) {
    state.write("command", command.rawValue)
    state.write("status", status.rawValue)
    state.write("table", table)
    state.write("armed", isArmed)
  }

  fileprivate init(_ state: StateReader) throws(StateError) {
    command = Command(rawValue: try state.read("command", bits: Command.all.rawValue))
    status = Status(rawValue: try state.read("status", bits: Status.all.rawValue))
    table = try state.read("table", bits: ~3)
    isArmed = try state.readFlag("armed")
    guard !isArmed || command.contains(.start) && status.contains(.active) else {
      throw .impossible("armed")
    }
  }
}

extension ATADrive {
  fileprivate func save(to state: inout StateWriter) {
    state.write("sectors", sectorCount)
    state.write("task-file", taskFile.bytes)
    state.write("status", status.rawValue)
    state.write("error", error.rawValue)
    state.write("interrupting", isInterrupting)
    state.write("multiple", UInt8(settings.multipleCount))
    state.write("cylinders", settings.geometry.cylinders)
    state.write("heads", settings.geometry.heads)
    state.write("track", settings.geometry.sectorsPerTrack)
    state.write("write-cache", settings.hasWriteCache)
    state.write("dma-mode", dmaMode?.code ?? 0)
    state.write("keeps-settings", keepsSettingsOnReset)
    state.write("power", powerMode.rawValue)
  }

  fileprivate mutating func restore(from state: StateReader) throws(StateError) {
    guard try state.read("sectors") == sectorCount else { throw .impossible("sectors") }
    taskFile = ATATaskFile(
      bytes: try state.readBytes("task-file", count: ATATaskFile.signature.bytes.count))
    status = ATAStatus(rawValue: try state.read("status"))
    let possible: [ATAStatus] = [
      .idle, [.idle, .dataRequest], [.idle, .error],
    ]
    guard possible.contains(status) else { throw .impossible("status") }
    error = ATAError(rawValue: try state.read("error"))
    isInterrupting = try state.readFlag("interrupting")
    settings = try Settings(state)
    let code: UInt8 = try state.read("dma-mode")
    dmaMode = ATATransferMode(code: code)
    if code == 0 {
      dmaMode = nil
    } else if dmaMode?.code != code || code < 0x20 {
      throw .impossible("dma-mode")
    }
    keepsSettingsOnReset = try state.readFlag("keeps-settings")
    guard let mode = PowerMode(rawValue: try state.read("power")) else {
      throw .impossible("power")
    }
    powerMode = mode
  }
}

extension ATADrive.Settings {
  fileprivate init(_ state: StateReader) throws(StateError) {
    let largest = UInt8(ATADrive.largestMultiple)
    multipleCount = Int(try state.read("multiple", in: 0...largest))
    guard multipleCount & (multipleCount - 1) == 0 else { throw .impossible("multiple") }
    geometry = ATAGeometry(sectors: 0)
    geometry.cylinders = try state.read("cylinders", in: 0...65535)
    geometry.heads = try state.read("heads", in: 1...16)
    geometry.sectorsPerTrack = try state.read("track", in: 1...255)
    hasWriteCache = try state.readFlag("write-cache")
  }
}

extension ATATaskFile {
  /// Each register and what it held before, then Device.
  fileprivate var bytes: [UInt8] {
    [features, sectorCount, lbaLow, lbaMid, lbaHigh].flatMap { [$0.current, $0.previous] }
      + [device]
  }

  fileprivate init(bytes: [UInt8]) {
    features = ATADoubleRegister(bytes[0], bytes[1])
    sectorCount = ATADoubleRegister(bytes[2], bytes[3])
    lbaLow = ATADoubleRegister(bytes[4], bytes[5])
    lbaMid = ATADoubleRegister(bytes[6], bytes[7])
    lbaHigh = ATADoubleRegister(bytes[8], bytes[9])
    device = bytes[10]
  }
}
