/// One drive of a channel: its registers and what commands have set; no contents.
struct ATADrive {
  /// What a reset may take back to its default.
  struct Settings {
    /// How many sectors READ and WRITE MULTIPLE move in a block; 0 where they are off.
    var multipleCount = 0
    var geometry: ATAGeometry
    var hasWriteCache = true
  }

  /// ATA/ATAPI-7, volume 1, 4.5: as far as a guest can tell.
  enum PowerMode: UInt8 {
    case active
    case idle
    case standby
    case sleep
  }

  /// 0 or 1.
  let number: Int
  /// Of 512 bytes each.
  let sectorCount: UInt64
  let isReadOnly: Bool
  let serial: String

  var taskFile = ATATaskFile.signature
  var status = ATAStatus.idle
  var error = ATAError.diagnosticPassed
  var isInterrupting = false
  var settings: Settings
  var dmaMode: ATATransferMode?
  var keepsSettingsOnReset = false
  var powerMode = PowerMode.active
  /// The command under way, for those who watch, and the counts of those before.
  var request: DeviceRequest?
  var recorder: RequestRecorder
  var counters = ATACounters()

  /// The most sectors of a block of READ and WRITE MULTIPLE.
  static let largestMultiple = 16
  /// The most blocks of 512 bytes that DATA SET MANAGEMENT takes.
  static let largestTrim = 8
  /// The most sectors that commands without EXT reach.
  static let lba28Limit: UInt64 = 0x0FFF_FFFF

  init(
    number: Int, sectorCount: UInt64, isReadOnly: Bool, serial: String,
    recorder: RequestRecorder = RequestRecorder()
  ) {
    self.number = number
    self.recorder = recorder
    self.recorder.statistics.doorbells = nil
    self.sectorCount = min(sectorCount, 1 << 48)
    self.isReadOnly = isReadOnly
    self.serial = serial
    settings = Settings(geometry: ATAGeometry(sectors: sectorCount))
  }

  // MARK: Commands under way

  /// Begins a command; what was under way is over.
  mutating func begin(_ operation: StaticString) {
    end(.failed)
    request = DeviceRequest(operation)
    // Without a queue there is never more than one.
    recorder.statistics.deepest = 1
    recorder.begin()
  }

  /// Ends the command under way, if there is one.
  mutating func end(_ result: DeviceRequest.Result) {
    guard var request else { return }
    request.result = result
    recorder.finish(request)
    self.request = nil
  }

  /// What SRST and EXECUTE DEVICE DIAGNOSTIC leave (ATA/ATAPI-7, volume 1, 6.16.5). The transfer
  /// mode stays.
  mutating func reset() {
    end(.failed)
    taskFile = .signature
    status = .idle
    error = .diagnosticPassed
    isInterrupting = false
    powerMode = .active
    if !keepsSettingsOnReset {
      settings = Settings(geometry: ATAGeometry(sectors: sectorCount))
    }
  }

  /// What power leaves that comes on: settings aren't kept.
  mutating func powerOnReset() {
    keepsSettingsOnReset = false
    dmaMode = nil
    reset()
  }

  // MARK: Addresses

  /// How a command says which sectors it means.
  struct Range {
    var lba: UInt64
    var count: Int
  }

  /// The sectors that the task file names for a command with or without EXT; nil where some of them
  /// don't exist.
  func range(isExt: Bool) -> Range? {
    let limit = isExt ? sectorCount : min(sectorCount, Self.lba28Limit)
    guard let lba = address(isExt: isExt) else { return nil }
    let count = count(isExt: isExt)
    guard lba < limit, UInt64(count) <= limit - lba else { return nil }
    return Range(lba: lba, count: count)
  }

  /// The first address that the task file names and that doesn't exist, as far as it is a number.
  func firstMissing(isExt: Bool) -> UInt64? {
    address(isExt: isExt).map { max($0, isExt ? sectorCount : min(sectorCount, Self.lba28Limit)) }
  }

  private func address(isExt: Bool) -> UInt64? {
    if isExt { return taskFile.lba48 }
    if taskFile.device & ATATaskFile.isLBA != 0 { return taskFile.lba28 }
    let chs = taskFile.chs
    return settings.geometry.lba(cylinder: chs.cylinder, head: chs.head, sector: chs.sector)
  }

  // Zero means the most.
  private func count(isExt: Bool) -> Int {
    let low = Int(taskFile.sectorCount.current)
    if !isExt { return low == 0 ? 256 : low }
    let count = low | Int(taskFile.sectorCount.previous) << 8
    return count == 0 ? 65536 : count
  }

  /// Puts an address into the task file, as the command that it is for has it.
  mutating func setAddress(_ lba: UInt64, isExt: Bool) {
    if isExt {
      taskFile.setLBA48(lba)
    } else if taskFile.device & ATATaskFile.isLBA != 0 {
      taskFile.setLBA28(lba)
    } else {
      let chs = settings.geometry.address(of: lba)
      taskFile.setCHS(cylinder: chs.cylinder, head: chs.head, sector: chs.sector)
    }
  }
}
