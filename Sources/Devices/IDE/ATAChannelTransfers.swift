/// How commands move data: through the data port in blocks, or by the bus master.
extension ATAChannel {
  // MARK: Starting

  /// READ and WRITE SECTOR(S).
  mutating func startPIO(
    _ drive: Int, isWrite: Bool, isExt: Bool = false, blockSectors: Int = 1
  ) {
    guard start(drive, isWrite: isWrite, isExt: isExt) else { return }
    transfer.blockSectors = blockSectors
    if isWrite {
      transfer.startBuffer(sectors: min(transfer.sectorsLeft, Self.bufferSectors))
      // No interrupt asks for the first block.
      requestBlock(.dataOut)
    } else {
      readAhead()
    }
  }

  /// READ and WRITE MULTIPLE.
  mutating func startMultiple(_ drive: Int, isWrite: Bool, isExt: Bool = false) {
    let count = drives[drive].settings.multipleCount
    guard count > 0 else { return fail(drive, .abort) }
    startPIO(drive, isWrite: isWrite, isExt: isExt, blockSectors: count)
  }

  /// READ and WRITE DMA.
  mutating func startDMA(_ drive: Int, isWrite: Bool, isExt: Bool = false) {
    guard start(drive, isWrite: isWrite, isExt: isExt) else { return }
    waitForBusMaster()
  }

  /// DATA SET MANAGEMENT with TRIM (ACS-2, 7.10).
  mutating func startTrim(_ drive: Int) {
    let file = drives[drive].taskFile
    let count = Int(file.sectorCount.current) | Int(file.sectorCount.previous) << 8
    guard file.features.current == 1, count >= 1, count <= ATADrive.largestTrim,
      !drives[drive].isReadOnly
    else { return fail(drive, .abort) }
    transfer.isWrite = true
    transfer.isTrim = true
    transfer.sectorsLeft = count
    waitForBusMaster()
  }

  /// READ VERIFY SECTOR(S).
  mutating func startVerify(_ drive: Int, isExt: Bool) {
    guard start(drive, isWrite: false, isExt: isExt) else { return }
    drives[drive].request?.flow = .none
    post(IDEJob(kind: .verify, drive: drive, lba: transfer.lba, count: transfer.sectorsLeft))
  }

  /// FLUSH CACHE, and commands that end with one.
  mutating func startFlush(_ drive: Int) {
    drives[drive].counters.flushes &+= 1
    post(IDEJob(kind: .flush, drive: drive, flushes: true))
  }

  /// Checks what the task file asks for, and notes it; false where the command has failed.
  private mutating func start(_ drive: Int, isWrite: Bool, isExt: Bool) -> Bool {
    drives[drive].powerMode = .active
    if isWrite && drives[drive].isReadOnly {
      fail(drive, [.writeProtected, .abort])
      return false
    }
    guard let range = drives[drive].range(isExt: isExt) else {
      failRange(drive, isExt: isExt)
      return false
    }
    transfer.isExt = isExt
    transfer.isWrite = isWrite
    transfer.lba = range.lba
    transfer.sectorsLeft = range.count
    drives[drive].request?.sector = range.lba
    drives[drive].request?.flow = isWrite ? .fromGuest : .toGuest
    return true
  }

  /// Ends a command that asks for sectors which don't exist, with the first of them.
  mutating func failRange(_ drive: Int, isExt: Bool) {
    if let missing = drives[drive].firstMissing(isExt: isExt) {
      drives[drive].setAddress(missing, isExt: isExt)
    }
    fail(drive, .idNotFound)
  }

  private mutating func post(_ job: IDEJob) {
    transfer.phase = .working
    self.job = job
  }

  // MARK: The data port

  /// Reads 16 bits from the data port.
  mutating func readData() -> UInt16 {
    guard !drives.isEmpty else { return Self.floatingWord }
    guard transfer.phase == .dataIn, selected == transfer.drive,
      !control.contains(.softwareReset)
    else { return 0 }
    let value = buffer.load(transfer.position, as: UInt16.self)
    transfer.position += 2
    if transfer.position == transfer.blockEnd { endBlockIn() }
    return value
  }

  /// Writes 16 bits to the data port.
  mutating func writeData(_ value: UInt16) {
    guard transfer.phase == .dataOut, selected == transfer.drive,
      !control.contains(.softwareReset)
    else { return }
    buffer.store(value, transfer.position)
    transfer.position += 2
    if transfer.position == transfer.blockEnd { endBlockOut() }
  }

  private mutating func endBlockIn() {
    let drive = transfer.drive
    if transfer.position < transfer.end {
      transfer.startBlock()
      return offerBlock()
    }
    if transfer.hasFailed { return failTransfer() }
    guard transfer.sectorsLeft == 0 else { return readAhead() }
    // The last block ends without an interrupt.
    transfer.phase = .none
    drives[drive].status = .idle
    drives[drive].end(.ok)
  }

  private mutating func endBlockOut() {
    if transfer.position < transfer.end {
      transfer.startBlock()
      return offerBlock(.dataOut)
    }
    let count = transfer.end / 512
    let isLast = count == transfer.sectorsLeft
    let flushes = isLast && !drives[transfer.drive].settings.hasWriteCache
    post(
      IDEJob(
        kind: .write, drive: transfer.drive, lba: transfer.lba, count: count, flushes: flushes))
  }

  private mutating func readAhead() {
    let count = min(transfer.sectorsLeft, Self.bufferSectors)
    post(IDEJob(kind: .read, drive: transfer.drive, lba: transfer.lba, count: count))
  }

  /// Lets the guest have a block, or asks it for one.
  private mutating func requestBlock(_ phase: ATATransfer.Phase) {
    transfer.phase = phase
    drives[transfer.drive].status = [.idle, .dataRequest]
  }

  /// The same with an interrupt.
  mutating func offerBlock(_ phase: ATATransfer.Phase = .dataIn) {
    requestBlock(phase)
    interrupt(transfer.drive)
  }

  // MARK: The bus master

  private mutating func waitForBusMaster() {
    requestBlock(.waitingForBusMaster)
    startBusMaster()
  }

  /// Moves data if both sides are ready and agree on the direction. Otherwise the drive waits, as
  /// long as it takes: on the wire nothing tells it more.
  mutating func startBusMaster() {
    guard transfer.phase == .waitingForBusMaster, busMaster.isArmed,
      busMaster.command.contains(.toMemory) != transfer.isWrite
    else { return }
    busMaster.isArmed = false
    let drive = transfer.drive
    drives[drive].counters.dmaTransfers &+= 1
    let kind: IDEJob.Kind =
      transfer.isTrim
      ? .trim(table: busMaster.table)
      : .dma(table: busMaster.table, isWrite: transfer.isWrite)
    let flushes = transfer.isWrite && !drives[drive].settings.hasWriteCache
    post(
      IDEJob(
        kind: kind, drive: drive, lba: transfer.lba, count: transfer.sectorsLeft,
        flushes: flushes, run: busMaster.run))
  }

  // MARK: When a job is done

  /// Goes on after a job.
  mutating func finish(_ job: IDEJob, _ result: IDEJob.Result) {
    if isResetPending {
      transfer.phase = .none
      busMaster.finish(job.run, result.table ?? .hasMore)
      return reset()
    }
    count(job, result)
    transfer.lba += UInt64(result.sectors)
    transfer.sectorsLeft -= result.sectors
    switch job.kind {
    case .read: finishRead(result)
    case .write: finishWrite(result)
    case .dma, .trim: finishDMA(job, result)
    case .verify:
      if result.hasFailed { failTransfer() } else { complete(job.drive) }
    case .flush:
      if result.hasFailed { fail(job.drive, .abort) } else { complete(job.drive) }
    }
  }

  private mutating func finishRead(_ result: IDEJob.Result) {
    transfer.hasFailed = result.hasFailed
    guard result.sectors > 0 else { return failTransfer() }
    transfer.startBuffer(sectors: result.sectors)
    offerBlock()
  }

  private mutating func finishWrite(_ result: IDEJob.Result) {
    if result.hasFailed { return failTransfer() }
    guard transfer.sectorsLeft > 0 else { return complete(transfer.drive) }
    transfer.startBuffer(sectors: min(transfer.sectorsLeft, Self.bufferSectors))
    offerBlock(.dataOut)
  }

  private mutating func finishDMA(_ job: IDEJob, _ result: IDEJob.Result) {
    busMaster.finish(job.run, result.table ?? .fault)
    if result.hasFailed {
      failTransfer()
    } else if transfer.sectorsLeft == 0 {
      complete(transfer.drive)
    } else {
      // The table had less than the command: the drive waits for the rest.
      waitForBusMaster()
    }
  }

  /// Ends a command whose next sector the disk refused.
  private mutating func failTransfer() {
    let drive = transfer.drive
    if !transfer.isTrim { drives[drive].setAddress(transfer.lba, isExt: transfer.isExt) }
    fail(drive, transfer.isWrite ? .abort : .uncorrectable)
  }

  private mutating func count(_ job: IDEJob, _ result: IDEJob.Result) {
    // What TRIM moves is only a list.
    guard !transfer.isTrim else { return }
    drives[job.drive].request?.bytes &+= UInt64(result.sectors) * 512
  }
}
