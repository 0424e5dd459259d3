/// What commands do.
extension ATAChannel {
  /// Takes a code written to the Command register.
  mutating func execute(_ code: UInt8) {
    if code == ATACommand.executeDeviceDiagnostic.rawValue { return diagnose() }
    // Nobody listens where no drive is; a sleeping one needs a reset.
    guard selected < drives.count, drives[selected].powerMode != .sleep else { return }
    clearInterrupt()
    // A command while data is waited for ends that transfer: the standard leaves it open.
    for index in drives.indices { drives[index].status.remove(.dataRequest) }
    transfer = ATATransfer()
    transfer.drive = selected
    drives[selected].status = .idle
    drives[selected].error = []
    let command = ATACommand(code: code)
    drives[selected].begin(command?.operation ?? "unknown command")
    guard let command else { return fail(selected, .abort) }
    execute(command, selected)
  }

  private mutating func execute(_ command: ATACommand, _ drive: Int) {
    switch command {
    case .readSectors, .readSectorsWithoutRetry: startPIO(drive, isWrite: false)
    case .readSectorsExt: startPIO(drive, isWrite: false, isExt: true)
    case .writeSectors, .writeSectorsWithoutRetry: startPIO(drive, isWrite: true)
    case .writeSectorsExt: startPIO(drive, isWrite: true, isExt: true)
    case .readMultiple: startMultiple(drive, isWrite: false)
    case .readMultipleExt: startMultiple(drive, isWrite: false, isExt: true)
    case .writeMultiple: startMultiple(drive, isWrite: true)
    case .writeMultipleExt: startMultiple(drive, isWrite: true, isExt: true)
    case .readDMA, .readDMAWithoutRetry: startDMA(drive, isWrite: false)
    case .readDMAExt: startDMA(drive, isWrite: false, isExt: true)
    case .writeDMA, .writeDMAWithoutRetry: startDMA(drive, isWrite: true)
    case .writeDMAExt: startDMA(drive, isWrite: true, isExt: true)
    case .dataSetManagement: startTrim(drive)
    case .readVerify, .readVerifyWithoutRetry: startVerify(drive, isExt: false)
    case .readVerifyExt: startVerify(drive, isExt: true)
    case .flushCache, .flushCacheExt: startFlush(drive)
    case .identifyDevice: identify(drive)
    case .setFeatures: setFeatures(drive)
    case .setMultipleMode: setMultipleMode(drive)
    case .initializeDeviceParameters: initializeParameters(drive)
    case .readNativeMaxAddress: readNativeMaxAddress(drive, isExt: false)
    case .readNativeMaxAddressExt: readNativeMaxAddress(drive, isExt: true)
    case .recalibrate: complete(drive)
    case .seek: seek(drive)
    case .checkPowerMode, .checkPowerModeOld: checkPowerMode(drive)
    case .idle, .idleOld, .idleImmediate, .idleImmediateOld:
      drives[drive].powerMode = .idle
      complete(drive)
    case .standby, .standbyOld, .standbyImmediate, .standbyImmediateOld:
      startFlush(drive)
      drives[drive].powerMode = .standby
    case .sleep, .sleepOld:
      startFlush(drive)
      drives[drive].powerMode = .sleep
    // NOP does nothing and says so: aborted (ATA/ATAPI-7, volume 1, 6.26).
    case .nop, .executeDeviceDiagnostic: fail(drive, .abort)
    }
  }

  /// EXECUTE DEVICE DIAGNOSTIC: both drives take it, whichever is selected, and drive 0 answers.
  private mutating func diagnose() {
    clearInterrupt()
    reset()
    drives[0].begin(ATACommand.executeDeviceDiagnostic.operation)
    drives[0].end(.ok)
    interrupt(0)
  }

  // MARK: What a drive is

  private mutating func identify(_ drive: Int) {
    ATAIdentity(drives[drive]).store(in: buffer)
    transfer.startBuffer(sectors: 1)
    offerBlock()
  }

  private mutating func readNativeMaxAddress(_ drive: Int, isExt: Bool) {
    let sectors = drives[drive].sectorCount
    let last = max(isExt ? sectors : min(sectors, ATADrive.lba28Limit), 1) - 1
    // The address is always an LBA, whatever bit 6 says.
    if isExt {
      drives[drive].taskFile.setLBA48(last)
    } else {
      drives[drive].taskFile.setLBA28(last)
    }
    complete(drive)
  }

  private mutating func checkPowerMode(_ drive: Int) {
    let answer: UInt8 =
      switch drives[drive].powerMode {
      case .active: 0xFF
      case .idle: 0x80
      case .standby, .sleep: 0x00
      }
    drives[drive].taskFile.sectorCount.current = answer
    complete(drive)
  }

  // MARK: How it is set

  private mutating func setFeatures(_ drive: Int) {
    let file = drives[drive].taskFile
    guard let feature = ATAFeature(rawValue: file.features.current) else {
      return fail(drive, .abort)
    }
    switch feature {
    case .enableWriteCache: drives[drive].settings.hasWriteCache = true
    case .disableWriteCache:
      drives[drive].settings.hasWriteCache = false
      // What is in the cache goes to the disk first.
      return startFlush(drive)
    case .keepSettingsOnReset: drives[drive].keepsSettingsOnReset = true
    case .revertSettingsOnReset: drives[drive].keepsSettingsOnReset = false
    case .setTransferMode:
      guard let mode = ATATransferMode(code: file.sectorCount.current) else {
        return fail(drive, .abort)
      }
      if case .pio = mode { break }
      drives[drive].dmaMode = mode
    }
    complete(drive)
  }

  private mutating func setMultipleMode(_ drive: Int) {
    let count = Int(drives[drive].taskFile.sectorCount.current)
    guard count <= ATADrive.largestMultiple, count & (count - 1) == 0 else {
      drives[drive].settings.multipleCount = 0
      return fail(drive, .abort)
    }
    drives[drive].settings.multipleCount = count
    complete(drive)
  }

  private mutating func initializeParameters(_ drive: Int) {
    let file = drives[drive].taskFile
    let geometry = ATAGeometry(
      heads: UInt32(file.device & 0x0F) + 1, sectorsPerTrack: UInt32(file.sectorCount.current),
      sectors: drives[drive].sectorCount)
    guard let geometry else { return fail(drive, .abort) }
    drives[drive].settings.geometry = geometry
    complete(drive)
  }

  private mutating func seek(_ drive: Int) {
    drives[drive].taskFile.sectorCount.current = 1
    guard drives[drive].range(isExt: false) != nil else { return failRange(drive, isExt: false) }
    complete(drive)
  }
}
